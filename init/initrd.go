package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/disk"
	"chrysalis/init/internal/modules"
	"chrysalis/init/internal/mount"
	"chrysalis/init/internal/port"
	"chrysalis/init/status"
	"chrysalis/measure/config"
)

const (
	// rootFile names the root volume. It is part of the initrd, so the platform measures it; neither the disk nor the
	// command line has a say.
	rootFile = "/root.json"
	// cmdlineFile holds the command line of the release. Like rootFile it is measured with the initrd.
	cmdlineFile = "/cmdline"
	// imageFile is what the image says of itself. PID 1 on the root gets its content as its one argument.
	imageFile     = "/image.json"
	maxImageBytes = 8 << 10
	moduleDir     = "/modules"
	newRoot       = "/newroot"
	secondInit    = "/usr/bin/init"
)

var (
	systemPaths = disk.Paths{Sys: "/sys", Dev: "/dev"}
	statusPaths = port.Paths{Sys: "/sys", Dev: "/dev"}
)

// initrdMain is the first stage. It has nothing to keep secret yet.
func initrdMain() {
	if err := mount.Early(); err != nil {
		boot.NewEnder(nil, nil).End(status.Mounts.Failed(), err)
	}
	host, err := port.Open(statusPaths)
	end := boot.NewEnder(host, nil)
	if err != nil {
		end.End(status.Status.Failed(), err)
	}
	host.Event(status.KernelUp)
	host.Begun(status.Initrd)
	code, err := boot.Run(context.Background(), host, []boot.Step{
		{Name: status.Cmdline, Run: func(context.Context) error { return checkCmdline("/proc/cmdline", cmdlineFile) }},
		{Name: status.Modules, Run: func(context.Context) error { return modules.Load(moduleDir) }},
		{Name: status.Root, Run: openRoot},
	})
	if err != nil {
		end.End(code, err)
	}
	image, err := readBounded(imageFile, maxImageBytes)
	if err != nil {
		end.End(status.Root.Failed(), err)
	}
	host.Close()
	if err := mount.SwitchRoot(newRoot); err != nil {
		boot.NewEnder(nil, nil).End(status.Root.Failed(), err)
	}
	err = unix.Exec(secondInit, []string{secondInit, string(image)}, nil)
	boot.NewEnder(nil, nil).End(status.Root.Failed(), fmt.Errorf("starting %s: %v", secondInit, err))
}

// loaderWords is what the firmware adds to the command line when it boots a kernel without a boot loader: after it, and from
// EDK2 of 2026 on before it.
const loaderWords = "initrd=initrd"

// checkCmdline holds the kernel's command line against the release's. Every client sees another one in the registers, and
// the secret does not open under it; this check is for what runs before either counts, and says at once what is wrong.
func checkCmdline(running, release string) error {
	got, err := os.ReadFile(running)
	if err != nil {
		return err
	}
	want, err := os.ReadFile(release)
	if err != nil {
		return err
	}
	line := strings.TrimSuffix(string(got), "\n")
	if line != string(want) && line != string(want)+" "+loaderWords && line != loaderWords+" "+string(want) {
		return fmt.Errorf("command line is %q, want %q", line, want)
	}
	return nil
}

// readBounded reads a file of the initrd.
func readBounded(file string, limit int) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(data) > limit {
		err = fmt.Errorf("reading %s: more than %d bytes", file, limit)
	}
	return data, err
}

// openRoot maps and mounts the root. A block that fails its check stops the kernel at once.
func openRoot(ctx context.Context) error {
	data, err := readBounded(rootFile, 4096)
	if err != nil {
		return err
	}
	var root config.Volume
	if err := json.Unmarshal(data, &root, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("reading %s: %v", rootFile, err)
	}
	d, err := systemPaths.FindRoot(ctx, root.Root)
	if err != nil {
		return err
	}
	device, err := disk.OpenVerity(d, "root", root.Root, root.Blocks, "panic_on_corruption")
	if err != nil {
		return err
	}
	return mount.Volume(device, newRoot, true)
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"chrysalis/init/internal/disk"
	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/measure/engines"
)

// watchCorruption listens for the kernel's word that a block of a volume failed its check. The engine, which has the model
// mapped, would hang on such a block without dying; so the guest ends.
func (g *guest) watchCorruption(context.Context) error {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("opening uevent socket: %v", err)
	}
	const kernelGroup = 1
	if err := unix.Bind(socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		return fmt.Errorf("binding uevent socket: %v", err)
	}
	go func() {
		buf := make([]byte, 16<<10)
		for {
			n, from, err := unix.Recvfrom(socket, buf, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if errors.Is(err, unix.ENOBUFS) {
				g.lookAtVolumes() // events were lost: the volumes themselves remember
				continue
			}
			if err != nil {
				g.ender.End(status.Broken, fmt.Errorf("reading uevents: %v", err))
			}
			if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
				continue // not the kernel
			}
			if corrupt(buf[:n]) {
				g.ender.End(status.VolumeCorrupt, errors.New("the kernel reports a block that fails its check"))
			}
		}
	}()
	return nil
}

// lookAtVolumes ends the guest when a volume that is open has seen a block that fails its check.
func (g *guest) lookAtVolumes() {
	for _, name := range volumeNames() {
		if intact, err := disk.Intact(name); err == nil && !intact {
			g.ender.End(status.VolumeCorrupt, fmt.Errorf("volume %s has seen a block that fails its check", name))
		}
	}
}

// volumeNames are the names of all volumes that a guest can have, whatever its config: who looks at them does not wait for it.
func volumeNames() (names []string) {
	for _, name := range []string{engineVolume, modelVolume} {
		names = append(names, name)
		for at := range config.MaxModels {
			names = append(names, engines.Nth(name, at, config.MaxModels))
		}
	}
	return names
}

// corrupt reports whether a uevent says that a block failed dm-verity's check.
func corrupt(uevent []byte) bool {
	for field := range bytes.SplitSeq(uevent, []byte{0}) {
		if bytes.HasPrefix(field, []byte("DM_VERITY_ERR_BLOCK_NR=")) {
			return true
		}
	}
	return false
}

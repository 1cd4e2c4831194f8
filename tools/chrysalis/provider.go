package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"chrysalis/tools/internal/guest"
)

// stateRoot is where guests of units have their folders, on a machine whose owner installs them.
const stateRoot = "/var/lib/chrysalis"

// providerName is a guest's name in units: the user that a unit makes up for it has at most 31 letters.
var providerName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$`)

// providerFlags say for which guest units are, and where they go.
type providerFlags struct {
	units string
	user  bool
}

func (f *providerFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.units, "unit-dir", "", "folder of the units (default: /etc/systemd/system, or systemd/user in the user's configuration folder)")
	cmd.Flags().BoolVar(&f.user, "user", false, "units of this user's own systemd, without root (loginctl enable-linger keeps them when nobody is logged in)")
}

// folders returns where the units go, and where the guest's folder is.
func (f *providerFlags) folders(name string) (units, state string, err error) {
	if !providerName.MatchString(name) {
		return "", "", exitError{exitUsage, fmt.Errorf("guest is called %.60q, want at most 20 lower-case letters, digits and hyphens between", name)}
	}
	if !f.user {
		return cmp.Or(f.units, "/etc/systemd/system"), filepath.Join(stateRoot, name), nil
	}
	home, err := os.UserHomeDir()
	config, err2 := os.UserConfigDir()
	if err := errors.Join(err, err2); err != nil {
		return "", "", unavailable(err)
	}
	return cmp.Or(f.units, filepath.Join(config, "systemd/user")), filepath.Join(home, ".local/state/chrysalis", name), nil
}

// systemctl tells systemd, where it runs here and reads the folder that the units are in.
func (f *providerFlags) systemctl(ctx context.Context, args ...string) error {
	if _, err := os.Stat("/run/systemd/system"); err != nil || f.units != "" {
		return nil
	}
	if f.user {
		args = append([]string{"--user"}, args...)
	}
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("systemctl %s: %w: %.1000s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

func newProvider() *cobra.Command {
	group := &cobra.Command{Use: "provider", Short: "Have systemd keep a guest"}
	group.AddCommand(newProviderInstall(), newProviderUninstall())
	return group
}

func newProviderInstall() *cobra.Command {
	var flags providerFlags
	var program string
	var drain time.Duration
	var prints, asJSON bool
	cmd := &cobra.Command{
		Use:   "install NAME [-- FLAGS OF UP]",
		Short: "Write the units of a guest: it starts with the machine, is started again when it ends, and its claims are kept",
		Long: "Writes a service that runs chrysalis up --foreground, hardened and as a user of its own, and lets answers end when it is stopped; and a\n" +
			"timer that verifies the guest's claims every hour and exports them into the folder claims beside its journal: that unit fails when one\n" +
			"is not proved. What stands behind -- is up's. Files are named by where they are now, and the service's user must be able to read them.\n" +
			"The guest's folder is /var/lib/chrysalis/NAME; --name NAME finds it. Nothing is started: systemctl enable --now does.\n\n" +
			"Over days nothing else is due: keys are replaced inside, and clients fetch collateral that the guest's staple lacks or has outlived. To\n" +
			"staple newer: chrysalis collateral fetch into the file of --collateral, and restart. A software TPM is vouched for 365 days.",
		Example: "  chrysalis provider install box -- --config box.json --listen 0.0.0.0:8443\n" +
			"  chrysalis provider install box --print -- --platform sev-snp --certificate vcek.der --certificate ask.der\n" +
			"  chrysalis provider install box --user",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if at := cmd.ArgsLenAtDash(); at > 1 || at < 0 && len(args) > 1 {
				return exitError{exitUsage, fmt.Errorf("one NAME is wanted, and flags of up behind --")}
			}
			dir, state, err := flags.folders(args[0])
			if err != nil {
				return err
			}
			u := unit{name: args[0], program: program, state: state, drain: drain, user: flags.user}
			if u.program == "" {
				if u.program, err = os.Executable(); err != nil {
					return unavailable(err)
				}
			}
			if err := u.take(args[1:]); err != nil {
				return exitError{exitUsage, err}
			}
			files := u.files()
			if prints {
				return printUnits(cmd.OutOrStdout(), files, asJSON)
			}
			if err := u.readable(); err != nil {
				return unavailable(err)
			}
			changed, err := writeUnits(dir, files)
			if err != nil {
				return unavailable(err)
			}
			if err := flags.systemctl(cmd.Context(), "daemon-reload"); err != nil {
				return unavailable(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"written": changed, "dir": state})
			}
			for _, file := range changed {
				fmt.Fprintln(cmd.OutOrStdout(), file)
			}
			of := ""
			if flags.user {
				of = " --user"
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: hint: start it with: systemctl%s enable --now %s %s\n", of, u.unitName(".service"), u.unitName("-claims.timer"))
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&program, "program", "", "chrysalis as the units start it (default: this program)")
	cmd.Flags().DurationVar(&drain, "drain", 30*time.Second, "how long answers may take to end when the unit is stopped")
	cmd.Flags().BoolVar(&prints, "print", false, "print the units and write nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newProviderUninstall() *cobra.Command {
	var flags providerFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use: "uninstall NAME", Short: "Stop a guest's units and remove them; its folder stays", Args: cobra.ExactArgs(1),
		Example: "  chrysalis provider uninstall box\n  chrysalis provider uninstall box --user",
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, state, err := flags.folders(args[0])
			if err != nil {
				return err
			}
			var removed []string
			u := unit{name: args[0]}
			for _, file := range u.files() {
				file.name = filepath.Join(dir, file.name)
				text, err := os.ReadFile(file.name)
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err == nil && !strings.HasPrefix(string(text), unitMark) {
					err = fmt.Errorf("%s was not written by chrysalis provider install: it stays", file.name)
				}
				if err == nil {
					err = flags.systemctl(cmd.Context(), "disable", "--now", filepath.Base(file.name))
				}
				if err == nil {
					err = os.Remove(file.name)
				}
				if err != nil {
					return unavailable(err)
				}
				removed = append(removed, file.name)
			}
			if len(removed) == 0 {
				return unavailable(fmt.Errorf("%s has no units of a guest %s", dir, args[0]))
			}
			if err := flags.systemctl(cmd.Context(), "daemon-reload"); err != nil {
				return unavailable(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"removed": removed, "dir": state})
			}
			for _, file := range removed {
				fmt.Fprintln(cmd.OutOrStdout(), file)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: hint: the guest stays in %s: chrysalis down --forget --dir %s throws its key and journal away\n", state, state)
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// unitFile is a unit by the name of its file.
type unitFile struct {
	name, text string
}

func printUnits(w io.Writer, files []unitFile, asJSON bool) error {
	if asJSON {
		units := map[string]string{}
		for _, f := range files {
			units[f.name] = f.text
		}
		return printJSON(w, units)
	}
	for _, f := range files {
		fmt.Fprintf(w, "# %s\n%s\n", f.name, f.text)
	}
	return nil
}

// writeUnits writes those that are not there as they are to be, and returns their paths. What somebody else wrote stays.
func writeUnits(dir string, files []unitFile) (changed []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	changed = []string{}
	var old []string
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil && !strings.HasPrefix(string(text), unitMark) {
			return nil, fmt.Errorf("%s is there, and was not written by chrysalis provider install: it stays", filepath.Join(dir, f.name))
		}
		old = append(old, string(text))
	}
	for i, f := range files {
		if f.text == old[i] {
			continue
		}
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
			return nil, err
		}
		changed = append(changed, path)
	}
	return changed, nil
}

// unit is what a guest's units are made of.
type unit struct {
	name, program, state string
	drain, wait          time.Duration
	user                 bool
	up                   []string // flags of up, files by their whole path
	read                 []string // files that the units read
	port                 int
}

// ownFlags are those of up that the units decide, and fileFlags those that name a file or folder.
var (
	ownFlags  = map[string]bool{"dir": true, "name": true, "foreground": true, "drain": true, "dry-run": true, "print": true, "container-image": true, "json": true}
	fileFlags = map[string]bool{"release": true, "engine": true, "model": true, "config": true, "shape": true, "disk": true, "double": true,
		"tools-tree": true, "certificate": true, "collateral": true, "ton-config": true}
)

// take takes up's flags as up would, and names files by their whole path, those that nobody named too.
func (u *unit) take(args []string) error {
	up := newUp()
	if err := up.ParseFlags(args); err != nil {
		return fmt.Errorf("flags of up: %w", err)
	}
	if rest := up.Flags().Args(); len(rest) > 0 {
		return fmt.Errorf("flags of up: %.60q is none", rest[0])
	}
	var err error
	up.Flags().VisitAll(func(f *pflag.Flag) {
		switch {
		case err != nil:
		case f.Changed && ownFlags[f.Name]:
			err = fmt.Errorf("--%s is for chrysalis up alone: the units decide it", f.Name)
		case fileFlags[f.Name]:
			values := []string{f.Value.String()}
			if list, ok := f.Value.(pflag.SliceValue); ok {
				values = list.GetSlice()
			}
			for _, v := range values {
				if v == "" {
					continue
				}
				if v, err = filepath.Abs(v); err != nil {
					return
				}
				u.up = append(u.up, "--"+f.Name+"="+v)
				if f.Name != "double" || f.Changed {
					u.read = append(u.read, v)
				}
			}
		case f.Changed:
			values := []string{f.Value.String()}
			if list, ok := f.Value.(pflag.SliceValue); ok {
				values = list.GetSlice()
			}
			for _, v := range values {
				u.up = append(u.up, "--"+f.Name+"="+v)
			}
		}
	})
	if err != nil {
		return err
	}
	listen, _ := up.Flags().GetString("listen") // which are there, by these types
	port, _ := up.Flags().GetInt("port")
	u.wait, _ = up.Flags().GetDuration("wait")
	if _, u.port, err = listenAddress(listen, port, guest.Spec{Port: openPort}); err != nil { // a free one is not below 1024
		return err
	}
	if u.program, err = filepath.Abs(u.program); err != nil {
		return err
	}
	u.read = append(u.read, u.program)
	return err
}

// readable refuses files that the service's user, who is nobody's, can't read.
func (u *unit) readable() error {
	for _, path := range u.read {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		want := fs.FileMode(0o004)
		if info.IsDir() {
			want = 0o005
		}
		for !u.user {
			if info.Mode()&want != want {
				return fmt.Errorf("%s has mode %v, and the guest's unit has a user of its own: let others read it (chmod o+rX), or put it elsewhere", path, info.Mode())
			}
			parent := filepath.Dir(path)
			if parent == path {
				break
			}
			if info, err = os.Stat(parent); err != nil {
				return err
			}
			path, want = parent, 0o001
		}
	}
	return nil
}

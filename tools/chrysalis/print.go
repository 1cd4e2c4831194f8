package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chrysalis/measure"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/qemu"
)

// What up prints for those who start guests by an engine of many machines.
const (
	printLibvirt    = "libvirt"
	printKubernetes = "kubernetes"
)

// printFlags say for whom a guest is described.
type printFlags struct {
	dryRun                  bool
	what                    string
	emulator, containerName string
}

func (f *printFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.dryRun, "dry-run", false, "print QEMU's command line and start nothing")
	flags.StringVar(&f.what, "print", "", "write the guest's folder, print it as libvirt's domain or as Kubernetes' manifests, and start nothing: "+
		"libvirt or kubernetes")
	flags.StringVar(&f.emulator, "emulator", "/usr/bin/"+qemu.Program, "with --print libvirt: QEMU, of the shape's version, on the machine that runs the guest")
	flags.StringVar(&f.containerName, "container-image", "", "with --print kubernetes: container image with QEMU of the shape's version")
	cmd.RegisterFlagCompletionFunc("print", cobra.FixedCompletions([]string{printLibvirt, printKubernetes}, cobra.ShellCompDirectiveNoFileComp))
}

// asked reports whether something is printed and nothing started, or what is wrong with the flags.
func (f *printFlags) asked(qemuArgs []string) (bool, error) {
	switch {
	case f.what == "":
		return f.dryRun, nil
	case f.what != printLibvirt && f.what != printKubernetes:
		return false, fmt.Errorf("--print is %q, want %s or %s", f.what, printLibvirt, printKubernetes)
	case f.dryRun:
		return false, errors.New("--dry-run prints QEMU's line: give it or --print, not both")
	case len(qemuArgs) > 0:
		return false, errors.New("--qemu-arg is for a QEMU that this program starts, and --print starts none")
	}
	return true, nil
}

// fit makes the machine one that is started as it is printed.
func (f *printFlags) fit(spec *guest.Spec, quoteSocketGiven bool) error {
	if f.what == "" {
		return nil
	}
	paths := []*string{&spec.Release}
	volumes := slices.Clone(spec.Volumes())
	for i := range volumes {
		paths = append(paths, &volumes[i].Engine, &volumes[i].Model)
	}
	for _, path := range paths {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	*spec = spec.WithVolumes(volumes)
	if f.what == printLibvirt {
		spec.Shape = guest.StrictShape(spec.Shape)
		if spec.Hardware.QuoteSocket != "" && !quoteSocketGiven {
			spec.Hardware.QuoteSocket = guest.UnixQuoteSocket
		}
	}
	return nil
}

// print prints the guest, and writes the folder that a domain of libvirt's or whoever computes its registers needs.
func (f *printFlags) print(ctx context.Context, w, hints io.Writer, g guest.Guest, spec guest.Spec, name string, qemuArgs []string, asJSON bool) error {
	if f.what == "" {
		return printLine(w, g, spec, qemuArgs, asJSON)
	}
	var text []byte
	var err error
	if f.what == printLibvirt {
		text, err = g.Libvirt(spec, name, f.emulator)
	} else {
		text, err = g.Kubernetes(spec, guest.Pod{Name: name, Image: f.containerName})
	}
	if err != nil {
		return exitError{exitUsage, err}
	}
	if err := g.Prepare(ctx, spec); err != nil {
		return unavailable(err)
	}
	if asJSON {
		return printJSON(w, map[string]any{f.what: string(text), "shape": spec.Shape, "dir": g.Dir})
	}
	fmt.Fprintf(hints, "chrysalis: hint: clients compute this guest's registers with: chrysalis policy --shape %s\n", g.Path(guest.ShapeFile))
	if f.what == printKubernetes {
		volumes := spec.Volumes()
		names := guest.VolumeNames(len(volumes))
		var claims, files []string
		for i, v := range volumes {
			claims = append(claims, name+"-"+names[2*i], name+"-"+names[2*i+1])
			files = append(files, v.Engine, v.Model)
		}
		last := len(claims) - 1
		fmt.Fprintf(hints, "chrysalis: hint: claims %s-release (a folder: %s), %s and %s (raw blocks: %s) must be there\n", name,
			spec.Release, strings.Join(claims[:last], ", "), claims[last], strings.Join(files, ", "))
	}
	if spec.Shape.Platform == measure.TDX && f.what == printLibvirt && spec.Hardware.QuoteSocket != "" {
		fmt.Fprintf(hints, "chrysalis: hint: QEMU asks for quotes at %s: the quoting service must listen there\n", spec.Hardware.QuoteSocket)
	}
	_, err = w.Write(text)
	return err
}

// printLine prints QEMU's command line as a shell takes it.
func printLine(w io.Writer, g guest.Guest, spec guest.Spec, extra []string, asJSON bool) error {
	args, err := g.Arguments(spec, extra...)
	if err != nil {
		return exitError{exitUsage, err}
	}
	line := append([]string{qemu.Program}, args...)
	if asJSON {
		return printJSON(w, map[string]any{"argv": line, "shape": spec.Shape})
	}
	for i, word := range line {
		if strings.IndexFunc(word, func(r rune) bool { return !strings.ContainsRune(plainWord, r) }) >= 0 || word == "" {
			line[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
	}
	_, err = fmt.Fprintln(w, strings.Join(line, " "))
	return err
}

// plainWord are the characters that no shell gives a meaning to.
const plainWord = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=+,./:@%"

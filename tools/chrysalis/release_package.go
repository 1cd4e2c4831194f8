package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"chrysalis/tools/internal/packages"
	"chrysalis/tools/internal/release"
)

// commandLine is the main package of this program.
const commandLine = "chrysalis/tools/chrysalis"

func newReleasePackage() *cobra.Command {
	var version, out, license string
	var with []string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "package PROGRAM… --version VERSION -o DIR", Short: "Put the command line into what people install", Args: cobra.MinimumNArgs(1),
		Long: "Makes of each program, which is this command line built for a system, a tarball with its manual pages, completion, licence and bill of\n" +
			"materials (CycloneDX), and a Debian package where the system is Linux; and SHA256SUMS of all, and of what --with adds. The same programs make the same bytes.\n" +
			"make packages builds the programs and runs this.",
		Example: "  chrysalis release package build/cross/chrysalis-linux-arm64 build/cross/chrysalis-windows-amd64.exe --version 1.0 -o build/packages",
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readInput(license)
			if err != nil {
				return unavailable(err)
			}
			if err := os.MkdirAll(out, 0o755); err != nil {
				return unavailable(err)
			}
			var all []packages.File
			for _, program := range args {
				made, err := packagesOf(program, version, text)
				if err != nil {
					return rejected(fmt.Errorf("%s: %w", program, err))
				}
				all = append(all, made...)
			}
			for _, file := range with {
				data, err := os.ReadFile(file)
				if err != nil {
					return unavailable(err)
				}
				all = append(all, packages.File{Path: filepath.Base(file), Data: data})
			}
			var sums []string
			for _, f := range all {
				if err := os.WriteFile(filepath.Join(out, f.Path), f.Data, 0o644); err != nil {
					return unavailable(err)
				}
				if sum := fmt.Sprintf("%x  %s", sha256.Sum256(f.Data), f.Path); !slices.Contains(sums, sum) {
					sums = append(sums, sum)
				}
			}
			slices.SortFunc(sums, func(a, b string) int { return strings.Compare(a[66:], b[66:]) })
			if err := os.WriteFile(filepath.Join(out, "SHA256SUMS"), []byte(strings.Join(sums, "\n")+"\n"), 0o644); err != nil {
				return unavailable(err)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"sums": sums})
			}
			for _, sum := range sums {
				fmt.Fprintln(cmd.OutOrStdout(), sum)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&version, "version", "", "version of the packages")
	f.StringArrayVar(&with, "with", nil, "file that goes beside them as it is, such as the SDK's package (repeatable)")
	f.StringVar(&license, "license", "LICENSE", "text of the licence")
	f.StringVarP(&out, "output", "o", "", "folder to write to")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	_ = cmd.MarkFlagRequired("version")
	_ = cmd.MarkFlagRequired("output")
	return cmd
}

// packagesOf returns what is made of one program: a tarball, its bill of materials, and for Linux a Debian package.
func packagesOf(file, version string, license []byte) ([]packages.File, error) {
	program, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	set := map[string]string{}
	for _, s := range info.Settings {
		set[s.Key] = s.Value
	}
	if info.Path != commandLine || set["GOOS"] == "" || set["GOARCH"] == "" {
		return nil, fmt.Errorf("it was built from %s for %s/%s, want %s for a system", info.Path, set["GOOS"], set["GOARCH"], commandLine)
	}
	if set["GOOS"] == "linux" && set["CGO_ENABLED"] != "0" {
		return nil, errors.New("it was built with cgo, and would want libraries of the machine that it is installed on: build it with CGO_ENABLED=0")
	}
	contents, err := release.Describe(filepath.Dir(file), []string{filepath.Base(file)}, func(string, string) (release.Origin, error) {
		return release.Origin{Kind: release.FromGo, Name: commandLine}, nil
	}, nil)
	if err != nil {
		return nil, err
	}
	bill, err := release.SBOM(wholeName(set["GOOS"], set["GOARCH"], version), contents)
	if err != nil {
		return nil, err
	}
	return packed(set["GOOS"], set["GOARCH"], version, program, bill, license)
}

// packed puts a program for a system beside what goes with it.
func packed(system, arch, version string, program, bill, license []byte) ([]packages.File, error) {
	name, whole := "chrysalis", wholeName(system, arch, version)
	if system == "windows" {
		name += ".exe"
	}
	root := newRoot()
	var completion bytes.Buffer
	if err := root.GenBashCompletionV2(&completion, true); err != nil {
		return nil, err
	}
	files := []packages.File{{Path: name, Program: true, Data: program}, {Path: "LICENSE", Data: license}, {Path: "sbom.cdx.json", Data: bill},
		{Path: "completion.bash", Data: completion.Bytes()}}
	installed := []packages.File{{Path: "usr/bin/chrysalis", Program: true, Data: program}, {Path: "usr/share/doc/chrysalis/copyright", Data: license},
		{Path: "usr/share/doc/chrysalis/sbom.cdx.json", Data: bill}, {Path: "usr/share/bash-completion/completions/chrysalis", Data: completion.Bytes()}}
	for page, text := range manPages(root) {
		packed, err := packages.Gzip([]byte(text))
		if err != nil {
			return nil, err
		}
		files = append(files, packages.File{Path: "man1/" + page, Data: []byte(text)})
		installed = append(installed, packages.File{Path: "usr/share/man/man1/" + page + ".gz", Data: packed})
	}
	tarball, err := packages.Tarball(packages.Below(whole, files))
	if err != nil {
		return nil, err
	}
	made := []packages.File{{Path: whole + ".tar.gz", Data: tarball}, {Path: whole + ".cdx.json", Data: bill}}
	if system != "linux" {
		return made, nil
	}
	deb, err := packages.Deb(packages.Control{
		Name: "chrysalis", Version: version, Architecture: arch, Maintainer: "Chrysalis authors <authors@chrysalis.invalid>", Section: "net",
		Summary: "boot, verify and ask confidential inference guests",
		Description: "The command line of Chrysalis: it checks a host, boots and verifies confidential\n" +
			"inference guests, talks to them, and rebuilds and measures their image.",
	}, installed)
	if err != nil {
		return nil, err
	}
	return append(made, packages.File{Path: "chrysalis_" + version + "_" + arch + ".deb", Data: deb}), nil
}

// wholeName is what everything of a system and a version is called.
func wholeName(system, arch, version string) string {
	return "chrysalis-" + version + "-" + system + "-" + arch
}

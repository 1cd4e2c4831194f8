package main

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	attestrelease "chrysalis/attest/release"
	"chrysalis/measure"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/image"
	"chrysalis/tools/internal/release"
)

// comparison is the answer of image audit and image diff for machines.
type comparison struct {
	Verdict     string               `json:"verdict"` // same or different
	Files       []fileVerdict        `json:"files,omitempty"`
	Differences []release.Difference `json:"differences"`
	Changes     []release.Change     `json:"changes,omitempty"` // packages and modules in other versions
}

type fileVerdict struct {
	Name string `json:"name"`
	Want string `json:"want"`
	Got  string `json:"got"`
}

func newImageDiff() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "diff A B", Short: "Say in what two release folders differ", Args: cobra.ExactArgs(2),
		Long: "Compares two release folders byte for byte; where root or initrd differ, file by file inside: type, mode, owner, time, link,\n" +
			"content, order, with the bytes that differ and the package that owns the file, as each release's contents.json says. Packages, Go\n" +
			"modules and toolchains in other versions are listed first. Exit code 0: the same. 1: different. 3: a folder holds no release.",
		Example: "  chrysalis image diff build/release /mnt/published",
		RunE: func(cmd *cobra.Command, args []string) error {
			differences, err := release.Compare(args[0], args[1])
			if err != nil {
				return unavailable(err)
			}
			return printComparison(cmd.OutOrStdout(), comparison{Differences: differences, Changes: release.Changes(args[0], args[1])}, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newImageAudit() *cobra.Command {
	var asJSON, keep bool
	var statement rebuildStatement
	cmd := &cobra.Command{
		Use: "audit RELEASE_DIR|manifest.json", Short: "Rebuild a release from this source tree and compare every byte", Args: cobra.ExactArgs(1),
		Long: "Builds the release again in a fresh folder with empty caches; only packages may come out of the package cache, where their hashes\n" +
			"are checked again. With a release folder a difference is named: which file, which path inside it, which bytes, what kind (mode, time,\n" +
			"order, content) and which package owns it. With a manifest alone the hashes are compared. The source tree must be the one that the\n" +
			"release was made from. Exit code 0: the same, bit for bit. 1: not.\n\n" +
			"With --sign a release that is the same is attested: a signed statement that --as rebuilt the release with this manifest, for those who\n" +
			"keep a release list (release list make --rebuild).",
		Example: "  sudo chrysalis image audit /mnt/published\n  sudo chrysalis image audit published-manifest.json --json\n" +
			"  sudo chrysalis image audit /mnt/published --sign my.pem --as auditor.example --statement rebuild.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := statement.check(); err != nil {
				return err
			}
			file, folder := args[0], ""
			if info, err := os.Stat(args[0]); err == nil && info.IsDir() {
				file, folder = filepath.Join(args[0], "manifest.json"), args[0]
			}
			data, err := readInput(file)
			if err != nil {
				return unavailable(err)
			}
			published, err := measure.DecodeManifest(data)
			if err != nil {
				return rejected(fmt.Errorf("reading %s: %w", file, err))
			}
			fresh, rebuilt, err := rebuild(cmd, published.Profile)
			if fresh != "" && !keep {
				defer os.RemoveAll(fresh)
			}
			if err != nil {
				return unavailable(err)
			}
			result, err := compareRebuilt(data, published, folder, filepath.Join(fresh, "release"), rebuilt)
			if err != nil {
				return unavailable(err)
			}
			if err := printComparison(cmd.OutOrStdout(), result, asJSON); err != nil {
				return err
			}
			return statement.write(sha256.Sum256(data), published.Lock)
		},
	}
	cmd.Flags().StringVar(&statement.keyFile, "sign", "",
		"private key: attest a release that is the same (make one with: chrysalis release key)")
	cmd.Flags().StringVar(&statement.name, "as", "", "name of the rebuilder, for people (with --sign)")
	cmd.Flags().StringVar(&statement.out, "statement", "rebuild.json", "file for the statement (with --sign)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the rebuilt release")
	return cmd
}

// compareRebuilt compares a published release with the one that was rebuilt: folders byte for byte, and a manifest alone with the
// manifest that the rebuild wrote, which names every file, and every value that clients take from it.
func compareRebuilt(data []byte, published measure.Manifest, folder, fresh string, rebuilt measure.Manifest) (comparison, error) {
	result := comparison{Differences: []release.Difference{}}
	for _, want := range slices.Concat(published.Files, published.Documents) {
		got, err := rebuilt.File(want.Name)
		if err != nil {
			return comparison{}, err
		}
		result.Files = append(result.Files, fileVerdict{want.Name, want.SHA256.String(), got.SHA256.String()})
		if got.SHA256 != want.SHA256 && folder == "" {
			result.Differences = append(result.Differences,
				release.Difference{File: want.Name, Kind: "content", A: want.SHA256.String(), B: got.SHA256.String()})
		}
	}
	if folder == "" {
		again, err := measure.EncodeManifest(rebuilt)
		if err != nil {
			return comparison{}, err
		}
		if !bytes.Equal(again, data) {
			result.Differences = append(result.Differences,
				release.Difference{File: release.ManifestName, Kind: "content", Bytes: release.DifferingBytes(data, again)})
		}
		return result, nil
	}
	var err error
	result.Differences, err = release.Compare(folder, fresh)
	result.Changes = release.Changes(folder, fresh)
	return result, err
}

// rebuildStatement is the statement that an audit signs.
type rebuildStatement struct {
	keyFile, name, out string
	key                ed25519.PrivateKey
}

// check reads the key before the minutes of work that end with its use.
func (s *rebuildStatement) check() (err error) {
	if (s.keyFile == "") != (s.name == "") {
		return errors.New("--sign and --as go together")
	}
	if s.keyFile != "" {
		s.key, err = readPrivateKey(s.keyFile)
	}
	return err
}

// write signs that the release with that manifest is the same. A release of locks that are not in the source tree is not
// attested: nobody else could build it.
func (s *rebuildStatement) write(manifest register.Digest, lockState string) error {
	if s.keyFile == "" {
		return nil
	}
	if lockState != measure.LockReleased {
		return rejected(fmt.Errorf("the release is of an %s: nothing is signed", lockState))
	}
	signed, err := attestrelease.SignRebuild(manifest, s.name, time.Now(), s.key)
	if err != nil {
		return exitError{exitUsage, err}
	}
	if err := os.WriteFile(s.out, signed, 0o644); err != nil {
		return unavailable(err)
	}
	return nil
}

// rebuild builds the release of that profile in a folder of its own and returns the folder. Nothing that was built before is used: the Go
// caches are new too.
func rebuild(cmd *cobra.Command, profile string) (folder string, m measure.Manifest, err error) {
	b, err := newBuilder(cmd)
	if err == nil {
		b.Profile, err = image.FindProfile(b.Source, profile)
	}
	if err == nil {
		err = image.NeedsRoot()
	}
	if err != nil {
		return "", m, err
	}
	if err := os.MkdirAll(b.Work, 0o755); err != nil {
		return "", m, err
	}
	if folder, err = os.MkdirTemp(b.Work, "audit-"); err != nil {
		return "", m, err
	}
	packages := b.Places.Cache
	b.Work, b.Places.Cache = folder, filepath.Join(folder, "cache/packages")
	if b.Places.Store == "" {
		b.Places.Store = packages
	}
	if err := os.Setenv("GOCACHE", filepath.Join(folder, "go-build")); err != nil {
		return folder, m, err
	}
	b.Progress.Expect(b.Steps(false))
	if err := b.Fetch(cmd.Context()); err != nil {
		return folder, m, err
	}
	m, err = b.Build(cmd.Context(), filepath.Join(folder, "release"))
	return folder, m, err
}

// printDifference says what differs, where, and whose it is. Names and bytes come out of a release that nobody trusts yet.
func printDifference(w io.Writer, d release.Difference) {
	line := d.Where() + ": " + d.Kind
	if d.Bytes != "" {
		line += " (bytes: " + d.Bytes + ")"
	}
	switch {
	case d.FromA == d.FromB && d.FromA != "":
		line += ": " + d.FromA
	case d.FromA != "" || d.FromB != "":
		line += ": " + cmp.Or(d.FromA, "unknown") + " -> " + cmp.Or(d.FromB, "unknown")
	}
	fmt.Fprintln(w, printable(line))
	if d.A != "" {
		fmt.Fprintf(w, "  a  %s\n", printable(d.A))
	}
	if d.B != "" {
		fmt.Fprintf(w, "  b  %s\n", printable(d.B))
	}
}

func printComparison(w io.Writer, a comparison, asJSON bool) error {
	a.Verdict = "same"
	if len(a.Differences) > 0 {
		a.Verdict = "different"
	}
	if asJSON {
		if err := printJSON(w, a); err != nil {
			return err
		}
	} else {
		for _, f := range a.Files {
			word := "same"
			if f.Want != f.Got {
				word = "different"
			}
			fmt.Fprintf(w, "%-16s %-9s %s\n", f.Name, word, f.Got)
		}
		for _, c := range a.Changes {
			fmt.Fprintf(w, "%s %s: %s -> %s\n", c.Kind, c.Name, cmp.Or(c.A, "none"), cmp.Or(c.B, "none"))
		}
		for _, d := range a.Differences {
			printDifference(w, d)
		}
		fmt.Fprintln(w, map[string]string{"same": "the same, bit for bit", "different": "different"}[a.Verdict])
	}
	if a.Verdict == "different" {
		return rejected(errors.New("the releases differ"))
	}
	return nil
}

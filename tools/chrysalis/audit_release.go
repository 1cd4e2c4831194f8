package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	attestrelease "chrysalis/attest/release"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/measure/volume"
	"chrysalis/tools/internal/audit"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/release"
)

// errNoManifest ends the parts that judge by a manifest where there is none.
var errNoManifest = errors.New("there is no manifest to judge by")

func auditFiles(_ context.Context, a *auditing, p *audit.Part) error {
	data, err := readInput(filepath.Join(a.folder, release.ManifestName))
	if err != nil {
		return err
	}
	m, err := measure.DecodeManifest(data)
	if !p.Holds(release.ManifestName, "a manifest in its one encoding", err) {
		return nil
	}
	a.data, a.manifest = data, &m
	s := &a.report.Subject
	s.Manifest, s.Profile, s.SecurityVersion, s.Kernel, s.Root, s.Go = sha256.Sum256(data), m.Profile, m.SecurityVersion, m.Kernel, m.Root.Root, m.Toolchains.Go
	p.Check("lock", m.Lock, measure.LockReleased)
	named := slices.Concat(m.Files, m.Documents)
	for _, f := range named {
		sum, size, err := release.HashFile(filepath.Join(a.folder, f.Name))
		got := fmt.Sprintf("%d bytes, SHA-256 %s", size, sum)
		if err != nil {
			got = err.Error()
		}
		p.Check(f.Name, got, fmt.Sprintf("%d bytes, SHA-256 %s", f.Size, f.SHA256))
	}
	entries, err := os.ReadDir(a.folder)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); name != release.ManifestName && name != release.ProvenanceName &&
			!slices.ContainsFunc(named, func(f measure.File) bool { return f.Name == name }) {
			p.Note("%s lies in the folder and belongs to no release.", name)
		}
	}
	return nil
}

func auditDocuments(_ context.Context, a *auditing, p *audit.Part) error {
	if a.manifest == nil {
		return errNoManifest
	}
	data, err := readInput(filepath.Join(a.folder, release.ContentsName))
	if err != nil {
		return err
	}
	c, err := release.DecodeContents(data)
	if p.Holds(release.ContentsName, "contents in their one encoding", err) {
		a.contents = &c
		p.Holds("files inside", fmt.Sprintf("%d files and %d programs as they are listed", len(c.Files), len(c.Programs)),
			release.CheckContents(a.folder, c))
		p.Holds("packages", fmt.Sprintf("%d packages, each as in the manifest", len(c.Packages)), samePackages(c, *a.manifest))
		p.Holds(release.SBOMName, "what follows from the contents", a.sameBill(c))
	}
	statement, err := readInput(filepath.Join(a.folder, release.ProvenanceName))
	if err == nil {
		err = release.CheckProvenance(a.folder, statement)
	}
	p.Holds(release.ProvenanceName, "a statement over exactly these files", err)
	return nil
}

// sameBill checks that the bill of materials is the one that follows from the contents.
func (a *auditing) sameBill(c release.Contents) error {
	want, err := release.SBOM("chrysalis "+a.manifest.Profile, c)
	if err != nil {
		return err
	}
	got, err := readInput(filepath.Join(a.folder, release.SBOMName))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("another bill: bytes %s", release.DifferingBytes(got, want))
	}
	return nil
}

// samePackages checks that the packages that own files are those that the manifest names. Of the tools tree the manifest names ovmf alone;
// what programs link from there is in the contents.
func samePackages(c release.Contents, m measure.Manifest) error {
	for _, p := range c.Packages {
		i := slices.IndexFunc(m.Packages, func(q measure.Package) bool { return q.Name == p.Name })
		if i < 0 {
			if p.Lock == "tools" {
				continue
			}
			return fmt.Errorf("%s %s owns files, and the manifest does not name it", p.Name, p.Version)
		}
		if q := m.Packages[i]; q.Version != p.Version || q.SHA256 != p.SHA256 {
			return fmt.Errorf("%s is %s (SHA-256 %s) in the contents and %s (SHA-256 %s) in the manifest", p.Name, p.Version, p.SHA256, q.Version,
				q.SHA256)
		}
	}
	return nil
}

func auditRegisters(ctx context.Context, a *auditing, p *audit.Part) error {
	if a.manifest == nil {
		return errNoManifest
	}
	m := *a.manifest
	p.Holds("root volume", m.Root.String(), checkRoot(filepath.Join(a.folder, "root.img"), m.Root))
	if err := a.checkInitrd(p); err != nil {
		return err
	}
	pcrs, err := vtpmInputs{firmware: filepath.Join(a.folder, "OVMF_CODE.fd"), kernel: filepath.Join(a.folder, "vmlinuz"),
		initrd: filepath.Join(a.folder, "initrd"), cmdline: "@" + filepath.Join(a.folder, "cmdline")}.pcrs()
	if err != nil {
		return err
	}
	for _, index := range slices.Sorted(maps.Keys(m.PCRs)) {
		got := "not computed: it does not follow from the files"
		if value, ok := pcrs[index]; ok {
			got = value.String()
		}
		p.Check(register.PCR(index), got, m.PCRs[index].String())
	}
	return a.computeShapes(ctx, p)
}

// checkInitrd compares what the initrd says of root, command line and image with what the folder and its manifest say.
func (a *auditing) checkInitrd(p *audit.Part) error {
	ref, err := release.InitrdFile(a.folder, "root.json")
	if err != nil {
		return err
	}
	var root config.Volume
	if err := json.Unmarshal(ref, &root, json.RejectUnknownMembers(true)); err != nil {
		return err
	}
	p.Check("root in the initrd", root.String(), a.manifest.Root.String())
	inside, err := release.InitrdFile(a.folder, "cmdline")
	if err != nil {
		return err
	}
	outside, err := readInput(filepath.Join(a.folder, "cmdline"))
	if err != nil {
		return err
	}
	p.Check("command line in the initrd", string(inside), string(outside))
	text, err := release.InitrdFile(a.folder, "image.json")
	if err != nil {
		return err
	}
	image, err := handover.ParseImage(text)
	if err != nil {
		return err
	}
	p.Check("security version in the initrd", fmt.Sprint(image.SecurityVersion), fmt.Sprint(a.manifest.SecurityVersion))
	if len(image.Signers) == 0 {
		p.Fact("who may name a successor", "nobody: the image has no release keys, so it hands its secrets to no other")
	}
	for _, key := range image.Signers {
		p.Fact(fmt.Sprintf("who may name a successor (%d of them)", image.Threshold), key.String())
	}
	return nil
}

// checkRoot reads the whole volume.
func checkRoot(file string, want config.Volume) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	got, err := volume.Check(f, size, want.Root)
	if err == nil && got != want {
		err = fmt.Errorf("%s", got)
	}
	return err
}

// computeShapes adds what the release shows on each shape of machine.
func (a *auditing) computeShapes(ctx context.Context, p *audit.Part) error {
	for _, file := range a.flags.shapes {
		entries, err := a.entriesOf(ctx, file)
		if err != nil {
			return err
		}
		for _, e := range entries {
			for _, name := range slices.Sorted(maps.Keys(e.Values)) {
				p.Fact(filepath.Base(file)+": "+name, fmt.Sprintf("%x", e.Values[name]))
			}
		}
	}
	return nil
}

// entriesOf computes what a guest of the release shows on the machine of a shape.
func (a *auditing) entriesOf(ctx context.Context, file string) (all []attestrelease.Entry, err error) {
	s, err := guest.ReadShape(file)
	if err != nil {
		return nil, err
	}
	rules := strictRules(*a.manifest, config.Measured{})
	rules.Releases[0].VTPM = nil
	if err := pinShape(ctx, &rules, *a.manifest, a.folder, s, a.flags.tree); err != nil {
		return nil, err
	}
	for _, platform := range evidence.Platforms() {
		all = append(all, rules.Releases[0].Entries(platform)...)
	}
	return all, nil
}

func auditRebuild(_ context.Context, a *auditing, p *audit.Part) error {
	if a.manifest == nil {
		return errNoManifest
	}
	folder := a.flags.rebuilt
	if folder != "" {
		p.How = "Compared byte for byte with a release that the auditor rebuilt before. This run rebuilt nothing."
		p.Fact("rebuilt before", folder)
	} else {
		work, _, err := rebuild(a.cmd, a.manifest.Profile)
		if work != "" {
			defer os.RemoveAll(work)
		}
		if err != nil {
			return err
		}
		folder = filepath.Join(work, "release")
	}
	if same, err := sameFolder(a.folder, folder); err != nil || same {
		return errors.Join(err, errors.New("a release compared with itself shows nothing"))
	}
	differences, err := release.Compare(a.folder, folder)
	if err != nil {
		return err
	}
	differing := map[string][]string{}
	for _, d := range differences {
		var b strings.Builder
		printDifference(&b, d)
		differing[d.File] = append(differing[d.File], strings.TrimSpace(b.String()))
	}
	for _, name := range slices.Concat(release.Subjects(), []string{release.ProvenanceName}) {
		got := "the same, bit for bit"
		if lines := differing[name]; len(lines) > 0 {
			got = strings.Join(lines, "\n")
		}
		p.Check(name, got, "the same, bit for bit")
	}
	for _, c := range release.Changes(a.folder, folder) {
		p.Fact("other version: "+c.Kind+" "+c.Name, c.A+" -> "+c.B)
	}
	a.rebuiltBy = len(differences) == 0 && a.flags.rebuilt == "" && a.flags.statement.keyFile != ""
	return nil
}

func sameFolder(a, b string) (bool, error) {
	x, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y), err
}

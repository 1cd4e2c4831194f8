package image

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"chrysalis/measure"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/release"
	"chrysalis/tools/internal/toolstree"
)

// releaseLocks are the locks whose packages lie in a release. Plain OVMF alone comes out of the tools tree.
type releaseLocks struct{ image, firmware lock.Lock }

// writeDocuments writes what explains the release, each document over those before: contents, bill of materials, manifest,
// provenance.
func (b *Builder) writeDocuments(ctx context.Context, tree toolstree.Tree, m *measure.Manifest, g goTool, l releaseLocks,
	dir string) error {
	owners, err := b.owners(ctx, tree, l.image)
	if err != nil {
		return err
	}
	step := b.Progress.Step("write manifest", 0)
	if err := b.fillManifest(m, g, slices.Concat(l.image.Packages, l.firmware.Packages), dir); err != nil {
		return err
	}
	contents, err := b.contents(owners, l, dir)
	if err != nil {
		return err
	}
	data, err := release.EncodeContents(contents)
	if err != nil {
		return err
	}
	bill, err := release.SBOM("chrysalis "+m.Profile, contents)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{release.ContentsName: data, release.SBOMName: bill} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	if m.Documents, err = namedFiles(dir, measure.ReleaseDocuments()); err != nil {
		return err
	}
	if data, err = measure.EncodeManifest(*m); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, release.ManifestName), data, 0o644); err != nil {
		return err
	}
	materials, err := b.materials(g, l)
	if err != nil {
		return err
	}
	if data, err = release.Provenance(dir, *m, materials); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, release.ProvenanceName), data, 0o644); err != nil {
		return err
	}
	if _, err := namedFiles(dir, []string{release.ManifestName, release.ProvenanceName}); err != nil {
		return err
	}
	step.Done(fmt.Sprintf("%d files, %d packages, %d programs", len(contents.Files), len(contents.Packages), len(contents.Programs)))
	return nil
}

// materials are the inputs that a rebuilder must have: the locks that were used, Go's checksums, and the toolchain, which
// the go command checks by the checksum database.
func (b *Builder) materials(g goTool, l releaseLocks) ([]release.Material, error) {
	materials := []release.Material{
		{Name: "image/image.lock", SHA256: l.image.Digest()},
		{Name: "image/firmware.lock", SHA256: l.firmware.Digest()},
		{Name: "image/tools.lock", SHA256: b.toolsLock.Digest()},
	}
	files := []string{"image/root.list", b.Profile.file(profileModules)}
	for _, module := range programModules() {
		files = append(files, path.Join(module, "go.mod"), path.Join(module, "go.sum"))
	}
	slices.Sort(files)
	for _, name := range files {
		sum, _, err := release.HashFile(filepath.Join(b.Source, name))
		if err != nil {
			return nil, err
		}
		materials = append(materials, release.Material{Name: name, SHA256: sum})
	}
	mkosi, err := b.configDigest()
	if err != nil {
		return nil, err
	}
	materials = append(materials, release.Material{Name: "mkosi configuration", SHA256: register.Digest(mkosi)})
	return append(materials, release.Material{Name: "golang.org/toolchain@v0.0.1-" + g.version + ".linux-amd64",
		Note: "the go command fetches it by this name and checks it against the checksum database"}), nil
}

// contents describes the folder's files and what root and initrd hold.
func (b *Builder) contents(owners map[string]string, l releaseLocks, dir string) (release.Contents, error) {
	list, err := b.rootList()
	if err != nil {
		return release.Contents{}, err
	}
	o := origins{owners: owners, list: list, modules: map[string]string{}, cmdline: b.Profile.file(profileCmdline)}
	for file, name := range owners {
		if strings.HasPrefix(file, "usr/lib/modules/") {
			o.modules[path.Base(file)] = name
		}
	}
	c, err := release.Describe(dir, measure.ReleaseFiles(), o.of, linkedPackages())
	if err != nil {
		return release.Contents{}, err
	}
	named := map[string]bool{}
	for _, f := range c.Files {
		if f.From.Kind == release.FromPackage || f.From.Kind == release.FromScript {
			named[f.From.Name] = true
		}
	}
	for _, p := range c.Programs {
		for _, name := range p.Linked {
			named[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		from, p, err := b.locked(name, l)
		if err != nil {
			return release.Contents{}, err
		}
		source, version := p.Source()
		c.Packages = append(c.Packages, release.Package{Name: p.Name, Version: p.Version, Architecture: p.Architecture, Source: source,
			SourceVersion: version,
			Lock:          from, SHA256: p.SHA256})
	}
	return c, nil
}

// locked returns a package and the lock that it stands in.
func (b *Builder) locked(name string, l releaseLocks) (from string, p lock.Package, err error) {
	for _, in := range []struct {
		name string
		lock lock.Lock
	}{{"image", l.image}, {"firmware", l.firmware}, {"tools", b.toolsLock}} {
		if p, err = in.lock.Package(name); err == nil {
			return in.name, p, nil
		}
	}
	return "", p, err
}

// origins knows where each file of a release comes from.
type origins struct {
	owners  map[string]string // path in the file system to package, of the image lock
	modules map[string]string // file name of a kernel module to package
	list    []rootFile
	cmdline string // the profile's, in the source tree
}

func (o origins) of(file, name string) (release.Origin, error) {
	switch {
	case name != "" && file == "root.img":
		return o.inRoot(name)
	case name != "" && file == "initrd":
		return o.inInitrd(name)
	}
	switch file {
	case "OVMF_CODE.fd", "OVMF_VARS.fd":
		return release.Origin{Kind: release.FromPackage, Name: "ovmf"}, nil
	case "OVMF.amdsev.fd":
		return release.Origin{Kind: release.FromPackage, Name: "ovmf-amdsev"}, nil
	case "OVMF.inteltdx.fd":
		return release.Origin{Kind: release.FromPackage, Name: "ovmf-inteltdx"}, nil
	case "vmlinuz":
		owner, ok := o.modules["vmlinuz"]
		if !ok {
			return release.Origin{}, fmt.Errorf("%s: no package of the image lock ships it", file)
		}
		return release.Origin{Kind: release.FromPackage, Name: owner}, nil
	case "cmdline":
		return release.Origin{Kind: release.FromSource, Name: o.cmdline}, nil
	}
	return release.Origin{Kind: release.FromBuild}, nil
}

func (o origins) inRoot(name string) (release.Origin, error) {
	i := slices.IndexFunc(o.list, func(f rootFile) bool { return f.path == name })
	if i < 0 { // a folder above a listed file
		return release.Origin{Kind: release.FromBuild}, nil
	}
	f := o.list[i]
	switch f.from {
	case "guest":
		return programOrigin(path.Base(name))
	case "dir":
		return release.Origin{Kind: release.FromBuild}, nil
	}
	owner, shipped := o.owners[name]
	switch {
	case shipped && f.by == "":
		return release.Origin{Kind: release.FromPackage, Name: owner}, nil
	case !shipped && f.by != "":
		return release.Origin{Kind: release.FromScript, Name: f.by}, nil
	}
	return release.Origin{}, fmt.Errorf("root list: %s: the list says it is made by %q, and the packages' owner of it is %q; want exactly one", name, f.by, owner)
}

func (o origins) inInitrd(name string) (release.Origin, error) {
	if name == "init" {
		return programOrigin(name)
	}
	module, ok := strings.CutPrefix(name, "modules/")
	if !ok {
		return release.Origin{Kind: release.FromBuild}, nil
	}
	_, module, _ = strings.Cut(module, "-") // the number by which init orders them
	owner, ok := o.modules[module]
	if !ok {
		return release.Origin{}, fmt.Errorf("initrd: %s: no package of the image lock ships it", name)
	}
	return release.Origin{Kind: release.FromPackage, Name: owner}, nil
}

func programOrigin(name string) (release.Origin, error) {
	for _, p := range programs {
		if p.name == name {
			return release.Origin{Kind: release.FromGo, Name: p.pkg}, nil
		}
	}
	return release.Origin{}, fmt.Errorf("%s is none of the programs that the build makes", name)
}

package release

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"

	"chrysalis/measure/register"
)

// SBOM writes the contents as a CycloneDX bill of materials: the Debian packages that own files or are linked into programs,
// the Go programs, and the modules and standard library that each was built from. Its serial number is derived from the
// contents, so equal releases have equal bills.
func SBOM(name string, c Contents) ([]byte, error) {
	contents, err := EncodeContents(c)
	if err != nil {
		return nil, fmt.Errorf("writing bill of materials: %w", err)
	}
	b := bill{components: map[string]cyclonedx.Component{}, needs: map[string][]string{}}
	whole := cyclonedx.Component{BOMRef: "release", Type: cyclonedx.ComponentTypeOS, Name: name}
	for _, p := range c.Packages {
		b.add(packageComponent(p))
	}
	for _, p := range c.Programs {
		b.addProgram(p, c)
	}
	linked := map[string]bool{}
	for _, p := range c.Programs {
		for _, name := range p.Linked {
			linked[name] = true
		}
	}
	for _, p := range c.Packages {
		if !linked[p.Name] {
			b.need(whole.BOMRef, packageURL(p))
		}
	}
	for _, p := range c.Programs {
		b.need(whole.BOMRef, programRef(p))
	}
	bom := cyclonedx.NewBOM()
	bom.SerialNumber = serial(sha256.Sum256(append([]byte("chrysalis sbom\x00"), contents...)))
	bom.Metadata = &cyclonedx.Metadata{Component: &whole}
	bom.Components, bom.Dependencies = b.sorted(whole.BOMRef)
	var out bytes.Buffer
	if err := cyclonedx.NewBOMEncoder(&out, cyclonedx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom,
		cyclonedx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("writing bill of materials: %w", err)
	}
	return out.Bytes(), nil
}

// bill collects components by reference, and which needs which.
type bill struct {
	components map[string]cyclonedx.Component
	needs      map[string][]string
}

func (b *bill) add(c cyclonedx.Component) { b.components[c.BOMRef] = c }

func (b *bill) need(from, to string) {
	if !slices.Contains(b.needs[from], to) {
		b.needs[from] = append(b.needs[from], to)
	}
}

func (b *bill) addProgram(p Program, c Contents) {
	ref := programRef(p)
	f, _ := c.find(p.File, p.Path)
	b.add(cyclonedx.Component{BOMRef: ref, Type: cyclonedx.ComponentTypeApplication, Name: p.Path, Version: p.Module.Version,
		Description: p.Main,
		Hashes:      &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: f.SHA256.String()}}})
	modules := []Module{{Path: "stdlib", Version: strings.TrimPrefix(p.Go, "go")}}
	if p.Module.Sum != "" { // the main module of our own programs is this source tree
		modules = append(modules, p.Module)
	}
	for _, m := range append(modules, p.Modules...) {
		component := moduleComponent(m)
		b.add(component)
		b.need(ref, component.BOMRef)
	}
	for _, name := range p.Linked {
		for _, pkg := range c.Packages {
			if pkg.Name == name {
				b.need(ref, packageURL(pkg))
			}
		}
	}
}

func (b *bill) sorted(root string) (*[]cyclonedx.Component, *[]cyclonedx.Dependency) {
	var components []cyclonedx.Component
	refs := []string{root}
	for ref, c := range b.components {
		components, refs = append(components, c), append(refs, ref)
	}
	slices.SortFunc(components, func(x, y cyclonedx.Component) int { return strings.Compare(x.BOMRef, y.BOMRef) })
	slices.Sort(refs)
	var dependencies []cyclonedx.Dependency
	for _, ref := range refs {
		needs := slices.Sorted(slices.Values(b.needs[ref]))
		d := cyclonedx.Dependency{Ref: ref}
		if len(needs) > 0 {
			d.Dependencies = &needs
		}
		dependencies = append(dependencies, d)
	}
	return &components, &dependencies
}

func programRef(p Program) string { return p.File + ":" + p.Path }

func packageComponent(p Package) cyclonedx.Component {
	return cyclonedx.Component{BOMRef: packageURL(p), Type: cyclonedx.ComponentTypeLibrary, Name: p.Name, Version: p.Version,
		PackageURL: packageURL(p),
		Hashes:     &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: p.SHA256.String()}},
		Properties: &[]cyclonedx.Property{{Name: "chrysalis:lock", Value: p.Lock}, {Name: "chrysalis:source", Value: p.Source},
			{Name: "chrysalis:source-version", Value: p.SourceVersion}}}
}

func moduleComponent(m Module) cyclonedx.Component {
	ref := "pkg:golang/" + strings.ToLower(m.Path) + "@" + purlEscape(m.Version)
	c := cyclonedx.Component{BOMRef: ref, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: ref}
	if m.Sum != "" {
		c.Properties = &[]cyclonedx.Property{{Name: "chrysalis:go-sum", Value: m.Sum}}
	}
	return c
}

// packageURL is the package's purl; upstream names the source package, by which advisories are filed.
func packageURL(p Package) string {
	text := "pkg:deb/debian/" + purlEscape(p.Name) + "@" + purlEscape(p.Version) + "?arch=" + purlEscape(p.Architecture)
	if p.Source != p.Name || p.SourceVersion != p.Version {
		text += "&upstream=" + purlEscape(p.Source+"@"+p.SourceVersion)
	}
	return text
}

func purlEscape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "%3A", ":") }

// serial makes a UUID of version 8 (RFC 9562 section 5.8) out of a digest.
func serial(d register.Digest) string {
	d[6], d[8] = d[6]&0x0f|0x80, d[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", d[0:4], d[4:6], d[6:8], d[8:10], d[10:16])
}

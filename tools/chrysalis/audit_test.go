package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cavaliergopher/cpio"

	"chrysalis/attest/check"
	"chrysalis/attest/handover"
	attestrelease "chrysalis/attest/release"
	"chrysalis/measure"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/measure/volume"
	"chrysalis/tools/internal/audit"
	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/release"
)

// wholeRelease is what a release folder is made of, before its documents follow from it. Its firmware is no known build, so its
// registers can't be computed; all else is as in a real one.
type wholeRelease struct {
	root    fstest.MapFS
	named   config.Volume // in the initrd and the manifest; zero: what root makes
	inside  config.Volume // in the initrd; zero: named
	cmdline string        // in the folder
	version uint32        // in the initrd
	edit    func(*measure.Manifest)
}

func goodRelease() wholeRelease {
	return wholeRelease{root: fstest.MapFS{"usr/bin/init": {Data: []byte("init"), Mode: 0o755}}, cmdline: "quiet", version: 1}
}

func (r wholeRelease) write(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(dir, 0o755))
	root, err := os.Create(filepath.Join(dir, "root.img"))
	must(err)
	packed, err := volume.Pack(t.Context(), r.root, root, volume.Options{})
	must(err)
	must(root.Close())
	if r.named == (config.Volume{}) {
		r.named = packed
	}
	if r.inside == (config.Volume{}) {
		r.inside = r.named
	}
	ref, err := json.Marshal(r.inside)
	must(err)
	image, err := handover.Image{SecurityVersion: r.version}.Encode()
	must(err)
	var initrd bytes.Buffer
	w := cpio.NewWriter(&initrd)
	for _, e := range []struct {
		name string
		data []byte
	}{{"cmdline", []byte("quiet")}, {"image.json", image}, {"root.json", ref}} {
		must(w.WriteHeader(&cpio.Header{Name: e.name, Mode: cpio.TypeReg | 0o644, Size: int64(len(e.data)), Links: 1}))
		_, err := w.Write(e.data)
		must(err)
	}
	must(w.Close())
	for name, data := range map[string][]byte{"initrd": initrd.Bytes(), "cmdline": []byte(r.cmdline), "vmlinuz": []byte("kernel"),
		"OVMF_CODE.fd": []byte("code"),
		"OVMF_VARS.fd": []byte("vars"), "OVMF.amdsev.fd": []byte("amd"), "OVMF.inteltdx.fd": []byte("intel")} {
		must(os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	m, _ := testManifest(t)
	m.Root = r.named
	contents, err := release.Describe(dir, measure.ReleaseFiles(), func(string, string) (release.Origin,
		error) {
		return release.Origin{Kind: release.FromBuild}, nil
	}, nil)
	must(err)
	contents.Packages = []release.Package{{Name: m.Packages[0].Name, Version: m.Packages[0].Version, Architecture: "amd64", Source: "s",
		SourceVersion: "1", Lock: "image",
		SHA256: m.Packages[0].SHA256}}
	data, err := release.EncodeContents(contents)
	must(err)
	must(os.WriteFile(filepath.Join(dir, release.ContentsName), data, 0o644))
	bill, err := release.SBOM("chrysalis "+m.Profile, contents)
	must(err)
	must(os.WriteFile(filepath.Join(dir, release.SBOMName), bill, 0o644))
	for _, files := range [][]measure.File{m.Files, m.Documents} {
		for i := range files {
			files[i].SHA256, files[i].Size, err = release.HashFile(filepath.Join(dir, files[i].Name))
			must(err)
		}
	}
	if r.edit != nil {
		r.edit(&m)
	}
	data, err = measure.EncodeManifest(m)
	must(err)
	must(os.WriteFile(filepath.Join(dir, release.ManifestName), data, 0o644))
	statement, err := release.Provenance(dir, m, []release.Material{{Name: "image/image.lock", SHA256: register.Digest{1}}})
	must(err)
	must(os.WriteFile(filepath.Join(dir, release.ProvenanceName), statement, 0o644))
}

// audited runs the verb and returns its exit code and report.
func audited(t *testing.T, args ...string) (code int, r audit.Report) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	code = run(append([]string{"audit", "-o", out}, args...))
	data, err := os.ReadFile(filepath.Join(out, auditReport))
	if err != nil {
		return code, r
	}
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(out, auditPage))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(data); !bytes.Contains(page, []byte(hex.EncodeToString(sum[:]))) {
		t.Error("the page does not name the report")
	}
	return code, r
}

func partOf(t *testing.T, r audit.Report, name string) audit.Part {
	t.Helper()
	i := slices.IndexFunc(r.Parts, func(p audit.Part) bool { return p.Name == name })
	if i < 0 {
		t.Fatalf("the report has no part %s: %+v", name, r)
	}
	return r.Parts[i]
}

// TestAudit: each change of a release is found by the part that must find it, and a part that was not made says so.
func TestAudit(t *testing.T) {
	flip := func(name string, at int) func(string) error {
		return func(dir string) error {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err == nil {
				data[at] ^= 1
				err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
			}
			return err
		}
	}
	quick := []string{"--without", "rebuild", "--without", "advisories", "--waive", "registers"}
	for _, tt := range []struct {
		name   string
		make   func(*wholeRelease)
		spoil  func(dir string) error // after it was made
		code   int
		part   string
		reason string
	}{
		{name: "good"},
		{name: "a byte of the root", spoil: flip("root.img", 0), code: exitRejected, part: "files", reason: "root.img: got"},
		{name: "a byte of the manifest", spoil: flip("manifest.json", 3), code: exitRejected, part: "files",
			reason: "manifest.json: got decoding manifest"},
		{name: "no manifest", spoil: func(dir string) error { return os.Remove(filepath.Join(dir, "manifest.json")) }, code: exitUnavailable,
			part: "files", reason: "no such file"},
		{name: "a file less", spoil: func(dir string) error { return os.Remove(filepath.Join(dir, "OVMF_VARS.fd")) }, code: exitRejected,
			part: "files", reason: "OVMF_VARS.fd: got"},
		{name: "no contents", spoil: func(dir string) error { return os.Remove(filepath.Join(dir, "contents.json")) }, code: exitRejected,
			part: "files", reason: "contents.json: got"},
		{name: "another provenance", spoil: func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "provenance.json"), []byte("{}\n"), 0o644)
		}, code: exitRejected, part: "documents", reason: "provenance.json: got checking provenance"},
		{name: "an unreleased lock", make: func(r *wholeRelease) { r.edit = func(m *measure.Manifest) { m.Lock = measure.LockUnreleased } },
			code: exitRejected, part: "files",
			reason: "lock: got unreleased lock"},
		{name: "a package that the manifest does not name", make: func(r *wholeRelease) { r.edit = func(m *measure.Manifest) { m.Packages[0].Name += "x" } },
			code: exitRejected, part: "documents", reason: "the manifest does not name it"},
		{name: "a package of another hash", make: func(r *wholeRelease) { r.edit = func(m *measure.Manifest) { m.Packages[0].SHA256[0] ^= 1 } },
			code: exitRejected, part: "documents", reason: "in the manifest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "release")
			r := goodRelease()
			if tt.make != nil {
				tt.make(&r)
			}
			r.write(t, dir)
			if tt.spoil != nil {
				if err := tt.spoil(dir); err != nil {
					t.Fatal(err)
				}
			}
			code, report := audited(t, append([]string{dir}, quick...)...)
			if code != tt.code {
				t.Errorf("got exit code %d, want %d: %s", code, tt.code, report.Summary)
			}
			if tt.part == "" {
				want := "Accepted: files, documents. Waived: registers. Not checked: signature, list, statements, advisories, tracker, modules, guest, rebuild."
				if report.Summary != want {
					t.Errorf("got %q, want %q", report.Summary, want)
				}
				return
			}
			if p := partOf(t, report, tt.part); p.Outcome == audit.Accepted || !strings.Contains(p.Reason, tt.reason) {
				t.Errorf("got %s, %q, want one with %q", p.Outcome, p.Reason, tt.reason)
			}
		})
	}
}

// TestAuditRegisters: what the initrd says is held against the folder, and what can't be computed is no acceptance.
func TestAuditRegisters(t *testing.T) {
	for _, tt := range []struct {
		name    string
		make    func(*wholeRelease)
		outcome audit.Outcome
		reason  string
	}{
		{"a firmware that is no known build", func(*wholeRelease) {}, audit.Unavailable, "is no known build"},
		{"another root", func(r *wholeRelease) { r.named = config.Volume{Root: register.Digest{7}, Blocks: 4} }, audit.Rejected,
			"root volume: got"},
		{"another root in the initrd", func(r *wholeRelease) { r.inside = config.Volume{Root: register.Digest{7}, Blocks: 4} }, audit.Rejected,
			"root in the initrd: got 07"},
		{"another command line", func(r *wholeRelease) { r.cmdline = "quiet debug" }, audit.Rejected,
			"command line in the initrd: got quiet, want quiet debug"},
		{"another security version", func(r *wholeRelease) { r.version = 2 }, audit.Rejected, "security version in the initrd: got 2, want 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "release")
			r := goodRelease()
			tt.make(&r)
			r.write(t, dir)
			_, report := audited(t, dir, "--without", "rebuild", "--without", "advisories")
			if p := partOf(t, report, "registers"); p.Outcome != tt.outcome || !strings.Contains(p.Reason, tt.reason) {
				t.Errorf("got %s, %q, want %s with %q", p.Outcome, p.Reason, tt.outcome, tt.reason)
			}
		})
	}
}

// TestAuditRebuilt: a release that differs from the auditor's own is refused by name; a release is not compared with itself.
func TestAuditRebuilt(t *testing.T) {
	published, own, other := filepath.Join(t.TempDir(), "p"), filepath.Join(t.TempDir(), "o"), filepath.Join(t.TempDir(), "x")
	goodRelease().write(t, published)
	goodRelease().write(t, own)
	r := goodRelease()
	r.root["usr/bin/init"].Data = []byte("evil")
	r.write(t, other)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(published, link); err != nil {
		t.Fatal(err)
	}
	quick := []string{"--without", "advisories", "--waive", "registers"}
	for _, tt := range []struct {
		name, rebuilt string
		outcome       audit.Outcome
		reason        string
		code          int
	}{
		{"the same", own, audit.Accepted, "", 0},
		{"another", other, audit.Rejected, "contents.json: got", exitRejected},
		{"itself", link, audit.Unavailable, "compared with itself", exitUnavailable},
		{"nothing", filepath.Join(own, "nothing"), audit.Unavailable, "no such file", exitUnavailable},
	} {
		code, report := audited(t, append([]string{published, "--rebuilt", tt.rebuilt}, quick...)...)
		p := partOf(t, report, "rebuild")
		if code != tt.code || p.Outcome != tt.outcome || !strings.Contains(p.Reason, tt.reason) {
			t.Errorf("%s: got exit code %d, %s, %q, want %d, %s, %q", tt.name, code, p.Outcome, p.Reason, tt.code, tt.outcome, tt.reason)
		}
		if tt.rebuilt == other && !slices.ContainsFunc(p.Checks, func(l check.Line) bool {
			return l.Name == "root.img" && strings.Contains(l.Got, "root.img: usr/bin/init: content")
		}) {
			t.Errorf("another: the report does not name the file: %+v", p.Checks)
		}
	}
}

// TestAuditTrust: signature, list and statements, each with what must refuse it.
func TestAuditTrust(t *testing.T) {
	work := t.TempDir()
	at := func(name string) string { return filepath.Join(work, name) }
	write := func(name string, data []byte, err error) string {
		t.Helper()
		if err == nil {
			err = os.WriteFile(at(name), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return at(name)
	}
	dir := at("release")
	goodRelease().write(t, dir)
	data, err := os.ReadFile(filepath.Join(dir, release.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	m, err := measure.DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	manifest := register.Digest(sha256.Sum256(data))
	var keys []ed25519.PrivateKey
	for _, name := range []string{"a.pem", "b.pem"} {
		if _, err := release.NewKey(at(name)); err != nil {
			t.Fatal(err)
		}
		key, err := readPrivateKey(at(name))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	bundle, err := release.Sign(t.Context(), dir, keys[0])
	write("bundle", bundle, err)
	list := func(name string, edit func(*attestrelease.Document)) {
		d := attestrelease.NewDocument(time.Now().Add(-time.Minute), time.Hour)
		values := strictRules(m, config.Measured{}).Releases[0]
		d.Releases = []attestrelease.Listed{{Manifest: manifest, Values: values, Rebuilds: []attestrelease.Envelope{}}}
		edit(&d)
		encoded, err := attestrelease.EncodeList(d)
		if err == nil {
			encoded, err = attestrelease.SignList(encoded, keys[0])
		}
		write(name, encoded, err)
	}
	list("list", func(*attestrelease.Document) {})
	list("list-other", func(d *attestrelease.Document) { d.Releases[0].Manifest[0] ^= 1 })
	list("list-revoked", func(d *attestrelease.Document) {
		d.Releases, d.Revoked = []attestrelease.Listed{}, []attestrelease.Revoked{{Name: "old", Manifest: manifest, Reason: "it logged prompts"}}
	})
	list("list-version", func(d *attestrelease.Document) { d.Releases[0].Values.SecurityVersion++ })
	list("list-register", func(d *attestrelease.Document) {
		d.Releases[0].Values.VTPM = []register.PCRs{m.PCRs.With(register.PCRs{4: {9}})}
	})
	statement, err := attestrelease.SignRebuild(manifest, "somebody.example", time.Now(), keys[1])
	write("rebuild", statement, err)
	statement, err = attestrelease.SignRebuild(register.Digest{1}, "somebody.example", time.Now(), keys[1])
	write("rebuild-other", statement, err)
	quick := []string{dir, "--without", "rebuild", "--without", "advisories", "--waive", "registers"}
	for _, tt := range []struct {
		name   string
		args   []string
		code   int
		part   string
		reason string
	}{
		{"signature", []string{"--bundle", at("bundle"), "--key", at("a.pem.pub")}, 0, "signature", ""},
		{"another signer", []string{"--bundle", at("bundle"), "--key", at("b.pem.pub")}, exitRejected, "signature", "verifying release"},
		{"no bundle", []string{"--bundle", at("nothing"), "--key", at("a.pem.pub")}, exitUnavailable, "signature", "no such file"},
		{"list", []string{"--release-list", at("list"), "--signer", at("a.pem.pub")}, 0, "list", ""},
		{"a list of another signer", []string{"--release-list", at("list"), "--signer", at("b.pem.pub")}, exitRejected, "list",
			"signatures: got"},
		{"an old list", []string{"--release-list", at("list"), "--signer", at("a.pem.pub"), "--max-list-age", "1s"}, exitRejected, "list",
			"dates: got"},
		{"not listed", []string{"--release-list", at("list-other"), "--signer", at("a.pem.pub")}, exitRejected, "list", "entry: got not listed"},
		{"revoked", []string{"--release-list", at("list-revoked"), "--signer", at("a.pem.pub")}, exitRejected, "list",
			"revoked as old: it logged prompts"},
		{"listed with another version", []string{"--release-list", at("list-version"), "--signer", at("a.pem.pub")}, exitRejected, "list",
			"security version: got 2, want 1"},
		{"listed with another register", []string{"--release-list", at("list-register"), "--signer", at("a.pem.pub")}, exitRejected, "list",
			"vtpm entry 0: pcr-4: got 09"},
		{"not rebuilt", []string{"--release-list", at("list"), "--signer", at("a.pem.pub"), "--rebuilder", at("b.pem.pub"), "--rebuilds", "1"},
			exitRejected, "list",
			"rebuilds: got"},
		{"statement", []string{"--rebuild", at("rebuild"), "--rebuilder", at("b.pem.pub")}, 0, "statements", ""},
		{"a statement of a stranger", []string{"--rebuild", at("rebuild"), "--rebuilder", at("a.pem.pub")}, exitRejected, "statements",
			"rebuild: got"},
		{"a statement about another", []string{"--rebuild", at("rebuild-other"), "--rebuilder", at("b.pem.pub")}, exitRejected, "statements",
			"manifest: got 01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, report := audited(t, append(slices.Clone(quick), tt.args...)...)
			p := partOf(t, report, tt.part)
			if code != tt.code || (p.Outcome == audit.Accepted) != (tt.code == 0) || !strings.Contains(p.Reason, tt.reason) {
				t.Errorf("got exit code %d, %s, %q, want %d with %q", code, p.Outcome, p.Reason, tt.code, tt.reason)
			}
		})
	}
	// A refusal that the auditor waives by name does not decide, and the report says so.
	code, report := audited(t, append(slices.Clone(quick), "--bundle", at("bundle"), "--key", at("b.pem.pub"), "--waive", "signature")...)
	if code != 0 || partOf(t, report, "signature").Outcome != audit.Waived || !strings.Contains(report.Summary,
		"Waived: registers, signature.") {
		t.Errorf("waived: got exit code %d, %q", code, report.Summary)
	}
}

// TestJudgeNews: advisories refuse the package that the release holds, and of what can't be read nothing is accepted.
func TestJudgeNews(t *testing.T) {
	held := map[string]map[string]string{"image": {"openssl": "1", "zlib": "1", "quiet": "1"}, "tools": {"libc6": "1"}}
	read := lock.NewsRead + "x"
	for _, tt := range []struct {
		name    string
		changes []lock.PackageChange
		outcome audit.Outcome
		reason  string
	}{
		{"nothing is newer", nil, audit.Accepted, ""},
		{"newer without advisories", []lock.PackageChange{{Name: "zlib", Old: "1", New: "2", News: read}}, audit.Accepted, ""},
		{"advisories", []lock.PackageChange{{Name: "openssl", Old: "1", New: "2", News: read, Advisories: []string{"CVE-2026-1", "DSA-1"}}},
			audit.Rejected,
			"openssl 1: got 2 since: CVE-2026-1 DSA-1, want no advisory since"},
		{"advisories under another name", []lock.PackageChange{{Name: "openssl", Old: "1", News: read, Advisories: []string{"CVE-2026-1"}}},
			audit.Rejected, "CVE-2026-1"},
		{"a changelog that can't be read", []lock.PackageChange{{Name: "quiet", Old: "1", New: "2", News: "cannot be told: quiet"}},
			audit.Unavailable, "quiet (cannot be told: quiet)"},
		{"removed", []lock.PackageChange{{Name: "quiet", Old: "1", News: "removed"}}, audit.Unavailable, "quiet (removed)"},
		{"advisories of what the release does not hold", []lock.PackageChange{{Name: "nginx", Old: "1", New: "2", News: read,
			Advisories: []string{"CVE-2026-1"}}}, audit.Accepted, ""},
	} {
		var p audit.Part
		p.Judge(judgeNews(&p, held, []lock.Diff{{Lock: "image", Packages: tt.changes}, {Lock: "tools"}}))
		if p.Outcome != tt.outcome || !strings.Contains(p.Reason, tt.reason) {
			t.Errorf("%s: got %s, %q, want %s, %q", tt.name, p.Outcome, p.Reason, tt.outcome, tt.reason)
		}
		if tt.outcome == audit.Accepted && len(p.Checks) != 4 {
			t.Errorf("%s: got %d checks, want one for each of 4 packages", tt.name, len(p.Checks))
		}
	}
}

func TestAuditUsage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "release")
	goodRelease().write(t, dir)
	for _, args := range [][]string{{"--without", "files"}, {"--waive", "files"}, {"--waive", "nothing"}, {"--guest", "https://127.0.0.1:1"},
		{"--policy", "p"}, {"--guest", "http://127.0.0.1:1", "--policy", "p"}, {"--signer", "a"}, {"--release-list", "a"}, {"--rebuild", "a"},
		{"--rebuilder", "a"}, {"--rebuilds", "1", "--rebuilder", "a"}, {"--key", "a"}, {"--bundle", "a"}, {"--rebuilt", "a", "--without",
			"rebuild"},
		{"--waive", "CVE-2026-1234"}, {"--waive", "CVE-1", "--tracker", "a"}, {"--sign", "a"}, {"--sign", "a", "--as", "b", "--without", "rebuild"},
		{"--bundle", filepath.Join(dir, "manifest.json"), "--key", filepath.Join(dir, "manifest.json"), "--without", "rebuild", "--without",
			"advisories"}} {
		code, report := audited(t, append([]string{dir}, args...)...)
		if code != exitUsage || report.Format != "" {
			t.Errorf("%q: got exit code %d and report %q, want %d and none", args, code, report.Format, exitUsage)
		}
	}
	// A report that is there stays.
	out := t.TempDir()
	quick := []string{"audit", dir, "-o", out, "--without", "rebuild", "--without", "advisories", "--waive", "registers"}
	if code := run(quick); code != 0 {
		t.Fatalf("got exit code %d", code)
	}
	was, err := os.ReadFile(filepath.Join(out, auditReport))
	if err != nil {
		t.Fatal(err)
	}
	if code := run(quick); code != exitUsage {
		t.Errorf("over a report: got exit code %d, want %d", code, exitUsage)
	}
	if is, err := os.ReadFile(filepath.Join(out, auditReport)); err != nil || !bytes.Equal(is, was) {
		t.Errorf("the report was written over: %v", err)
	}
	if code := run([]string{"audit", filepath.Join(dir, "manifest.json"), "-o", fmt.Sprint(t.TempDir(), "/x")}); code != exitUnavailable {
		t.Errorf("no folder: got exit code %d, want %d", code, exitUnavailable)
	}
}

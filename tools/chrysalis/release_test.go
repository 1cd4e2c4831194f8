package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"

	"chrysalis/measure"
	"chrysalis/measure/register"
	"chrysalis/tools/internal/release"
	"chrysalis/tools/internal/release/releasetest"
)

// signedRelease is a release folder of small files, with a bundle by the virtual sigstore and that sigstore's root.
type signedRelease struct {
	folder       map[string][]byte // of the folder
	bundle, root []byte
}

func newSignedRelease(t *testing.T) signedRelease {
	t.Helper()
	dir := t.TempDir()
	manifest, data := testManifest(t)
	s := signedRelease{folder: map[string][]byte{}}
	for _, name := range release.Subjects() {
		s.folder[name] = []byte("content of " + name)
	}
	s.folder[release.ManifestName] = data
	for name, data := range s.folder {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	statement, err := release.Provenance(dir, measure.Manifest{Profile: manifest.Profile, Lock: manifest.Lock},
		[]release.Material{{Name: "image/image.lock", SHA256: register.Digest{1}}})
	if err != nil {
		t.Fatal(err)
	}
	s.folder[release.ProvenanceName] = statement
	sigstore, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	s.bundle = releasetest.Bundle(t, sigstore, statement)
	if s.root, err = releasetest.TrustedRoot(t, sigstore, false).MarshalJSON(); err != nil {
		t.Fatal(err)
	}
	return s
}

// files lays everything out for a script and names it in its environment.
func (s signedRelease) files(e *testscript.Env) error {
	at := filepath.Join(e.WorkDir, "signed release")
	all := map[string][]byte{filepath.Join(e.WorkDir, "identity.sigstore.json"): s.bundle,
		filepath.Join(e.WorkDir, "trusted-root.json"): s.root,
		filepath.Join(e.WorkDir, "other-byte"):        []byte("content oF root.img")}
	for name, data := range s.folder {
		all[filepath.Join(at, name)] = data
	}
	for file, data := range all {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			return err
		}
	}
	for name, file := range map[string]string{"RELEASE": at, "MANIFEST": filepath.Join(at, release.ManifestName),
		"IDENTITYBUNDLE": filepath.Join(e.WorkDir, "identity.sigstore.json"),
		"TRUSTEDROOT":    filepath.Join(e.WorkDir, "trusted-root.json"), "OTHERBYTE": filepath.Join(e.WorkDir, "other-byte")} {
		e.Setenv(name, file)
	}
	return nil
}

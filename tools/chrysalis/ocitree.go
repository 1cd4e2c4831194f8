package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// ociTree reads the one image of an OCI layout: its layers, one over the other, each of them and what names them held against their digests.
// The unpacked layers lie one behind the other in an unnamed temporary file and are read in place: extracting them would need root for their
// owners, and would follow their links. Owners and extended attributes are left out: a volume has none.
func ociTree(dir string) (fs.FS, func() error, error) {
	img, err := ociImage(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("reading OCI layout: %w", err)
	}
	spool, err := os.CreateTemp("", "chrysalis-oci-*")
	if err != nil {
		return nil, nil, err
	}
	if err := os.Remove(spool.Name()); err != nil {
		return nil, nil, errors.Join(err, spool.Close())
	}
	tree, err := unpackLayers(img, spool)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("reading OCI layout: %w", err), spool.Close())
	}
	return tree, spool.Close, nil
}

// ociImage returns the one image of a layout. The library reads its documents by the names of their files, and does not look whether they
// have those digests.
func ociImage(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	listed, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if n := len(listed.Manifests); n != 1 {
		return nil, fmt.Errorf("it holds %d images, want one", n)
	}
	named := listed.Manifests[0].Digest
	img, err := index.Image(named)
	if err != nil {
		return nil, err
	}
	raw, err := img.RawManifest()
	if err := hasDigest("manifest", raw, named, err); err != nil {
		return nil, err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	raw, err = img.RawConfigFile()
	return img, hasDigest("config", raw, manifest.Config.Digest, err)
}

func hasDigest(what string, data []byte, want v1.Hash, err error) error {
	if err != nil {
		return err
	}
	if got := (v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256(data))}); got != want {
		return fmt.Errorf("%s has digest %s, want %s", what, got, want)
	}
	return nil
}

// unpackLayers writes the unpacked layers to spool, the lowest first, and returns the tree that they are.
func unpackLayers(img v1.Image, spool *os.File) (tarTree, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	if len(config.RootFS.DiffIDs) != len(layers) {
		return nil, fmt.Errorf("config names %d layers, and the manifest %d", len(config.RootFS.DiffIDs), len(layers))
	}
	t := newTarTree()
	for i, l := range layers {
		want, err := l.Digest()
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		if err := copyHashed(io.Discard, l.Compressed, fmt.Sprintf("layer %d has digest", i), want); err != nil {
			return nil, err
		}
		start, err := spool.Seek(0, io.SeekEnd)
		if err != nil {
			return nil, err
		}
		if err := copyHashed(spool, l.Uncompressed, fmt.Sprintf("layer %d, unpacked, has digest", i), config.RootFS.DiffIDs[i]); err != nil {
			return nil, err
		}
		end, err := spool.Seek(0, io.SeekEnd)
		if err != nil {
			return nil, err
		}
		if err := t.lay(spool, start, end-start); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return t, nil
}

// copyHashed copies what open yields, which must have the digest.
func copyHashed(w io.Writer, open func() (io.ReadCloser, error), what string, want v1.Hash) error {
	r, err := open()
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(w, sum), r)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if got := (v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sum.Sum(nil))}); got != want {
		return fmt.Errorf("%s %s, want %s", what, got, want)
	}
	return nil
}

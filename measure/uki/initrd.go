package uki

import (
	"bytes"
	"fmt"
	"strings"
)

// passed are the sections that the stub packs into archives of its own behind the image's initrd, in order, and the name of each
// there. since is the first version that does.
var passed = []struct {
	section, file string
	since         int
}{
	{signature, "tpm2-pcr-signature.json", oldest},
	{".pcrpkey", "tpm2-pcr-public-key.pem", oldest},
	{".osrel", "os-release", 257},
	{".profile", "profile", 257},
}

// Initrd returns the initrd as the stub hands it to the kernel, which measures it: microcode, the image's own, and archives of the
// stub's, each padded to four bytes. systemd, src/boot/cpio.c.
func (i Image) Initrd() []byte {
	parts := [][]byte{}
	if ucode := i.sections[".ucode"]; ucode != nil && i.measures(".ucode") {
		parts = append(parts, ucode)
	}
	parts = append(parts, i.sections[".initrd"])
	for _, p := range passed {
		if data, there := i.sections[p.section]; there && (i.Stub.Major == 0 || i.Stub.Major >= p.since) {
			parts = append(parts, archive(p.file, data))
		}
	}
	if len(parts) == 1 {
		return bytes.Clone(parts[0]) // the stub hands on a lone one as it is
	}
	var out []byte
	for _, part := range parts {
		out = append(out, part...)
		out = append(out, make([]byte, -len(part)&3)...)
	}
	return out
}

// archive is a cpio archive of the directory .extra with one file.
func archive(name string, data []byte) (out []byte) {
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	for i, f := range []struct {
		mode uint32
		name string
		data []byte
	}{{0o040555, ".extra", nil}, {0o100444, ".extra/" + name, data}} {
		out = fmt.Appendf(out, "070701%08x%08x%08x%08x%08x%08x%08x%s%08x%08x%s\x00", i+1, f.mode, 0, 0, 1, 0, len(f.data),
			strings.Repeat("0", 32), len(f.name)+1, 0, f.name)
		out = pad(append(pad(out), f.data...))
	}
	return append(out, "070701"+strings.Repeat("0", 32)+"00000001"+strings.Repeat("0", 48)+"0000000B00000000TRAILER!!!\x00\x00\x00\x00"...)
}

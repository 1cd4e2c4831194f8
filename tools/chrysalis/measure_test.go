package main

import (
	"os"
	"path/filepath"

	"chrysalis/measure/pe/petest"
)

// writeMeasured writes the images that the measure scripts read.
func writeMeasured(dir string) error {
	stub := func(version string, names ...string) []byte {
		image := petest.Image(append([]string{".sdmagic", ".osrel", ".cmdline", ".initrd", ".linux"}, names...)...)
		petest.Put(image, 0, []byte("#### LoaderInfo: systemd-stub "+version+" ####"))
		return image
	}
	amdsev, err := os.ReadFile("../../measure/snp/testdata/ovmf_AmdSev_suffix.bin")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"amdsev.bin": amdsev,
		"uki257.efi": stub("257.13-1~deb13u1", ".splash", ".profile", ".profile", ".ucode"), "uki262.efi": stub("262.1-1", ".hwids", ".efifw"),
		"uki259.efi": stub("259", ".ucode"), "uki300.efi": stub("300"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

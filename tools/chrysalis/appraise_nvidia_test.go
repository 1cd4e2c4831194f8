package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/nvidia"
)

// gpuFiles is the evidence of software boards: one GPU of Hopper with all that belongs to it, one whose measurement
// differs, and a board in protected PCIe as NVIDIA's tools write it.
var gpuFiles = sync.OnceValue(func() map[string][]byte {
	files := map[string][]byte{}
	add := func(name string, b *attesttest.Board) {
		e := b.Evidence()
		files[name+".bin"], files[name+".chain"] = e.GPUs[0].Report, e.GPUs[0].Chain
		for i, document := range e.RIMs {
			files[fmt.Sprintf("%s-%d.rim", name, i)] = document
		}
		for i, answer := range e.OCSP {
			files[fmt.Sprintf("%s-%d.ocsp", name, i)] = answer
		}
		files[name+"-root.pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.Root.DER()})
		files[name+"-rim-root.pem"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.RIMRoot.DER()})
	}
	good := attesttest.NewBoard(appraisedAt)
	add("gpu", good)
	files["gpu.hex"] = []byte(hex.EncodeToString(files["gpu.bin"]) + "\n")
	files["gpu.openssl.chain"] = append([]byte("subject=CN = GH100\n"), files["gpu.chain"]...)
	differs := attesttest.NewBoard(appraisedAt)
	differs.GPUs[0].Measure(8, make([]byte, 48))
	add("gpu-differs", differs)
	hold := attesttest.NewBoard(appraisedAt)
	hold.GPUs[0].Chain[1].Answer.Status = "on hold"
	add("gpu-hold", hold)
	board := attesttest.NewPPCIeBoard(2, 2, appraisedAt)
	add("board", board)
	e := board.Evidence()
	text := "["
	for i, d := range append(append([]nvidia.Device{}, e.GPUs...), e.Switches...) {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf(`{"arch":"HOPPER","nonce":%q,"evidence":%q,"certificate":%q}`, hex.EncodeToString(board.GPUs[0].Report.Nonce[:]),
			base64.StdEncoding.EncodeToString(d.Report), base64.StdEncoding.EncodeToString(d.Chain))
	}
	files["board.json"] = []byte(text + "]")
	for i, b := range e.RIMs {
		files[fmt.Sprintf("gpu-folder/rim-%d", i)] = b
	}
	for i, b := range e.OCSP {
		files[fmt.Sprintf("gpu-folder/ocsp-%d", i)] = b
	}
	return files
})

func writeGPUAppraisals(dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "gpu-folder"), 0o755); err != nil {
		return err
	}
	for name, content := range gpuFiles() {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

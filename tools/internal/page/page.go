// Package page makes what talks to a guest from a browser, or from any program in JavaScript: the client's program as WebAssembly, the SDK
// around it, and a page that is one file.
//
//	program, err := page.Build(ctx, root)       // out of the sources below root
//	files, err := page.SDK(program, root, "1.0") // an npm package's
//	html, err := page.HTML(program, root, page.Settings{Guest: "https://guest.example"})
//
// The same sources make the same bytes. Nothing is downloaded.
package page

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"chrysalis/tools/internal/packages"
)

// Program is the client's program.
type Program struct {
	Wasm    []byte
	Packed  []byte // Wasm under LZMA
	SHA256  string // of Wasm, in hexadecimal
	Support []byte // Go's wasm_exec.js of the same toolchain
}

// Build compiles the program out of the sources below root, with the toolchain that the environment names.
func Build(ctx context.Context, root string) (*Program, error) {
	dir, err := os.MkdirTemp("", "page-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "wasm")
	// Without inlining the program is a tenth smaller when it is packed, and no slower where it counts: its arithmetic is in few functions.
	build := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join(root, "tools"), "-buildvcs=false", "-trimpath", "-ldflags=-s -w -buildid=", "-gcflags=all=-l", "-o", out, "./wasm")
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm", "GOFLAGS=", "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the client's program: %w\n%s", err, said)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	if wasm, err = joined(wasm); err != nil {
		return nil, fmt.Errorf("packing the client's program: %w", err)
	}
	said, err := exec.CommandContext(ctx, "go", "-C", filepath.Join(root, "tools"), "env", "GOROOT").Output()
	if err != nil {
		return nil, fmt.Errorf("asking for GOROOT: %w", err)
	}
	support, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(said)), "lib", "wasm", "wasm_exec.js"))
	if err != nil {
		return nil, err
	}
	return newProgram(wasm, support), nil
}

func newProgram(wasm, support []byte) *Program {
	sum := sha256.Sum256(wasm)
	return &Program{Wasm: wasm, Packed: packed(wasm), SHA256: hex.EncodeToString(sum[:]), Support: support}
}

// sdkFolder is where the SDK's own sources are.
const sdkFolder = "sdk/js"

var versionForm = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`) // semver 2.0.0, without a build

// SDK returns the files of the SDK's package, below "package/" as npm wants them.
func SDK(p *Program, root, version string) ([]packages.File, error) {
	if !versionForm.MatchString(version) {
		return nil, fmt.Errorf("packing SDK: version %.40q, want one of npm's such as 1.0.0", version)
	}
	files := []packages.File{
		{Path: "chrysalis.wasm.lzma", Data: p.Packed}, {Path: "wasm_exec.js", Data: p.Support},
		{Path: "wasm.js", Data: fmt.Appendf(nil, "// The client's program, by its hash.\nexport const sha256 = %q;\n", p.SHA256)},
	}
	for _, name := range []string{"core.js", "index.js", "index.d.ts", "README.md", "package.json"} {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(sdkFolder), name))
		if err != nil {
			return nil, err
		}
		if name == "package.json" {
			with := bytes.Replace(text, []byte(`"version": "0.0.0"`), fmt.Appendf(nil, `"version": %q`, version), 1)
			if bytes.Equal(with, text) && version != "0.0.0" {
				return nil, errors.New("packing SDK: package.json names no version 0.0.0")
			}
			text = with
		}
		files = append(files, packages.File{Path: name, Data: text})
	}
	license, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		return nil, err
	}
	return packages.Below("package", append(files, packages.File{Path: "LICENSE", Data: license})), nil
}

// Command page makes the SDK and the page that talk to guests from JavaScript, out of the sources of the folder in which it runs.
//
//	page wasm -o DIR               the client's program, and Go's support for it
//	page sdk -version V -o DIR     the SDK's package as npm installs it, and the folder that is in it
//	page html [-guest URL] [-policy FILE] [-roots FILE] [-release-list FILE] -o DIR    the page, chrysalis.html
//	page inside -o DIR             the page as it goes into the command line, and inside.json, which go build -overlay takes for that
//
// make wasm, make packages and make page run it.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"

	"chrysalis/tools/internal/packages"
	"chrysalis/tools/internal/page"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "page:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want wasm, sdk, html or inside")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	out := flags.String("o", "", "folder to write to")
	guest := flags.String("guest", "", "the guest that the page asks, and the only address that it then reaches")
	policy := flags.String("policy", "", "file of the policy that it must meet")
	roots := flags.String("roots", "", "PEM file of the makers of TPMs that are trusted, if any")
	list := flags.String("release-list", "", "file of a signed list of releases, for a policy that names its signers")
	version := flags.String("version", "0.0.0", "version of the SDK's package")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if *out == "" || flags.NArg() != 0 {
		return errors.New("want -o and nothing behind it")
	}
	program, err := page.Build(ctx, ".")
	if err != nil {
		return err
	}
	var files []packages.File
	switch args[0] {
	case "wasm":
		files = []packages.File{{Path: "chrysalis.wasm", Data: program.Wasm}, {Path: "wasm_exec.js", Data: program.Support}}
	case "sdk":
		if files, err = page.SDK(program, ".", *version); err != nil {
			return err
		}
		tarball, err := packages.Tarball(files)
		if err != nil {
			return err
		}
		files = append(files, packages.File{Path: "chrysalis-sdk-" + *version + ".tgz", Data: tarball})
	case "html":
		settings := page.Settings{Guest: *guest}
		for _, of := range []struct {
			file string
			text *string
		}{{*policy, &settings.Policy}, {*roots, &settings.Roots.VTPM}, {*list, &settings.ReleaseList}} {
			if of.file == "" {
				continue
			}
			text, err := os.ReadFile(of.file)
			if err != nil {
				return err
			}
			*of.text = string(text)
		}
		html, err := page.HTML(program, ".", settings)
		if err != nil {
			return err
		}
		files = []packages.File{{Path: "chrysalis.html", Data: html}}
	case "inside":
		html, err := page.HTML(program, ".", page.Settings{})
		if err != nil {
			return err
		}
		packed, err := packages.Gzip(html)
		if err != nil {
			return err
		}
		here, err := filepath.Abs(".")
		if err != nil {
			return err
		}
		to, err := filepath.Abs(filepath.Join(*out, "page.html.gz"))
		if err != nil {
			return err
		}
		overlay, err := json.Marshal(map[string]map[string]string{"Replace": {filepath.Join(here, "tools/internal/proxy/page.html.gz"): to}})
		if err != nil {
			return err
		}
		files = []packages.File{{Path: "page.html.gz", Data: packed}, {Path: "inside.json", Data: overlay}, {Path: "chrysalis.html", Data: html}}
	default:
		return fmt.Errorf("%q is none of wasm, sdk, html and inside", args[0])
	}
	for _, f := range files {
		path := filepath.Join(*out, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			return err
		}
	}
	for _, f := range files {
		if strings.HasSuffix(f.Path, ".html") {
			fmt.Printf("%x  %s, %d bytes\n", sha256.Sum256(f.Data), filepath.Join(*out, f.Path), len(f.Data))
		}
	}
	fmt.Printf("%s: program of %d bytes, %d packed, SHA-256 %s\n", *out, len(program.Wasm), len(program.Packed), program.SHA256)
	return nil
}

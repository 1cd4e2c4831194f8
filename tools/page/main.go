// Command page makes the SDK and the page that talk to guests from JavaScript, out of the sources of the folder in which it runs.
//
//	page wasm -o DIR               the client's program, and Go's support for it
//	page sdk -version V -o DIR     the SDK's package as npm installs it, and the folder that is in it
//
// make wasm and make packages run it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

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
		return errors.New("want wasm or sdk")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	out := flags.String("o", "", "folder to write to")
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
	default:
		return fmt.Errorf("%q is none of wasm and sdk", args[0])
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
	fmt.Printf("%s: program of %d bytes, %d packed, SHA-256 %s\n", *out, len(program.Wasm), len(program.Packed), program.SHA256)
	return nil
}

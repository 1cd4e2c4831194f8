package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"chrysalis/measure/pubkey"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"chrysalis": func() { os.Exit(run(os.Args[1:])) },
	})
}

// TestScripts runs one script a verb.
func TestScripts(t *testing.T) {
	const dir = "testdata/script"
	if scripts, err := filepath.Glob(dir + "/*.txtar"); err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	measured, err := filepath.Abs("../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(measured)
	if err != nil {
		t.Fatal(err)
	}
	bootLog, err := filepath.Abs("../../measure/eventlog/testdata/boots/qemu10-ovmf2025.02.tcg2")
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := filepath.Abs("../../measure/varstore/testdata/snakeoil.der")
	if err != nil {
		t.Fatal(err)
	}
	model, err := filepath.Abs("../../image/model/tiny.gguf")
	if err != nil {
		t.Fatal(err)
	}
	guest := newSoftwareGuest(t, document)
	mute, err := net.Listen("tcp4", "127.0.0.1:0") // the kernel takes connections, and nobody ever answers on them
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	signed := newSignedRelease(t)
	local := newLocalChain(t)
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			e.Setenv("MEASURED", measured)
			e.Setenv("GUEST", guest.URL)
			e.Setenv("CARDKEY", pubkey.Of(cardKey).String())
			e.Setenv("MUTE", "https://"+mute.Addr().String())
			if err := guest.files(e.WorkDir); err != nil {
				return err
			}
			if err := guest.changed(filepath.Join(e.WorkDir, "changed.bin")); err != nil {
				return err
			}
			e.Setenv("BOOTLOG", bootLog)
			e.Setenv("CERTIFICATE", certificate)
			e.Setenv("MODEL", model)
			if err := unpackLogs(e.WorkDir); err != nil {
				return err
			}
			if err := writeMeasured(e.WorkDir); err != nil {
				return err
			}
			if err := signed.files(e); err != nil {
				return err
			}
			if err := writeSNPAppraisals(e.WorkDir); err != nil {
				return err
			}
			if err := writeGPUAppraisals(e.WorkDir); err != nil {
				return err
			}
			if err := local.files(e.WorkDir); err != nil {
				return err
			}
			if err := writeClaims(e.WorkDir); err != nil {
				return err
			}
			return writeAppraisals(e.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// unpackLogs writes the logs that scripts read into dir.
func unpackLogs(dir string) error {
	var names []string
	for _, logs := range []string{"testdata/logs/*.gz", "../../measure/eventlog/testdata/logs/*.gz"} {
		found, err := filepath.Glob(logs)
		if err != nil || len(found) == 0 {
			return fmt.Errorf("no logs in %s: %v", logs, err)
		}
		names = append(names, found...)
	}
	for _, name := range names {
		log, err := unpacked(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, strings.TrimSuffix(filepath.Base(name), ".gz")), log, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// unpacked returns what gzip packed.
func unpacked(name string) ([]byte, error) {
	packed, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// exits runs a command and wants an exact exit code: exits CODE PROGRAM ARGUMENTS.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGUMENTS")
	}
	got := "0"
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = strconv.Itoa(exit.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != args[0] {
		ts.Fatalf("exit code: got %s, want %s", got, args[0])
	}
}

package claim

import (
	"bytes"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// compile is what asks tolk-js for a contract's code.
const compile = `
const {runTolkCompiler} = require(process.argv[1]);
const fs = require('fs'), path = require('path');
const file = process.argv[2];
runTolkCompiler({entrypointFileName: path.basename(file), fsReadCallback: p => fs.readFileSync(path.join(path.dirname(file), p), 'utf8')})
	.then(r => { if (r.status === 'error') { console.error(r.message); process.exit(1); } process.stdout.write(r.codeBoc64); });`

// TestRebuilt compiles the contracts of this project anew, where CHRYSALIS_TOLK names the folder of npm's @ton/tolk-js 1.3.0.
func TestRebuilt(t *testing.T) {
	compiler := os.Getenv("CHRYSALIS_TOLK")
	if compiler == "" {
		t.Skip("CHRYSALIS_TOLK names no folder of @ton/tolk-js")
	}
	sources := []string{"guard/guard.tolk"}
	for _, name := range []string{"root", "proxy", "client", "worker", "wallet"} {
		sources = append(sources, "../chain/chaintest/contracts/"+name+".tolk")
	}
	for _, source := range sources {
		out, err := exec.CommandContext(t.Context(), "node", "-e", compile, compiler, source).Output()
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		got, err := base64.StdEncoding.DecodeString(string(out))
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		want, err := os.ReadFile(source[:len(source)-len(filepath.Ext(source))] + ".boc")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the compiled code is another than the file has", source)
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure/config"
)

func TestReadPCRs(t *testing.T) {
	const digest = `"3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969"`
	for _, tt := range []struct{ name, text, want string }{
		{"two registers", `{"pcr4":` + digest + `,"pcr11":` + digest + `}`, ""},
		{"a number alone", `{"4":` + digest + `}`, `register "4"`},
		{"another spelling", `{"pcr04":` + digest + `}`, `register "pcr04"`},
		{"no register", `{"pcr256":` + digest + `}`, `register "pcr256"`},
		{"one twice", `{"pcr4":` + digest + `,"pcr4":` + digest + `}`, "duplicate"},
		{"a short digest", `{"pcr4":"00"}`, "registers.json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "registers.json")
			if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := readPCRs(file)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v (%v), want an error that says %q", got, err, tt.want)
				}
				return
			}
			if err != nil || len(got) != 2 || got[4] == (config.Digest{}) || got[4] != got[11] {
				t.Errorf("got %v (%v), want registers 4 and 11", got, err)
			}
		})
	}
}

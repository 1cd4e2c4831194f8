package varstore

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

// store unpacks one of testdata: ms.fd and snakeoil.fd are OVMF_VARS_4M.ms.fd and OVMF_VARS_4M.snakeoil.fd of Debian's ovmf
// 2025.02-8+deb13u1 (BSD-2-Clause-Patent), snakeoil.der the certificate of the latter, PkKek-1-snakeoil.pem.
func store(t testing.TB, name string) []byte {
	t.Helper()
	packed, err := os.ReadFile("testdata/" + name + ".fd.gz")
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	for name, want := range map[string]map[string]int{
		"ms":       {"PK": 1005, "KEK": 2565, "db": 3143, "dbx": 76, "SecureBootEnable": 1},
		"snakeoil": {"PK": 1031, "KEK": 1031, "db": 1031, "dbx": 76, "SecureBootEnable": 1},
	} {
		variables, err := Parse(store(t, name))
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]int{}
		for _, v := range variables {
			if _, twice := found[v.Name]; twice {
				t.Errorf("%s: %s stands there twice", name, v.Name)
			}
			found[v.Name] = len(v.Data)
		}
		for variable, size := range want {
			if found[variable] != size {
				t.Errorf("%s: %s has %d bytes, want %d", name, variable, found[variable], size)
			}
		}
		// The store alone, without the volume around it.
		if alone, err := Parse(store(t, name)[0x48:]); err != nil || len(alone) != len(variables) {
			t.Errorf("%s without its volume: got %d variables (%v), want %d", name, len(alone), err, len(variables))
		}
	}
}

// small is a store with the variables.
func small(variables ...Variable) []byte {
	le := binary.LittleEndian
	var b []byte
	for _, v := range variables {
		var name []byte
		for _, c := range v.Name + "\x00" {
			name = le.AppendUint16(name, uint16(c))
		}
		head := make([]byte, entryHead)
		le.PutUint16(head, entryStart)
		head[2] = stateAdded
		le.PutUint32(head[4:], v.Attributes)
		le.PutUint32(head[36:], uint32(len(name)))
		le.PutUint32(head[40:], uint32(len(v.Data)))
		copy(head[44:], v.GUID[:])
		b = append(append(append(b, head...), name...), v.Data...)
		b = append(b, bytes.Repeat([]byte{0xff}, -len(b)&3)...)
	}
	b = append(b, bytes.Repeat([]byte{0xff}, 200)...)
	head := make([]byte, storeHead)
	copy(head, authenticated[:])
	le.PutUint32(head[16:], uint32(storeHead+len(b)))
	head[20], head[21] = storeFormat, storeState
	return append(head, b...)
}

// TestStates: what was deleted does not count, and what was written again counts as it was written last.
func TestStates(t *testing.T) {
	db := Variable{GUID: Image, Name: "db", Data: []byte("old")}
	again := Variable{GUID: Image, Name: "db", Data: []byte("new")}
	for _, tt := range []struct {
		name          string
		first, second byte
		want          string
	}{
		{"both whole", stateAdded, stateAdded, "new"}, {"the first deleted", 0x3c, stateAdded, "new"}, {"the second deleted", stateAdded, 0x3d, "old"},
		{"the first being replaced", stateAdded & inDeletion, stateAdded, "new"}, {"its successor not written whole", stateAdded & inDeletion, 0x7f, "old"},
		{"both deleted", 0x3c, 0x3c, ""},
	} {
		file := small(db, again)
		file[storeHead+2] = tt.first
		at := storeHead + entryHead + 6 + 3 + 3
		file[at+2] = tt.second
		variables, err := Parse(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(Find(variables, Image, "db")); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := small(Variable{GUID: Global, Name: "PK", Data: []byte("key")})
	edit := func(at int, value ...byte) []byte {
		bad := bytes.Clone(good)
		copy(bad[at:], value)
		return bad
	}
	for _, tt := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "no authenticated variable store"},
		{"another store", edit(0, 1), "no authenticated variable store"},
		{"a store past the end", edit(18, 1), "store of"},
		{"format", edit(20, 0), "format 0x0"},
		{"state", edit(21, 0xff), "state 0xff"},
		{"a name past the end", edit(storeHead+36, 0, 0, 1), "of name"},
		{"half a letter", edit(storeHead+36, 5), "of name"},
		{"a name without end", edit(storeHead+entryHead+4, 'x'), "want UTF-16"},
		{"data past the end", edit(storeHead+43, 1), "of data"},
		{"too long", make([]byte, maxBytes+1), "want at most"},
		{"a volume's header past the end", append(make([]byte, 0x28), "_FVH\x00\x00\x00\x00\xff\xff\x00\x00\x00\x00\x00\x00"...), "volume header"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse(tt.file); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			}
		})
	}
}

func TestSignature(t *testing.T) {
	variables, err := Parse(store(t, "snakeoil"))
	if err != nil {
		t.Fatal(err)
	}
	der, err := os.ReadFile("testdata/snakeoil.der")
	if err != nil {
		t.Fatal(err)
	}
	db := Find(variables, Image, "db")
	got, err := Signature(db, der)
	if err != nil || len(got) != 16+len(der) || !bytes.HasSuffix(got, der) {
		t.Errorf("got %d bytes (%v), want the owner and %d", len(got), err, len(der))
	}
	if _, err := Signature(db, der[:len(der)-1]); err == nil || !strings.Contains(err.Error(), "no such certificate") {
		t.Errorf("another certificate: got %v, want a refusal", err)
	}
	for at := range 28 {
		bad := bytes.Clone(db)
		bad[at] ^= 0xff
		if _, err := Signature(bad, der); err == nil {
			t.Errorf("byte %d of the list changed: the certificate is found", at)
		}
	}
	if _, err := Signature(db[:20], der); err == nil {
		t.Error("a cut list: got no error")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(small(Variable{GUID: Global, Name: "PK", Data: []byte("key")}))
	f.Add(store(f, "snakeoil"))
	f.Fuzz(func(t *testing.T, file []byte) {
		variables, err := Parse(file)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, v := range variables {
			if key := string(v.GUID[:]) + v.Name; seen[key] {
				t.Errorf("%q twice", v.Name)
			} else {
				seen[key] = true
			}
			_, _ = Signature(v.Data, []byte("none"))
		}
	})
}

// TestMutations: whatever byte of a variable's name, namespace or contents is changed, the store is refused or other variables are read.
func TestMutations(t *testing.T) {
	good := small(Variable{GUID: Global, Name: "PK", Data: []byte("key")}, Variable{GUID: Image, Name: "db", Data: []byte("list")})
	read := func(file []byte) string {
		variables, err := Parse(file)
		if err != nil {
			return "refused"
		}
		var b strings.Builder
		for _, v := range variables {
			fmt.Fprintf(&b, "%x %s %x;", v.GUID, v.Name, v.Data)
		}
		return b.String()
	}
	want := read(good)
	at := storeHead
	for _, v := range []struct{ name, data int }{{6, 3}, {6, 4}} {
		for i := 44; i < entryHead+v.name+v.data; i++ {
			bad := bytes.Clone(good)
			bad[at+i] ^= 0x15
			if read(bad) == want {
				t.Errorf("byte %d of the variable at %d: nothing changes", i, at)
			}
		}
		at += (entryHead + v.name + v.data + 3) &^ 3
	}
}

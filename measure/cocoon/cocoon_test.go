package cocoon

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"slices"
	"testing"

	"chrysalis/measure/register"
)

// TestImageHash makes the 448 bytes by hand, and flips each register.
func TestImageHash(t *testing.T) {
	var td TD
	fields := []*[48]byte{&td.MRTD, &td.MRConfigID, &td.MROwner, &td.MROwnerConfig, &td.RTMR[0], &td.RTMR[1], &td.RTMR[2], &td.RTMR[3]}
	var by []byte
	for i, f := range fields {
		*f = [48]byte(bytes.Repeat([]byte{byte(i + 1)}, 48))
		by = append(by, f[:]...)
	}
	by = append(by, make([]byte, 64)...)
	if got, want := td.ImageHash(), register.Digest(sha256.Sum256(by)); len(by) != 448 || got != want {
		t.Errorf("image hash of %d bytes is %s, want %s", len(by), got, want)
	}
	seen := []register.Digest{td.ImageHash()}
	for _, f := range fields {
		f[47] ^= 1
		if h := td.ImageHash(); slices.Contains(seen, h) {
			t.Error("a register changes and the hash does not")
		} else {
			seen = append(seen, h)
		}
		f[47] ^= 1
	}
	snp := [48]byte{9}
	if got, want := SNPImageHash(snp), register.Digest(sha256.Sum256(append(snp[:], make([]byte, 64)...))); got != want || snp != [48]byte{9} {
		t.Errorf("image hash of SEV-SNP is %s, want %s", got, want)
	}
}

// TestRTMR3 extends the two lines by hand.
func TestRTMR3(t *testing.T) {
	tree := [32]byte{0xab}
	first := sha512.Sum384([]byte("cocoon:spec.tree=ab00000000000000000000000000000000000000000000000000000000000000"))
	second := sha512.Sum384([]byte("cocoon:tdx_inited"))
	one := sha512.Sum384(append(make([]byte, 48), first[:]...))
	want := sha512.Sum384(append(one[:], second[:]...))
	if got := RTMR3(tree); got != want {
		t.Errorf("RTMR3 is %x, want %x", got, want)
	}
}

// TestNoTree: the id is that of git mktree in a repository of --object-format=sha256, without input.
func TestNoTree(t *testing.T) {
	const want = "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321"
	if got := NoTree(); register.Digest(got).String() != want {
		t.Errorf("got %x, want %s", got, want)
	}
}

func TestModel(t *testing.T) {
	m := Model{Name: "Qwen/Qwen3-32B", Revision: "9216db57", Root: register.Digest{0xcd}}
	const name = "Qwen/Qwen3-32B@9216db57:cd00000000000000000000000000000000000000000000000000000000000000"
	if m.String() != name || m.Key() != register.Digest(sha256.Sum256([]byte(name))) {
		t.Errorf("got %s with key %s", m, m.Key())
	}
}

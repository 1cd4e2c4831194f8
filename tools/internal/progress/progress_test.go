package progress

import (
	"bytes"
	"regexp"
	"sync"
	"testing"
)

func TestPlainLines(t *testing.T) {
	var b bytes.Buffer
	r := New(&b)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			s := r.Step("pack root", 100)
			s.Add(50)
			s.Done("63.5 MB")
		})
	}
	wg.Wait()
	r.Note("RELOCK=%s", "auto")
	want := regexp.MustCompile(`^(  pack root +\d+\.\d s  63\.5 MB\n){4}chrysalis: RELOCK=auto\n$`)
	if !want.Match(b.Bytes()) {
		t.Errorf("got %q, want %s", b.String(), want)
	}
}

func TestSilence(t *testing.T) {
	for name, r := range map[string]*Reporter{"nil": nil, "zero": {}} {
		s := r.Step("step", 1)
		s.Add(1)
		s.Done("")
		r.Note("note from the %s reporter", name)
	}
}

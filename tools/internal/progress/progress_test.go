package progress

import (
	"bytes"
	"regexp"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestPlainLines(t *testing.T) {
	var b bytes.Buffer
	r := New(&b)
	s := r.Step("pack root", 100)
	s.Add(50)
	s.Done("63.5 MB")
	outer := r.Step("outer", 0)
	inner := r.Step("inner", 0)
	inner.Done("")
	outer.Done("whole")
	r.Step("broken off", 0)
	r.Note("RELOCK=%s", "auto")
	want := regexp.MustCompile(`^  pack root +\d+\.\d s  63\.5 MB\n  outer +\n  inner +\d+\.\d s  \n  outer +\d+\.\d s  whole\n  broken off +\nchrysalis: RELOCK=auto\n$`)
	if !want.Match(b.Bytes()) {
		t.Errorf("got %q, want %s", b.String(), want)
	}
}

// TestAtOnce: of steps at once each has its line, and none is lost.
func TestAtOnce(t *testing.T) {
	var b bytes.Buffer
	r := New(&b)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { r.Step("pack root", 0).Done("63.5 MB") })
	}
	wg.Wait()
	if n := len(regexp.MustCompile(`(?m)^  pack root +\d+\.\d s  63\.5 MB$`).FindAll(b.Bytes(), -1)); n != 4 {
		t.Errorf("got %q, want 4 steps done", b.String())
	}
}

// TestExpect: steps have their number, of as many as there are.
func TestExpect(t *testing.T) {
	var b bytes.Buffer
	r := New(&b)
	r.Expect(2)
	for _, name := range []string{"one", "two", "three"} {
		r.Step(name, 0).Done("")
	}
	want := regexp.MustCompile(`^   1 of 2  one +0\.0 s  \n   2 of 2  two +0\.0 s  \n   3 of 3  three +0\.0 s  \n$`)
	if !want.Match(b.Bytes()) {
		t.Errorf("got %q, want %s", b.String(), want)
	}
	(*Reporter)(nil).Expect(1)
}

// TestGoesOn: whoever waits for a long step learns that it goes on, and nothing is said of one that is done.
func TestGoesOn(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var b bytes.Buffer
			r := New(&b)
			want := "  build containerd                   5 s  so far\n  build containerd                  35 s  so far\n" +
				"  build containerd                40.0 s  31.4 MB\n"
			if terminal {
				r.terminal, r.still = true, [2]time.Duration{15 * time.Second, 15 * time.Second}
				want = "\r\x1b[K  build containerd            \r\x1b[K  build containerd                  15 s\r\x1b[K  build containerd                  30 s" +
					"\r\x1b[K  build containerd                40.0 s  31.4 MB\n"
			}
			s := r.Step("build containerd", 0)
			time.Sleep(40 * time.Second)
			s.Done("31.4 MB")
			time.Sleep(time.Hour)
			if b.String() != want {
				t.Errorf("on a terminal %t: got %q, want %q", terminal, b.String(), want)
			}
		})
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

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// load is what the kernel counts of a machine's processors since its boot.
type load struct {
	at       time.Time
	busy     float64 // ticks of work, and of others' that were taken from this machine
	all      float64 // ticks
	steal    float64 // ticks in which the machine's own host ran somebody else
	pressure float64 // seconds in which somebody waited for a processor; below 0: the kernel does not tell
}

// readLoad reads /proc/stat and /proc/pressure/cpu.
func readLoad() (load, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return load{}, err
	}
	pressure, _ := os.ReadFile("/proc/pressure/cpu") // a kernel may be built without it
	return parseLoad(string(stat), string(pressure), time.Now())
}

// parseLoad takes the first line of both files. Source: Linux, Documentation/filesystems/proc.rst section 1.7 and
// Documentation/accounting/psi.rst.
func parseLoad(stat, pressure string, now time.Time) (load, error) {
	l := load{at: now, pressure: -1}
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	const idle, wait, steal, guest = 4, 5, 8, 9 // guests are counted as user too
	if len(fields) <= steal || fields[0] != "cpu" {
		return l, fmt.Errorf("reading load: line %.80q, want cpu and its ticks", line)
	}
	for i, text := range fields[1:min(len(fields), guest)] {
		ticks, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return l, fmt.Errorf("reading load: %w", err)
		}
		l.all += ticks
		if i+1 != idle && i+1 != wait {
			l.busy += ticks
		}
		if i+1 == steal {
			l.steal = ticks
		}
	}
	for _, word := range strings.Fields(strings.SplitN(pressure, "\n", 2)[0]) {
		if total, ok := strings.CutPrefix(word, "total="); ok {
			us, err := strconv.ParseFloat(total, 64)
			if err != nil {
				return l, fmt.Errorf("reading pressure: %w", err)
			}
			l.pressure = us / 1e6
		}
	}
	return l, nil
}

// share is what became of the time between two readings, each 0 to 1; pressure is below 0 where it is not told.
type share struct{ busy, steal, pressure float64 }

func (l load) since(before load) share {
	all, s := l.all-before.all, share{pressure: -1}
	if all > 0 {
		s.busy, s.steal = (l.busy-before.busy)/all, (l.steal-before.steal)/all
	}
	if seconds := l.at.Sub(before.at).Seconds(); l.pressure >= 0 && before.pressure >= 0 && seconds > 0 {
		s.pressure = (l.pressure - before.pressure) / seconds
	}
	return s
}

// noise is how busy a machine was while rows were measured: just before and after, when nothing of ours ran, and meanwhile.
type noise struct{ before, during, after share }

// What is too much for a number to be believed that misses its bar. What happens meanwhile is mostly the measurement's own work, but for
// what the machine's host took away.
const (
	busyBesides = 0.15 // of all processors, before or after
	stolen      = 0.05
)

func (n noise) noisy() bool {
	return n.before.busy > busyBesides || n.after.busy > busyBesides || max(n.before.steal, n.during.steal, n.after.steal) > stolen
}

func (n noise) String() string {
	text := fmt.Sprintf("others %.0f %% before, %.0f %% after; steal %.0f %%", 100*n.before.busy, 100*n.after.busy, 100*max(n.before.steal, n.during.steal, n.after.steal))
	if n.during.pressure >= 0 {
		text += fmt.Sprintf("; pressure %.0f %%, %.0f %%, %.0f %%", 100*n.before.pressure, 100*n.during.pressure, 100*n.after.pressure)
	}
	return text
}

// ownCPU is the processor time of this process, in seconds.
func ownCPU(t *testing.T) float64 {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// watched measures rows, and how busy the machine was with other things.
func watched(t *testing.T, measure func() []row) (all []noted) {
	t.Helper()
	const window = 2 * time.Second
	read := func() load {
		l, err := readLoad()
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := read()
	time.Sleep(window)
	begin := read()
	rows := measure()
	end := read()
	time.Sleep(window)
	n := noise{begin.since(first), end.since(begin), read().since(end)}
	for _, r := range rows {
		all = append(all, noted{r, n})
	}
	return all
}

func TestLoad(t *testing.T) {
	now := time.Unix(1790000000, 0)
	first, err := parseLoad("cpu  100 10 50 1000 20 1 9 30 77 7\ncpu0 1\n", "some avg10=1.00 avg60=2.00 avg300=3.00 total=4000000\nfull avg10=0 total=9\n", now)
	if err != nil || first.all != 1220 || first.busy != 200 || first.steal != 30 || first.pressure != 4 {
		t.Fatalf("got %+v, error %v", first, err)
	}
	second, err := parseLoad("cpu  160 10 50 1020 30 1 9 40 77 7\n", "some avg10=1.00 total=5000000\n", now.Add(4*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if s := second.since(first); s != (share{0.7, 0.1, 0.25}) {
		t.Errorf("got %+v, want 70 %% busy, 10 %% stolen, a quarter under pressure", s)
	}
	without, err := parseLoad("cpu 1 1 1 1 1 1 1 1\n", "", now)
	if err != nil || without.pressure >= 0 || without.since(first).pressure >= 0 {
		t.Errorf("without pressure: got %+v, error %v", without, err)
	}
	for _, bad := range []string{"", "cpu", "intr 1 2 3 4 5 6 7 8 9", "cpu 1 2 3 4 5 6 7 x 9", "cpu 1 2 3"} {
		if _, err := parseLoad(bad, "", now); err == nil {
			t.Errorf("%q: got no error", bad)
		}
	}
	if _, err := readLoad(); err != nil {
		t.Errorf("this machine's: %v", err)
	}
}

// TestNoisy: a bar that is missed on a busy machine is neither missed nor met.
func TestNoisy(t *testing.T) {
	quiet := noise{share{0.01, 0, 0}, share{1, 0, 0.9}, share{0.02, 0, 0}}
	for _, tt := range []struct {
		name  string
		noise noise
		met   bool
		bar   string
		want  string
	}{
		{"quiet, met", quiet, true, "≤ 1", "met"},
		{"quiet, missed", quiet, false, "≤ 1", "missed"},
		{"others before", noise{share{0.5, 0, 0}, quiet.during, quiet.after}, false, "≤ 1", "noisy"},
		{"others after", noise{quiet.before, quiet.during, share{0.5, 0, 0}}, false, "≤ 1", "noisy"},
		{"stolen meanwhile", noise{quiet.before, share{1, 0.2, 0}, quiet.after}, false, "≤ 1", "noisy"},
		{"others, met all the same", noise{share{0.5, 0, 0}, quiet.during, quiet.after}, true, "≤ 1", "met"},
		{"no bar", noise{share{0.5, 0, 0}, quiet.during, quiet.after}, true, "none", ""},
	} {
		if got := (noted{row{bar: tt.bar, met: tt.met}, tt.noise}).verdict(); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

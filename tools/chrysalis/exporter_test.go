package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"chrysalis/runtime/numbers"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/guest/guesttest"
)

// pretendGuest makes build/guest-NAME below dir, of a guest whose QEMU is a program that does nothing until the test ends, and whose port is
// that of a software guest. counted is what it has said on its numbers' port.
func pretendGuest(t *testing.T, dir, name string, counted numbers.Values) string {
	t.Helper()
	measured, err := os.ReadFile("../../measure/config/testdata/vectors/measured.bin")
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(newSoftwareGuest(t, measured).URL)
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, "build", "guest-"+name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	pid := guesttest.Process(t, filepath.Join(dir, "qemu.pid"))
	for file, text := range map[string]string{
		"qemu.pid": fmt.Sprint(pid), "guest.json": `{"port": ` + u.Port() + `}`, guest.StatusFile: "event engine-up\nserving 7000\n",
		guest.NumbersFile: counted.Line() + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeClaims(filepath.Dir(filepath.Dir(dir))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestExporter: one scrape has all guests, those that serve and those that do not, with what they count and have earned.
func TestExporter(t *testing.T) {
	work := t.TempDir()
	dir := pretendGuest(t, work, "box", numbers.Values{numbers.Asked: 7, numbers.Answered: 5, numbers.Contracts: 40, numbers.ContractsLeft: 60})
	off := filepath.Join(work, "build", "guest-off")
	if err := errors.Join(os.Mkdir(off, 0o700), os.WriteFile(filepath.Join(off, "guest.json"), []byte("{}"), 0o600),
		os.WriteFile(filepath.Join(off, guest.StatusFile), []byte("end volume-corrupt\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(work)
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	cmd := newExporterOf(t.TempDir())
	cmd.SetArgs([]string{"--listen", "127.0.0.1:0", "--json"})
	cmd.SetOut(in)
	cmd.SetErr(io.Discard)
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	var said struct{ URL string }
	if err := json.NewDecoder(out).Decode(&said); err != nil {
		t.Fatal(err)
	}
	get := func(url string) (int, string) {
		t.Helper()
		response, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	code, text := get(said.URL)
	for _, want := range []string{`chrysalis_up{guest="box"} 1`, `chrysalis_up{guest="off"} 0`, `state="ended: volume-corrupt"`, `chrysalis_engine_up{guest="box"} 1`,
		`chrysalis_asked_total{guest="box"} 7`, `chrysalis_answered_total{guest="box"} 5`, `chrysalis_contracts_left{guest="box"} 60`,
		`chrysalis_claims{guest="box"} 0`} {
		if !strings.Contains(text, want+"\n") && !strings.Contains(text, want+",") {
			t.Errorf("%d: a scrape lacks %s:\n%s", code, want, text)
		}
	}
	if strings.Contains(text, `asked_total{guest="off"}`) {
		t.Error("a guest that is off has numbers")
	}
	// What was scraped a moment ago is what a second one gets.
	if err := os.WriteFile(filepath.Join(dir, guest.NumbersFile), []byte(numbers.Values{numbers.Asked: 8}.Line()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, again := get(said.URL); again != text {
		t.Error("two scrapes at once looked at the guests twice")
	}
	if code, _ := get(strings.TrimSuffix(said.URL, "metrics")); code != http.StatusNotFound {
		t.Errorf("another path: got %d, want 404", code)
	}
	if response, err := http.Post(said.URL, "text/plain", nil); err != nil || response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST: got %v (%v), want 405", response, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
	if l, err := net.Listen("tcp", strings.TrimSuffix(strings.TrimPrefix(said.URL, "http://"), "/metrics")); err != nil {
		t.Errorf("its port is not free after its end: %v", err)
	} else {
		l.Close()
	}
}

// TestNumbersStayShort: who keeps a guest cuts its numbers short, without being asked.
func TestNumbersStayShort(t *testing.T) {
	g := guest.Guest{Dir: t.TempDir()}
	line := numbers.Values{}.Line() + "\n"
	if err := os.WriteFile(g.Path(guest.NumbersFile), []byte(strings.Repeat(line, (8<<20)/len(line)+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); keepNumbersShort(ctx, g, time.Millisecond) }()
	for {
		info, err := os.Stat(g.Path(guest.NumbersFile))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	<-ended
}

// TestStatusNumbers: status shows what a guest counts, as lines, as JSON and on the dashboard.
func TestStatusNumbers(t *testing.T) {
	work := t.TempDir()
	v := numbers.Values{numbers.Asked: 7, numbers.Answered: 5, numbers.RefusedBusy: 1, numbers.RefusedFull: 1, numbers.Places: 2, numbers.Computing: 1, numbers.Waiting: 3,
		numbers.PromptTokens: 4000, numbers.CompletionTokens: 9000, numbers.Contracts: 150, numbers.ContractsLeft: 50, numbers.KeyEnds: uint64(time.Now().Add(time.Hour).Unix())}
	pretendGuest(t, work, "box", v)
	t.Chdir(work)
	status := func(ctx context.Context, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		cmd := newStatusOf(t.TempDir())
		cmd.SetOut(&out)
		cmd.SetArgs(args)
		if err := cmd.ExecuteContext(ctx); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return out.String()
	}
	if said := status(t.Context(), "--name", "box"); !strings.Contains(said, "state    serving\n") || !strings.Contains(said, "number   refused_busy 1\n") {
		t.Errorf("got %q, want its state and its numbers", said)
	}
	var asJSON struct{ Numbers map[string]uint64 }
	if err := json.Unmarshal([]byte(status(t.Context(), "--name", "box", "--json")), &asJSON); err != nil || asJSON.Numbers["completion_tokens"] != 9000 ||
		len(asJSON.Numbers) != int(numbers.Count) {
		t.Errorf("got %v and error %v, want every number", asJSON, err)
	}
	ctx, stop := context.WithTimeout(t.Context(), watchEvery*3/2)
	defer stop()
	shown := status(ctx, "--watch")
	if row := regexp.MustCompile(`box +serving +1 of 2 +3 +7 +5 +0 +2 +4000 +9000 +75% +59m\d+s +0\.000`); !row.MatchString(shown) || strings.Contains(shown, "\x1b") {
		t.Errorf("the dashboard shows %q, want a row like %s and nothing for terminals", shown, row)
	}
	if n := strings.Count(shown, "1 guests"); n != 1 && n != 2 {
		t.Errorf("the dashboard was shown %d times in three seconds", n)
	}
}

// TestClaimsCache: what a folder has earned is added up once, and anew when its files change; what is not proved is no earning.
func TestClaimsCache(t *testing.T) {
	dir := t.TempDir()
	if err := writeClaims(dir); err != nil {
		t.Fatal(err)
	}
	folders, err := filepath.Glob(filepath.Join(dir, "*", guest.ProofsFile))
	if err != nil || len(folders) == 0 {
		t.Fatalf("no folders with claims below %s: %v", dir, err)
	}
	var cache claimsCache
	proved := 0
	for _, file := range folders {
		folder := filepath.Dir(file)
		sum := cache.of(folder)
		if sum == nil {
			continue // a folder whose files are spoiled
		}
		if again := cache.of(folder); again != sum {
			t.Errorf("%s was added up twice", folder)
		}
		if sum.Claims > sum.Unproved && sum.Nanoton > 0 {
			proved++
			if err := os.Remove(filepath.Join(folder, guest.SignersFile)); err != nil {
				t.Fatal(err)
			}
			if after := cache.of(folder); after == nil || after.Unproved != sum.Claims || after.Nanoton != 0 {
				t.Errorf("%s without its signers: got %+v, want all of %d unproved", folder, after, sum.Claims)
			}
		}
	}
	if proved == 0 {
		t.Error("no folder has a proved claim: the test looked at the wrong thing")
	}
	if sum := cache.of(t.TempDir()); sum == nil || sum.Claims != 0 {
		t.Errorf("a folder without claims: got %+v, want zero", sum)
	}
}

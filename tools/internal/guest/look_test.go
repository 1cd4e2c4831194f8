package guest

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chrysalis/tools/internal/guest/guesttest"
)

// pretend makes a folder of a guest whose QEMU is a program that does nothing until the test ends.
func pretend(t *testing.T, written string, port int) Guest {
	t.Helper()
	g := Guest{Dir: t.TempDir()}
	pid := guesttest.Process(t, g.Path("qemu.pid"))
	err := errors.Join(writeJSON(g.Path("qemu.pid"), pid), writeJSON(g.Path(specFile), Spec{Port: port}),
		os.WriteFile(g.Path(StatusFile), []byte(written), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestLook: a guest that says that it serves is greeted, and what it does not do then is said; no other is.
func TestLook(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	server.StartTLS()
	t.Cleanup(server.Close)
	mute, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	gone, err := FreePort()
	if err != nil {
		t.Fatal(err)
	}
	port := func(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }
	const serves = "step gateway 6900\nserving 7000\n"
	for _, tt := range []struct {
		name, written string
		port          int
		state         State
		why           string
	}{
		{"it serves", serves, port(server.Listener), Serving, ""},
		{"it hangs", serves, port(mute), Silent, "says nothing for 4s; QEMU does not say what it does"},
		{"its port is gone", serves, gone, Silent, "nobody listens on 127.0.0.1:"},
		{"it boots", "step pid1 900\n", gone, Booting, ""},
		{"it ended", serves + "end volume-corrupt\n", gone, "ended: volume-corrupt", "check it with"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l, err := pretend(t, tt.written, tt.port).Look(t.Context())
			if err != nil || l.State != tt.state || !strings.Contains(l.Why, tt.why) || (l.Why == "") != (tt.why == "") {
				t.Errorf("got %q because %q (error %v), want %q because %q", l.State, l.Why, err, tt.state, tt.why)
			}
		})
	}
	if _, err := (Guest{Dir: t.TempDir()}).Look(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no guest: got error %v", err)
	}
}

// TestFolders: a guest is found by its folder's place, or by its process wherever its folder is; what is no guest's is none.
func TestFolders(t *testing.T) {
	places, proc := t.TempDir(), t.TempDir()
	running := pretend(t, "", 1)
	for _, name := range []string{"guest", "guest-b", "guest-empty"} {
		if err := os.MkdirAll(filepath.Join(places, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i, line := range []string{"qemu\x00-pidfile\x00" + running.Path("qemu.pid") + "\x00", "qemu\x00-pidfile", "qemu\x00-pidfile\x00qemu.pid", "sh\x00"} {
		dir := filepath.Join(proc, []string{"7", "8", "9", "10"}[i])
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "cmdline"), []byte(line), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	first, second := filepath.Join(places, "guest"), filepath.Join(places, "guest-b")
	if err := errors.Join(writeJSON(filepath.Join(first, specFile), Spec{}), writeJSON(filepath.Join(second, specFile), Spec{})); err != nil {
		t.Fatal(err)
	}
	want := []string{first, second, running.Dir}
	slices.Sort(want)
	got, err := Folders(proc, filepath.Join(places, "guest"), filepath.Join(places, "guest*"))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q (error %v), want %q", got, err, want)
	}
	if _, err := Folders(proc, "["); err == nil {
		t.Error("no pattern: got no error")
	}
}

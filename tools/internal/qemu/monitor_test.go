package qemu

import (
	"bufio"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// monitor is a monitor that answers each command, after its greeting, by a function.
func monitor(t *testing.T, greeting string, reply func(command string) string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "m")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(greeting))
			for s := bufio.NewScanner(conn); s.Scan(); {
				if _, err := conn.Write([]byte(reply(s.Text()))); err != nil {
					break
				}
			}
			conn.Close()
		}
	}()
	return socket
}

// TestConnections counts in what QEMU 10.0 prints.
func TestConnections(t *testing.T) {
	const head = "Hub -1 (net0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" +
		"  TCP[HOST_FORWARD]  20       127.0.0.1 42569       10.0.2.15  8443     0     0\r\n"
	for text, want := range map[string]int{
		head: 0,
		head + "  TCP[ESTABLISHED]   23       127.0.0.1 42569       10.0.2.15  8443     0     0\r\n": 1,
		head + "  TCP[ESTABLISHED]   23       127.0.0.1 42569       10.0.2.15  8443     0     0\r\n" +
			"  TCP[ESTABLISHED]   24       127.0.0.1 42569       10.0.2.15  8443     0   512\r\n  TCP[FIN_WAIT_2]    25       127.0.0.1 42569       10.0.2.15  8443     0     0\r\n": 2,
		head + "  TCP[ESTABLISHED]   23       127.0.0.1 42569       10.0.2.15  443     0     0\r\n": 0,
	} {
		if got, err := connections(text, 8443); err != nil || got != want {
			t.Errorf("got %d connections (%v), want %d, in %q", got, err, want, text)
		}
	}
	if got, err := connections("unknown command: 'info usernet'", 8443); err == nil {
		t.Errorf("no answer to the question: got %d connections, want an error", got)
	}
}

func TestMonitor(t *testing.T) {
	const greeting, stopped = `{"QMP": {"version": {}}}` + "\n", `{"event": "STOP"}` + "\n"
	running := func(command string) string {
		switch {
		case strings.Contains(command, "query-status"):
			return stopped + `{"return": {"status": "running"}}` + "\n" // an event may come before the answer
		case strings.Contains(command, `"property":"vendor"`):
			return `{"return": "GenuineIntel"}` + "\n"
		case strings.Contains(command, "human-monitor-command"):
			return `{"return": "CPU#0\r\nRAX=0000000000000001 RBX=0000000000000002\r\nRIP=000000007eb2d0c1 RFL=00000246\r\n` +
				`CPU#1\r\nRIP=ffffffff8f074028 RFL=00000046\r\n"}` + "\n"
		case strings.Contains(command, `"property":"phys-bits"`):
			return `{"return": 46}` + "\n"
		}
		return `{"return": {}}` + "\n"
	}
	socket := monitor(t, greeting, running)
	if got, err := machineState(maxReplyTime, socket); err != nil || got != "running" {
		t.Errorf("state: got %q, error %v, want running", got, err)
	}
	if got, err := cpu(socket); err != nil || got != (CPU{"GenuineIntel", 46}) {
		t.Errorf("processor: got %v, error %v, want GenuineIntel of 46 bits", got, err)
	}
	if got, want := Where(socket), "the machine is running at RIP=000000007eb2d0c1, RIP=ffffffff8f074028"; got != want {
		t.Errorf("where it is: got %q, want %q", got, want)
	}
	if got := Where(filepath.Join(t.TempDir(), "none")); !strings.Contains(got, "does not say") {
		t.Errorf("where a machine that is gone is: got %q", got)
	}
	if err := Pause(socket); err != nil {
		t.Errorf("stop: got error %v", err)
	}
	refusing := func(command string) string {
		if strings.Contains(command, "qmp_capabilities") {
			return `{"return": {}}` + "\n"
		}
		return `{"error": {"class": "GenericError"}}` + "\n"
	}
	for _, tt := range []struct {
		name, greeting string
		reply          func(string) string
		want           string
	}{
		{"a refusal", greeting, refusing, "refuses stop: "},
		{"no JSON", greeting, func(string) string { return "hello\n" }, "invalid character"},
		{"too long an answer", greeting, func(string) string { return strings.Repeat("x", maxReplyBytes+1) }, "did not answer"},
		{"too long a greeting", strings.Repeat("x", maxReplyBytes+1), running, "no greeting"},
	} {
		if err := Pause(monitor(t, tt.greeting, tt.reply)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want %q", tt.name, err, tt.want)
		}
	}
	if err := Resume(filepath.Join(t.TempDir(), "nobody")); err == nil {
		t.Error("no monitor: got no error")
	}
}

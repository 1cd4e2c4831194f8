package guest

import (
	"errors"
	"os"
	"strings"
	"testing"

	"chrysalis/init/status"
)

// TestState reads what guests that are gone have written.
func TestState(t *testing.T) {
	for _, tt := range []struct{ name, written, state, want string }{
		{"nothing", "", "stopped", ""},
		{"half a boot", "event kernel-up\nstep initrd 812\n", "stopped", ""},
		{"it served", "step gateway 6900\nserving 7000\n", "stopped", ""},
		{"an end", "step pid1 900\nend platform-failed\n", "ended: platform-failed", ""},
		{"half an end", "step pid1 900\nend tpm-fa", "stopped", ""},
		{"a line of somebody else", "step pid1 900\nhello world\n", "", `no line "hello"`},
		{"an end without a meaning", "end because\n", "", `no code "because"`},
		{"too much", strings.Repeat("event engine-up\n", 1<<17), "", "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := Guest{Dir: t.TempDir()}
			if err := os.WriteFile(g.Path(StatusFile), []byte(tt.written), 0o600); err != nil {
				t.Fatal(err)
			}
			state, _, err := g.State()
			if string(state) != tt.state || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("state: got %q and error %v, want %q and one with %q", state, err, tt.state, tt.want)
			}
			var ended EndedError
			code, err := g.WaitEnd(t.Context())
			if (err == nil) != (tt.want == "") {
				t.Errorf("end: got %s and error %v, want one: %v", code, err, tt.want != "")
			}
			if want := status.ParseCode(strings.TrimPrefix(tt.state, "ended: ")); code != want {
				t.Errorf("end: got %s, want %s", code, want)
			}
			if err := g.Wait(t.Context(), nil); tt.want == "" && !strings.Contains(tt.written, "serving") && !errors.As(err, &ended) {
				t.Errorf("waiting for it to serve: got %v, want its end", err)
			}
		})
	}
}

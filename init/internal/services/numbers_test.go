package services

import (
	"bytes"
	"io"
	"os"
	"testing"

	"chrysalis/init/status"
	"chrysalis/runtime/numbers"
)

// TestNumbers: what the gateway counts reaches the host; anything else ends the guest.
func TestNumbers(t *testing.T) {
	line := numbers.Values{numbers.Asked: 1}.Line() + "\n"
	for _, tt := range []struct {
		name, says, want string
		ends             bool
	}{
		{"numbers", line, line, false},
		{"a word", line + "a prompt\n", line, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, g := start(t)
			out, in, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(in, tt.says); err != nil {
				t.Fatal(err)
			}
			in.Close()
			var to bytes.Buffer
			s.forwardNumbers(out, &to)
			if to.String() != tt.want {
				t.Errorf("the host got %q, want %q", to.String(), tt.want)
			}
			select {
			case code := <-g.ends:
				if !tt.ends || code != status.GatewayExited {
					t.Errorf("the guest's end: got %s, want one: %t", code, tt.ends)
				}
			default:
				if tt.ends {
					t.Error("the guest goes on, want its end")
				}
			}
		})
	}
}

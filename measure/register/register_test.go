package register_test

import (
	"slices"
	"strings"
	"testing"

	"chrysalis/measure/register"
)

func TestDigestText(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"digits", strings.Repeat("0f", 32), true},
		{"upper case", strings.Repeat("0F", 32), false},
		{"short", strings.Repeat("0f", 31), false},
		{"long", strings.Repeat("0f", 33), false},
		{"other letters", strings.Repeat("0g", 32), false},
		{"empty", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d register.Digest
			if err := d.UnmarshalText([]byte(tt.text)); (err == nil) != tt.ok {
				t.Errorf("SHA-256: got error %v, want one: %t", err, !tt.ok)
			}
			if tt.ok && d.String() != tt.text {
				t.Errorf("SHA-256: got %s, want %s", d, tt.text)
			}
			// Half as many digits again.
			text := tt.text + tt.text[:len(tt.text)/2]
			var d384 register.Digest384
			if err := d384.UnmarshalText([]byte(text)); (err == nil) != tt.ok {
				t.Errorf("SHA-384: got error %v, want one: %t", err, !tt.ok)
			}
			if tt.ok && d384.String() != text {
				t.Errorf("SHA-384: got %s, want %s", d384, text)
			}
		})
	}
}

// TestNames pins the names: policies, reports and documents hold them.
func TestNames(t *testing.T) {
	got := append([]string{register.PCR(uint8(9)), register.RTMR(3), register.Launch}, register.TD()...)
	want := []string{"pcr-9", "rtmr-3", "launch-digest", "mrtd", "rtmr-0", "rtmr-1", "rtmr-2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestQuoted: nobody can change the selection for everybody else.
func TestQuoted(t *testing.T) {
	register.Quoted()[0] = 23
	if got, want := register.Quoted(), []uint{0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 14}; !slices.Equal(got, want) {
		t.Errorf("got %d, want %d", got, want)
	}
}

package measure

import (
	"strings"
	"testing"
)

func TestCmdlineRefuses(t *testing.T) {
	for _, cmdline := range []string{" a", "a ", "a\n", "a\x00b", "ä", strings.Repeat("a", maxCmdline+1)} {
		if _, err := LoadOptions(cmdline); err == nil {
			t.Errorf("%.20q: got no error, want a refusal", cmdline)
		}
	}
}

package ton

import (
	"strings"
	"testing"
)

func TestCoins(t *testing.T) {
	for _, tt := range []struct {
		text string
		nano uint64
		back string
	}{
		{"0", 0, "0 GRAM"}, {"1", Coin, "1 GRAM"}, {"1.5 GRAM", 1_500_000_000, "1.5 GRAM"}, {"1.5 TON", 1_500_000_000, "1.5 GRAM"},
		{"1.5gram", 1_500_000_000, "1.5 GRAM"}, {"0.000000001", 1, "0.000000001 GRAM"}, {"10", 10 * Coin, "10 GRAM"},
		{"100.10", 100_100_000_000, "100.1 GRAM"}, {"18446744073.709551615", 1<<64 - 1, "18446744073.709551615 GRAM"},
	} {
		got, err := ParseCoins(tt.text)
		if err != nil || uint64(got) != tt.nano || got.String() != tt.back {
			t.Errorf("%q: got %d, %q (%v), want %d, %q", tt.text, uint64(got), got, err, tt.nano, tt.back)
		}
	}
	for _, text := range []string{"", ".", "1.", ".5", "-1", "+1", "1,5", "1e3", "0x1", "1.0000000001", "18446744073.709551616", "999999999999", "GRAM",
		"1 EUR", "1  GRAM", " 1", "1 ", "1.5 GRAM ", "1\u0660"} {
		if got, err := ParseCoins(text); err == nil || !strings.Contains(err.Error(), "amount is") {
			t.Errorf("%q: got %d (%v), want an error that names it", text, got, err)
		}
	}
}

// FuzzParseCoins: what is accepted is one amount, whose text means the same.
func FuzzParseCoins(f *testing.F) {
	for _, text := range []string{"1.5 GRAM", "0.000000001", "18446744073.709551615", "1 TON"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCoins(text)
		if err != nil {
			return
		}
		if again, err := ParseCoins(c.String()); err != nil || again != c {
			t.Fatalf("%q is %s, and that is %d (%v), want %d", text, c, again, err, c)
		}
	})
}

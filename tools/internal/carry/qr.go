package carry

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is the margin of a code, in modules. The standard wants four; readers take two on a screen, and one line less is scrolled away.
const quiet = 2

// QR returns a text as a QR code of half blocks, two rows of modules in a line, for a terminal of so many columns. Dark modules are spaces
// where the terminal's own background is dark, as most are.
func QR(text string, columns int) (string, error) {
	c, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", err
	}
	if n := c.Size + 2*quiet; columns > 0 && n > columns {
		return "", fmt.Errorf("the code is %d columns wide, and the terminal has %d", n, columns)
	}
	var b strings.Builder
	for y := -quiet; y < c.Size+quiet; y += 2 {
		for x := -quiet; x < c.Size+quiet; x++ {
			// Black returns false outside the code, which is light.
			upper, lower := !c.Black(x, y), !c.Black(x, y+1)
			switch {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

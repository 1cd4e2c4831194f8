package ton

import (
	"fmt"
	"math/bits"
	"strings"
)

// Coin is the number of nanotons in one coin, and CoinName its name; until June 2026 it was Toncoin, TON.
const (
	Coin     = 1_000_000_000
	CoinName = "GRAM"
)

// Coins is an amount in nanotons. As a text it is a number of coins: what people pay in, to the last nanoton and without zeros behind.
type Coins uint64

// String returns the amount with its unit: 1.5 GRAM.
func (c Coins) String() string {
	text := fmt.Sprintf("%d.%09d", uint64(c)/Coin, uint64(c)%Coin)
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + " " + CoinName
}

// ParseCoins reads an amount in coins: a decimal number with at most nine places, and after it, with or without a space, GRAM, TON or
// nothing.
func ParseCoins(text string) (Coins, error) {
	number := text
	for _, unit := range []string{CoinName, "TON"} {
		if n := len(number) - len(unit); n > 0 && strings.EqualFold(number[n:], unit) {
			number = strings.TrimSuffix(number[:n], " ")
			break
		}
	}
	whole, part, dotted := strings.Cut(number, ".")
	if whole == "" || dotted && part == "" || len(part) > 9 || len(whole) > 11 {
		return 0, fmt.Errorf("amount is %.40q, want coins such as 1.5, with at most nine places", text)
	}
	var nano uint64
	for _, r := range whole + part + strings.Repeat("0", 9-len(part)) {
		if r < '0' || r > '9' {
			return 0, fmt.Errorf("amount is %.40q, want coins such as 1.5", text)
		}
		high, low := bits.Mul64(nano, 10)
		sum, carry := bits.Add64(low, uint64(r-'0'), 0)
		if high != 0 || carry != 0 {
			return 0, fmt.Errorf("amount is %.40q, which passes 64 bits of nanotons", text)
		}
		nano = sum
	}
	return Coins(nano), nil
}

// Set and Type make an amount a flag of a command.
func (c *Coins) Set(text string) (err error) {
	parsed, err := ParseCoins(text)
	if err == nil {
		*c = parsed
	}
	return err
}

// Type names the value in a flag's help.
func (*Coins) Type() string { return "GRAM" }

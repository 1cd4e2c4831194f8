package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/measure/ton"
	"chrysalis/tools/internal/oracle"
)

// priceFlags say by whose word amounts are shown in another currency too. Nothing is decided by it.
type priceFlags struct {
	file, feed string
	signers    []string
	threshold  int
	maxAge     time.Duration
}

func (f *priceFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.file, "price-packages", "", "file with an oracle's signed data packages (RedStone's form), in hexadecimal digits, one a line: amounts are shown in USD too")
	flags.StringArrayVar(&f.signers, "price-signer", nil, "address of a signer that is trusted for it (repeatable)")
	flags.IntVar(&f.threshold, "price-threshold", 0, "how many of them must have signed (default: all)")
	flags.StringVar(&f.feed, "price-feed", "TON", "the coin's name in the packages")
	flags.DurationVar(&f.maxAge, "price-max-age", 5*time.Minute, "how old a package may be")
}

// shownPrice is what a coin costs, as it is shown.
type shownPrice struct {
	USD     string `json:"usd_per_coin"`
	Signers int    `json:"signers"`
	Oldest  string `json:"oldest"`

	price oracle.Price
}

// judge returns the price, or nil where none is asked for.
func (f *priceFlags) judge() (*shownPrice, error) {
	if f.file == "" {
		return nil, nil
	}
	o := oracle.Options{Feed: f.feed, Threshold: f.threshold, MaxAge: f.maxAge, Now: time.Now()}
	for _, text := range f.signers {
		s, err := oracle.ParseSigner(text)
		if err != nil {
			return nil, exitError{exitUsage, fmt.Errorf("--price-signer: %v", err)}
		}
		o.Signers = append(o.Signers, s)
	}
	if len(o.Signers) == 0 || f.threshold < 0 || f.threshold > len(o.Signers) {
		return nil, exitError{exitUsage, fmt.Errorf("--price-packages: %d of %d signers are trusted: name them with --price-signer", f.threshold, len(o.Signers))}
	}
	if o.Threshold == 0 {
		o.Threshold = len(o.Signers)
	}
	text, err := readInput(f.file)
	if err != nil {
		return nil, unavailable(err)
	}
	packages, err := oracle.ReadPackages(text)
	if err != nil {
		return nil, exitError{exitUsage, fmt.Errorf("--price-packages: %s: %v", f.file, err)}
	}
	p, err := oracle.Judge(packages, o)
	if err != nil {
		return nil, chainError(err)
	}
	return &shownPrice{p.Of(ton.Coin), p.Signers, p.Oldest.Format(time.RFC3339), p}, nil
}

// of is an amount as it is shown.
func (s *shownPrice) of(nanotons uint64) string {
	if s == nil {
		return ton.Coins(nanotons).String()
	}
	return fmt.Sprintf("%s (about %s USD)", ton.Coins(nanotons), s.price.Of(nanotons))
}

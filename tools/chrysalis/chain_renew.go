package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/runtime/chain"
)

// networksFile has the key blocks that are compiled in.
const networksFile = "runtime/chain/networks.go"

// anchorText matches a key block as networksFile has it: name, number of the network, day, number, root hash, file hash.
var anchorText = regexp.MustCompile(`anchored\(("[^"]+", -?\d+), "([\d-]+)", (\d+),(\s+)"([^"]+)", "([^"]+)"\)`)

func newChainRenew() *cobra.Command {
	var source chainFlags
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "renew --config FILE [--source FILE]",
		Short: "Put the newest key block into the source in the place of the one that is compiled in",
		Long: "Proves the newest key block as chain head does, from the one that is compiled in, and writes it into the source file in its place. The next\n" +
			"build begins there: a cold start then asks for as many blocks fewer. The file must have the key block that this program was built with.\n" +
			"Exit code 0: written. 1: the source has another, or the newest block is old. 3: nothing could be proven, and nothing is changed.",
		Example: "  chrysalis chain renew --config global.config.json && git diff runtime/chain/networks.go",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := source.open(cmd, "")
			if err != nil {
				return err
			}
			old, n, err := renewAnchor(file, r.Network(), r.Head())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"from": r.Network().Anchor.Key.Seqno, "to": n.Anchor.Key.Seqno, "day": day(n.Anchored)})
			}
			say(cmd.OutOrStdout(), "key block %d of %s gives way to %d of %s in %s\n", r.Network().Anchor.Key.Seqno, old, n.Anchor.Key.Seqno, day(n.Anchored), file)
			return nil
		},
	}
	source.add(cmd, "config")
	cmd.Flags().StringVar(&file, "source", networksFile, "source file that has the key block")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// renewAnchor replaces a network's anchor in a source file by the key block of a proven head.
func renewAnchor(file string, n chain.Network, h chain.Head) (old string, next chain.Network, err error) {
	raw, err := readInput(file)
	if err != nil {
		return "", n, unavailable(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	root := b64(n.Anchor.Key.RootHash[:])
	text := anchorText.ReplaceAllStringFunc(string(raw), func(found string) string {
		m := anchorText.FindStringSubmatch(found)
		if m[5] != root {
			return found
		}
		old = m[2]
		return fmt.Sprintf("anchored(%s, %q, %d,%s%q, %q)", m[1], day(utc(h.Time)), h.Key.Seqno, m[4], b64(h.Key.RootHash[:]), b64(h.Key.FileHash[:]))
	})
	if old == "" {
		return "", n, rejected(fmt.Errorf("%s has no key block %d (%s), with which this program was built", file, n.Anchor.Key.Seqno, root))
	}
	n.Anchor, n.Anchored = chain.Head{Key: h.Key, Last: h.Key}, utc(h.Time)
	temporary := file + ".new"
	if err := os.WriteFile(temporary, []byte(text), 0o644); err != nil {
		return "", n, unavailable(err)
	}
	if err := os.Rename(temporary, file); err != nil {
		return "", n, unavailable(err)
	}
	return old, n, nil
}

func newChainAge() *cobra.Command {
	var atMost time.Duration
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "age [--at-most 2160h]",
		Short: "Say how old the key block is that is compiled in, and refuse one that is too old",
		Long: "Compares the day of the key block of TON's main network that this program was built with to the clock. It asks nobody: a check for whoever\n" +
			"makes a release, who then runs chain renew. Exit code 0: young enough. 1: too old.",
		Example: "  chrysalis chain age\n  chrysalis chain age --at-most 720h",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n := chain.Mainnet
			age := time.Since(n.Anchored)
			what := fmt.Sprintf("key block %d of %s is of %s, %d days ago", n.Anchor.Key.Seqno, n.Name, day(n.Anchored), int(age.Hours()/24))
			if age > atMost {
				return rejected(fmt.Errorf("%s, want at most %d\nchrysalis: hint: chrysalis chain renew --config global.config.json writes a newer one", what, int(atMost.Hours()/24)))
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]any{"network": n.Name, "seqno": n.Anchor.Key.Seqno, "day": day(n.Anchored)})
			}
			say(cmd.OutOrStdout(), "%s\n", what)
			return nil
		},
	}
	cmd.Flags().DurationVar(&atMost, "at-most", 90*24*time.Hour, "how old it may be")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

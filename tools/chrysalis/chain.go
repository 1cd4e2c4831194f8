package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/runtime/chain"
)

func newChain() *cobra.Command {
	cmd := &cobra.Command{Use: "chain", Short: "Follow TON's chain by proofs, through liteservers that nobody has to trust"}
	cmd.AddCommand(newChainHead(), newChainRenew(), newChainAge())
	return cmd
}

// chainHead is the answer of chain head for machines.
type chainHead struct {
	Network  string `json:"network"`
	Seqno    uint32 `json:"seqno"`
	RootHash string `json:"root_hash"`
	FileHash string `json:"file_hash"`
	Time     string `json:"time"`
	Servers  int    `json:"servers"` // that proved it, or an older one
	Key      struct {
		Seqno    uint32 `json:"seqno"`
		RootHash string `json:"root_hash"`
		FileHash string `json:"file_hash"`
	} `json:"key_block"`
}

func newChainHead() *cobra.Command {
	var source chainFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "head --config FILE [--max-age 10m] [--json]",
		Short: "Prove the newest block, from the key block that is compiled in",
		Long: "Asks all liteservers of a global configuration file (at least two) and proves the newest block that any of them knows, by\n" +
			"validators' signatures from the key block of TON's main network that is compiled in. The file is believed for addresses alone.",
		Example: "  chrysalis chain head --config global.config.json\n  chrysalis chain head --config global.config.json --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := source.open(cmd, "")
			if err != nil {
				return err
			}
			return printChainHead(cmd.OutOrStdout(), r.Network(), r.Head(), r.Proved(), asJSON)
		},
	}
	source.add(cmd, "config")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func utc(unix uint32) time.Time { return time.Unix(int64(unix), 0).UTC() }

func printChainHead(w io.Writer, n chain.Network, h chain.Head, servers int, asJSON bool) error {
	b64 := base64.StdEncoding.EncodeToString
	v := chainHead{Network: n.Name, Seqno: h.Last.Seqno, RootHash: b64(h.Last.RootHash[:]), FileHash: b64(h.Last.FileHash[:]),
		Time: utc(h.Time).Format(time.RFC3339), Servers: servers}
	v.Key.Seqno, v.Key.RootHash, v.Key.FileHash = h.Key.Seqno, b64(h.Key.RootHash[:]), b64(h.Key.FileHash[:])
	if asJSON {
		if err := printJSON(w, v); err != nil {
			return unavailable(err)
		}
		return nil
	}
	fmt.Fprintf(w, "accepted\nnetwork    %s\nblock      %d of %s, by %d liteservers\nkey block  %d\n", v.Network, v.Seqno, v.Time, v.Servers, v.Key.Seqno)
	return nil
}

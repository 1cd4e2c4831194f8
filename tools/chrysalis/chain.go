package main

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/runtime/chain"
	"chrysalis/runtime/chain/fetch"
)

// maxChainConfig bounds TON's global configuration file.
const maxChainConfig = 1 << 20

func newChain() *cobra.Command {
	cmd := &cobra.Command{Use: "chain", Short: "Follow TON's chain by proofs, through liteservers that nobody has to trust"}
	cmd.AddCommand(newChainHead())
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
	var file string
	var maxAge, wait time.Duration
	var trust, asJSON bool
	var global int32
	cmd := &cobra.Command{
		Use:   "head --config FILE [--max-age 10m] [--json]",
		Short: "Prove the newest block, from the key block that is compiled in",
		Long: "Asks all liteservers of a global configuration file (at least two) and proves the newest block that any of them knows, by\n" +
			"validators' signatures from the key block of TON's main network that is compiled in. The newest key block is printed as\n" +
			"runtime/chain/networks.go has it, which is how a release gets a newer one. The file is believed for addresses alone.",
		Example: "  chrysalis chain head --config global.config.json\n  chrysalis chain head --config global.config.json --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, servers, err := readChainConfig(file, trust, global)
			if err != nil {
				return err
			}
			c, err := fetch.Open(servers, wait)
			if err != nil {
				return err
			}
			head, good, err := followChain(cmd.Context(), c, n, func(h chain.Head) {
				fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: hint: at key block %d, of %s\n", h.Key.Seqno, utc(h.Time).Format(time.DateOnly))
			})
			if err != nil {
				return unavailable(err)
			}
			if err := head.Fresh(time.Now(), maxAge); err != nil {
				return rejected(err)
			}
			return printChainHead(cmd.OutOrStdout(), n, head, good, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&file, "config", "", "TON's global configuration file, for its liteservers")
	flags.DurationVar(&maxAge, "max-age", 10*time.Minute, "reject a newest block that is older")
	flags.DurationVar(&wait, "wait", 10*time.Second, "how long one liteserver may take for an answer")
	flags.BoolVar(&trust, "insecure-trust-init-block", false,
		"begin at the file's init_block, for a chain of one's own: whoever wrote the file decides what is proven")
	flags.Int32Var(&global, "global-id", chain.Mainnet.GlobalID, "with --insecure-trust-init-block: the number that the chain's blocks have")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err)
	}
	return cmd
}

func utc(unix uint32) time.Time { return time.Unix(int64(unix), 0).UTC() }

// globalConfig is as much of TON's global configuration file as is read. The rest of it is others'.
type globalConfig struct {
	Liteservers []struct {
		IP   int64 `json:"ip"` // of 32 bits, signed or not
		Port uint16
		ID   struct{ Key []byte }
	}
	Validator struct {
		InitBlock struct {
			Workchain int32  `json:"workchain"`
			Shard     int64  `json:"shard"`
			Seqno     uint32 `json:"seqno"`
			RootHash  []byte `json:"root_hash"`
			FileHash  []byte `json:"file_hash"`
		} `json:"init_block"`
	}
}

// readChainConfig takes the liteservers out of a global configuration file and, if it is trusted, the block to begin with.
func readChainConfig(file string, trust bool, global int32) (chain.Network, []fetch.Server, error) {
	n := chain.Mainnet
	f, err := os.Open(file)
	if err != nil {
		return n, nil, fmt.Errorf("--config: %v", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxChainConfig+1))
	if err != nil || len(raw) > maxChainConfig {
		return n, nil, fmt.Errorf("--config: %s has more than %d bytes, or can't be read (%v)", file, maxChainConfig, err)
	}
	var c globalConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return n, nil, fmt.Errorf("--config: %s: %v", file, err)
	}
	var servers []fetch.Server
	for i, s := range c.Liteservers {
		if len(s.ID.Key) != 32 || s.IP < -1<<31 || s.IP >= 1<<32 {
			return n, nil, fmt.Errorf("--config: liteserver %d has a key of %d bytes and address %d", i, len(s.ID.Key), s.IP)
		}
		var ip [4]byte
		binary.BigEndian.PutUint32(ip[:], uint32(s.IP))
		servers = append(servers, fetch.Server{Address: netip.AddrPortFrom(netip.AddrFrom4(ip), s.Port), Key: [32]byte(s.ID.Key)})
	}
	// The first few are as good as all.
	servers = servers[:min(len(servers), fetch.MaxServers)]
	if trust {
		b := c.Validator.InitBlock
		if len(b.RootHash) != 32 || len(b.FileHash) != 32 {
			return n, nil, fmt.Errorf("--config: init_block has hashes of %d and %d bytes, want 32", len(b.RootHash), len(b.FileHash))
		}
		id := chain.BlockID{Workchain: b.Workchain, Shard: uint64(b.Shard), Seqno: b.Seqno, RootHash: [32]byte(b.RootHash),
			FileHash: [32]byte(b.FileHash)}
		n = chain.Network{Name: "of one's own", GlobalID: global, Anchor: chain.Head{Key: id, Last: id}}
	}
	return n, servers, nil
}

// followChain proves its way from the network's anchor to the newest block that any server knows. It returns how many servers' answers
// were proven in the last round.
func followChain(ctx context.Context, c *fetch.Client, n chain.Network, at func(chain.Head)) (chain.Head, int, error) {
	known := n.Anchor
	for {
		best, end := known, true
		good, err := c.AskAll(ctx, fetch.BlockProof{From: known.Key}, func(answer []byte) error {
			h, complete, err := chain.Advance(n, known, answer)
			if err == nil && h.Last.Seqno > best.Last.Seqno {
				best, end = h, complete
			}
			return err
		})
		if err != nil || end {
			return best, good, err
		}
		known = best
		at(known)
	}
}

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
	fmt.Fprintf(w, "accepted\nnetwork    %s\nblock      %d of %s, by %d liteservers\nkey block  anchor(%d,\n\t%q, %q)\n",
		v.Network, v.Seqno, v.Time, v.Servers, v.Key.Seqno, v.Key.RootHash, v.Key.FileHash)
	return nil
}

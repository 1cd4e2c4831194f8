package main

import (
	"fmt"
	"io"
	"math/bits"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/settle"
	"chrysalis/tools/internal/earned"
	"chrysalis/tools/internal/onchain"
)

// earnings are what a guest has earned, as earn status prints them. All amounts are nanotons.
type earnings struct {
	Block   uint32 `json:"block"`
	Proxy   string `json:"proxy"`
	State   string `json:"state"`
	Stake   uint64 `json:"stake_nanoton"`
	Clients int    `json:"open_clients"`
	// Deposits are what clients may still spend or get back.
	Deposits uint64 `json:"deposits_nanoton"`
	// Charged is what charges on the chain really took; Paid of it has reached the payout owner or the guard, Owed lies in the proxy for its owner.
	Charged uint64 `json:"charged_nanoton"`
	Paid    uint64 `json:"paid_nanoton"`
	Owed    uint64 `json:"owed_nanoton"`
	// Unsettled is what the guest has charged and the chain does not know; AtRisk of it is more than its client has left there.
	Unsettled uint64 `json:"unsettled_nanoton"`
	AtRisk    uint64 `json:"at_risk_nanoton"`
	// Next is what the next payout is for, as the chain stands.
	Next uint64 `json:"next_payout_nanoton"`
	// Price is what a coin costs, where it was asked for. It is for showing alone.
	Price *shownPrice `json:"price,omitempty"`
}

func newEarnStatus() *cobra.Command {
	var f carryFlags
	var in priceFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status --ton-config FILE [--dir DIR]",
		Short: "Say what a guest has earned, what is unsettled and at risk, and what the next payout is for",
		Long: "Reads the contracts of the guests of a folder and the whole history of their proxies by proofs, and holds what the guests have handed out\n" +
			"against them. Charged is what charges took from clients on the chain; paid of it has reached the payout owner, owed waits in the\n" +
			"proxy for its owner. Unsettled is what guests have charged and nobody has carried yet; at risk is as much of it as its client has no longer there.\n" +
			"Exit code 0: read. 1: the newest block is old, or a contract is another than it should be. 3: could not be read.",
		Example: "  chrysalis earn status --ton-config global.config.json\n  chrysalis earn status --ton-config global.config.json --dir build/guest-box --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			bodies, refused, err := f.signed()
			if err != nil {
				return unavailable(err)
			}
			root, owner, err := f.identity()
			if err != nil {
				return err
			}
			known, err := signersOf(f.dir)
			if err != nil {
				return unavailable(err)
			}
			price, err := in.judge()
			if err != nil {
				return err
			}
			r, err := f.source.open(cmd, keptChain)
			if err != nil {
				return err
			}
			all := []earnings{}
			for _, key := range claimKeys(known) {
				e, there, err := earningsOf(cmd, r, root, owner, key, bodies)
				if err != nil {
					return chainError(err)
				}
				if e.Price = price; there {
					all = append(all, e)
				}
			}
			if len(all) == 0 {
				return rejected(fmt.Errorf("%w: no guest of %s has a proxy contract (chrysalis earn init says how)", check.ErrRejected, f.dir))
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), all)
			} else {
				printEarnings(cmd.OutOrStdout(), all)
			}
			if err != nil {
				return unavailable(err)
			}
			if refused != nil {
				return rejected(refused)
			}
			return nil
		},
	}
	f.addSource(cmd)
	in.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func claimKeys(known []earned.Signers) (keys []pubkey.Ed25519) {
	var list []body
	for _, s := range known {
		list = append(list, body{key: s.Claim})
	}
	return keysOf(list)
}

// earningsOf adds up what one guest earns; there is false where its proxy is not deployed.
func earningsOf(cmd *cobra.Command, r *onchain.Reader, root, owner ton.Address, key pubkey.Ed25519, bodies []body) (e earnings, there bool, err error) {
	ctx := cmd.Context()
	c, err := r.Contracts(ctx, root, key, owner)
	if err != nil || c.View == nil {
		return e, false, err
	}
	book, err := r.Book(ctx, c)
	if err != nil {
		return e, false, err
	}
	v, price := *c.View, c.Terms.Params.Price.NanotonPerToken
	e = earnings{Block: r.Head().Last.Seqno, Proxy: c.Proxy.Address.String(), State: v.Proxy.State.String(), Stake: v.Proxy.Stake, Clients: book.Open,
		Deposits: book.Deposits, Charged: book.Took(), Owed: v.Proxy.Balance}
	if _, paid := bits.Mul64(v.Worker.Tokens, price); paid >= e.Owed {
		e.Paid = paid - e.Owed
	}
	for _, b := range bodies {
		if b.key != key || b.message.Op != claim.ClientCharge {
			continue
		}
		account, err := r.Account(ctx, b.message.Contract)
		if err != nil {
			return e, false, err
		}
		var client claim.Client
		if account.Status == chain.Active {
			if client, err = settle.Client(c.Terms, account); err != nil {
				continue // of another proxy
			}
		}
		if b.message.Tokens <= client.Tokens {
			continue
		}
		_, owed := bits.Mul64(b.message.Tokens-client.Tokens, price)
		e.Unsettled += owed
		e.AtRisk += owed - min(owed, client.Balance)
	}
	if count, ok := settle.Payout(v, book); ok {
		_, e.Next = bits.Mul64(count-v.Worker.Tokens, price)
	}
	return e, true, nil
}

func printEarnings(w io.Writer, all []earnings) {
	for i, e := range all {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%-12s %s, at block %d\n%-12s %s, with a stake of %s\n", "proxy", e.Proxy, e.Block, "state", e.State, e.Price.of(e.Stake))
		fmt.Fprintf(w, "%-12s %d open, with %s\n", "clients", e.Clients, e.Price.of(e.Deposits))
		for _, row := range []struct {
			name  string
			coins uint64
		}{{"charged", e.Charged}, {"paid", e.Paid}, {"owed", e.Owed}, {"unsettled", e.Unsettled}, {"at risk", e.AtRisk}, {"next payout", e.Next}} {
			fmt.Fprintf(w, "%-12s %s\n", row.name, e.Price.of(row.coins))
		}
	}
}

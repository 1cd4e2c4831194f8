package main

import (
	"fmt"
	"io"
	"math/bits"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure/ton"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/claim"
	"chrysalis/tools/internal/carry"
	"chrysalis/tools/internal/onchain"
)

// leaveFlags are those of the verbs that need no guest: a client's coins are its own when the guest is gone.
type leaveFlags struct {
	source  chainFlags
	hand    handFlags
	account string
}

// clientState is a client's contract as client status prints it.
type clientState struct {
	Block    uint32 `json:"block"`
	Contract string `json:"contract"`
	State    string `json:"state"`
	Balance  uint64 `json:"balance_nanoton"`
	Stake    uint64 `json:"stake_nanoton"`
	// Free is what its wallet can take out at once, without the guest.
	Free    uint64 `json:"free_nanoton"`
	Tokens  uint64 `json:"tokens_charged"`
	Charged uint64 `json:"charged_nanoton"`
	// Known says whether the contract has the hash of the account's key: another key was put there, or this one has not landed yet.
	Known  bool   `json:"key_known"`
	Unlock string `json:"unlock,omitempty"` // when the rest can be taken out of the proxy's stake
	Proxy  string `json:"proxy_state"`
	// Price is what a coin costs, where it was asked for. It is for showing alone.
	Price *shownPrice `json:"price,omitempty"`
}

// held is a client's contract with what it stands under.
type held struct {
	account   payAccount
	contract  claim.Client
	contracts *onchain.Contracts
	plan      *plan
}

// look reads the account's contract and those of its guest.
func (f *leaveFlags) look(cmd *cobra.Command, from ton.Address) (h held, err error) {
	if h.account, err = readAccount(f.account); err != nil {
		return h, err
	}
	r, err := f.source.open(cmd, keptChain)
	if err != nil {
		return h, err
	}
	c, err := r.Contracts(cmd.Context(), h.account.Root, h.account.ClaimKey, h.account.PayoutOwner)
	if err != nil {
		return h, chainError(err)
	}
	if c.View == nil {
		return h, rejected(fmt.Errorf("%w: no proxy contract at %s", check.ErrRejected, c.Proxy.Address))
	}
	h.contracts = c
	h.plan = &plan{from: from, names: map[ton.Address]string{c.Proxy.Address: "the proxy"}, accounts: []chain.Account{c.Proxy}, at: r.Head(),
		global: r.Network().GlobalID}
	h.contract, err = h.plan.client(cmd.Context(), r, c, h.account)
	return h, chainError(err)
}

// leave hands over what ask makes of the contract. Its owner alone can send it.
func (f *leaveFlags) leave(cmd *cobra.Command, ask func(held) (carry.Message, error)) error {
	from, err := f.hand.from()
	if err != nil {
		return err
	}
	h, err := f.look(cmd, from)
	if err != nil {
		return err
	}
	if from != h.contract.Owner {
		return rejected(fmt.Errorf("%w: the contract's owner is %s: no other wallet takes anything out", check.ErrRejected, h.contract.Owner))
	}
	m, err := ask(h)
	if err != nil {
		return chainError(err)
	}
	h.plan.messages = append(h.plan.messages, m)
	return f.hand.hand(cmd, h.plan)
}

func (f *leaveFlags) add(cmd *cobra.Command) {
	f.source.add(cmd, "ton-config")
	f.hand.add(cmd)
	accountFlag(cmd, &f.account)
}

func newClientStatus() *cobra.Command {
	var f leaveFlags
	var in priceFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status --ton-config FILE --account FILE",
		Short: "Say what is left in a client's contract, and what of it can be taken out",
		Long: "Reads the account's contract by proofs. Free is what its wallet can take out at once, whether the guest is there or not; the stake is given\n" +
			"back by the guest's grant, or out of the proxy's stake a delay after client close. What the guest has charged and nobody has carried\n" +
			"to the chain is not in it.",
		Example: "  chrysalis client status --ton-config global.config.json --account box.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			price, err := in.judge()
			if err != nil {
				return err
			}
			h, err := f.look(cmd, ton.Address{})
			if err != nil {
				return err
			}
			s := h.state()
			s.Price = price
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), s)
			} else {
				s.print(cmd.OutOrStdout())
			}
			if err != nil {
				return unavailable(err)
			}
			return nil
		},
	}
	f.source.add(cmd, "ton-config")
	accountFlag(cmd, &f.account)
	in.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// state is the contract for people and machines.
func (h held) state() clientState {
	d := h.contract
	s := clientState{Block: h.plan.at.Last.Seqno, Contract: h.account.Contract.String(), State: d.State.String(), Balance: d.Balance, Stake: d.Stake,
		Tokens: d.Tokens, Proxy: h.contracts.View.Proxy.State.String()}
	if k, err := h.account.key(); err == nil {
		s.Known = k.SecretHash() == d.SecretHash
	}
	_, s.Charged = bits.Mul64(d.Tokens, d.Params.Price.NanotonPerToken)
	if d.State == claim.Normal {
		s.Free = d.Balance - min(d.Balance, d.Stake)
	}
	if d.State == claim.Closing {
		s.Unlock = utc(d.Unlock).Format(time.RFC3339)
	}
	return s
}

func (s clientState) print(w io.Writer) {
	fmt.Fprintf(w, "%-9s %s, at block %d\n%-9s %s (proxy: %s)\n", "contract", s.Contract, s.Block, "state", s.State, s.Proxy)
	fmt.Fprintf(w, "%-9s %s, of which %s is the stake and %s is free\n", "balance", s.Price.of(s.Balance), ton.Coins(min(s.Balance, s.Stake)), ton.Coins(s.Free))
	fmt.Fprintf(w, "%-9s %d tokens, at most %s\n", "charged", s.Tokens, s.Price.of(s.Charged))
	word := "is the contract's"
	if !s.Known {
		word = "is not the contract's: another was put there, or this one has not landed"
	}
	fmt.Fprintf(w, "%-9s %s\n", "key", word)
	if s.Unlock != "" {
		fmt.Fprintf(w, "%-9s %s: from then on client close takes the rest out of the proxy's stake\n", "unlock", s.Unlock)
	}
}

func newClientWithdraw() *cobra.Command {
	var f leaveFlags
	cmd := &cobra.Command{
		Use:   "withdraw --ton-config FILE --wallet ADDR --account FILE",
		Short: "Take out what a client's contract has above its stake",
		Long: "Has the account's wallet take out what its contract has above its stake, at once and without the guest. What the guest has charged and\n" +
			"not yet settled it then can't take, and it answers no further request until that is paid in again.",
		Example: "  chrysalis client withdraw --ton-config global.config.json --wallet UQDBewVWobi3VbNBLioJUPIK2WzGWJar8H1buf_fO411eSrS --account box.json --qr",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.leave(cmd, func(h held) (carry.Message, error) {
				d := h.contract
				if d.State != claim.Normal || d.Balance <= d.Stake {
					return carry.Message{}, fmt.Errorf("%w: contract is %s and has %s, its stake being %s: nothing can be taken out", check.ErrRejected, d.State,
						ton.Coins(d.Balance), ton.Coins(d.Stake))
				}
				return carry.Withdraw(h.account.Contract, d.Owner)
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newClientClose() *cobra.Command {
	var f leaveFlags
	cmd := &cobra.Command{
		Use:   "close --ton-config FILE --wallet ADDR --account FILE",
		Short: "Close a client's contract and take out all that is left",
		Long: "Has the account's wallet ask for the rest. What is above the stake comes at once, and the stake when the guest grants it. Where no guest does,\n" +
			"run it again after the delay: the stake then comes out of the proxy's own.",
		Example: "  chrysalis client close --ton-config global.config.json --wallet UQDBewVWobi3VbNBLioJUPIK2WzGWJar8H1buf_fO411eSrS --account box.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.leave(cmd, func(h held) (carry.Message, error) {
				d := h.contract
				switch {
				case d.State == claim.Closed:
					return carry.Message{}, fmt.Errorf("%w: contract is closed", check.ErrRejected)
				case d.State == claim.Closing && h.plan.at.Time <= d.Unlock:
					return carry.Message{}, fmt.Errorf("%w: contract is closing: the guest may grant the rest, and from %s on the wallet can take it", check.ErrRejected,
						utc(d.Unlock).Format(time.RFC3339))
				}
				return carry.AskRefund(h.account.Contract, d.Owner)
			})
		},
	}
	f.add(cmd)
	return cmd
}

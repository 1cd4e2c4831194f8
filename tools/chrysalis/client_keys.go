package main

import (
	"errors"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/claim"
	"chrysalis/tools/internal/carry"
)

func newClientKeys() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "The key by which a guest knows who pays: show it, or put another in its place"}
	cmd.AddCommand(newClientKeysShow(), newClientKeysRenew())
	return cmd
}

func newClientKeysShow() *cobra.Command {
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show --account FILE",
		Short: "Print an account's key, as every SDK takes an API key",
		Long: "Prints the key alone. Whoever has it spends the contract's deposit with its guest, and can take nothing out of it. Programs send it as\n" +
			"Authorization: Bearer, which is what SDKs make of an API key; chrysalis chat and proxy read it from the file by themselves.",
		Example: "  export OPENAI_API_KEY=$(chrysalis client keys show --account box.json)\n  chrysalis client keys show --account box.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := readAccount(file)
			if err != nil {
				return err
			}
			if _, err := a.key(); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), map[string]string{"contract": a.Contract.String(), "key": a.Key})
			}
			fmt.Fprintln(cmd.OutOrStdout(), a.Key)
			return nil
		},
	}
	accountFlag(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newClientKeysRenew() *cobra.Command {
	var f leaveFlags
	var next string
	cmd := &cobra.Command{
		Use:   "renew --account FILE --new-account FILE --ton-config FILE --wallet ADDR",
		Short: "Put a new key in the place of the one that there is, which then pays for nothing",
		Long: "Makes a new key, writes it into --new-account with all else that the account has, and hands the account's wallet the message that puts its\n" +
			"hash into the contract. When that has landed, and the guest has seen the block, the key before is nobody's. client status says whose key the contract has.",
		Example: "  chrysalis client keys renew --account box.json --new-account box-2.json --ton-config global.config.json --wallet UQDBewVWobi3VbNBLioJUPIK2WzGWJar8H1buf_fO411eSrS",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.leave(cmd, func(h held) (carry.Message, error) {
				if h.contract.State == claim.Closed {
					return carry.Message{}, fmt.Errorf("%w: contract is closed", check.ErrRejected)
				}
				key := newKey(h.account.Contract)
				a := h.account
				a.Key = key.String()
				m, err := carry.ChangeSecret(a.Contract, key.SecretHash(), h.contract.Owner)
				if err != nil {
					return m, err
				}
				if err := writeAccount(next, a); err != nil {
					return m, exitError{exitUsage, fmt.Errorf("--new-account: %w (a file that is there is not replaced)", err)}
				}
				return m, nil
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&next, "new-account", "", "file for the account with its new key")
	if err := cmd.MarkFlagRequired("new-account"); err != nil {
		panic(err)
	}
	return cmd
}

// payerFlags say who pays for what is asked: the contract of an account with its key, or one that is named.
type payerFlags struct {
	contract, account string
	most              float64
}

func (f *payerFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.contract, "client", "", "TON address of the payment contract that is charged (default on a local chain: the demonstration's)")
	cmd.Flags().StringVar(&f.account, "account", "", "file of client open: its contract is charged, and its key shown to a guest that settles on chain")
	cmd.Flags().Float64Var(&f.most, "max-coefficient", 0, "with --account: refuse to pay more than so many times the price, which rises with a guest's queue inside its config's band")
	cmd.MarkFlagsMutuallyExclusive("client", "account")
}

// coefficient is the most that tokens may be multiplied by, in parts of 10000; 0: what the guest's config allows.
func (f *payerFlags) coefficient() (uint32, error) {
	parts := math.Round(f.most * ton.WeightOne)
	if f.most != 0 && (!(parts >= 1 && parts <= math.MaxUint32) || f.account == "") {
		return 0, exitError{exitUsage, fmt.Errorf("--max-coefficient is %v, want such as 1.5, and with it --account", f.most)}
	}
	return uint32(parts), nil
}

// read returns the account that is named and its key, or nothing.
func (f *payerFlags) read() (contract ton.Address, key api.Key, err error) {
	if f.account == "" {
		return contract, key, nil
	}
	a, err := readAccount(f.account)
	if err == nil {
		key, err = a.key()
	}
	return a.Contract, key, err
}

// demoPayer is the payment contract of whoever names none on a local chain, where nothing has a value.
var demoPayer = ton.Address{Account: [32]byte{0xc1, 0x1e, 0x47}}

// of decides who is charged by a guest of a config, and which key it is shown.
func (f *payerFlags) of(m config.Measured) (payer ton.Address, key api.Key, err error) {
	flag, settles := "client", m.Service.Settles()
	if f.account != "" {
		flag = "account"
	}
	payer, key, err = f.read()
	switch {
	case err != nil:
		return payer, key, err
	case m.Service.Price.Payment != config.PayCharge:
		if f.account != "" || f.contract != "" {
			err = fmt.Errorf("--%s: this guest charges nothing", flag)
		}
		return ton.Address{}, api.Key{}, err
	case settles && f.account == "":
		return payer, key, errors.New("--account: this guest settles on chain: name the file that client open wrote")
	case f.account != "":
		if !settles {
			key = api.Key{}
		}
		return payer, key, nil
	case f.contract != "":
		if payer, err = ton.Parse(f.contract); err != nil {
			err = fmt.Errorf("--client: %w", err)
		}
		return payer, key, err
	case m.Identity.Network == config.Local:
		return demoPayer, key, nil
	}
	return payer, key, fmt.Errorf("--client: this guest charges on %s: name the payment contract", m.Identity.Network)
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/client"
	"chrysalis/tools/internal/carry"
)

func newClientKeys() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "The keys by which a guest knows who pays: show one, add and revoke others, put another in its place"}
	cmd.AddCommand(newClientKeysShow(), newClientKeysAdd(), newClientKeysRevoke(), newClientKeysRenew())
	return cmd
}

// keyFlags are those of the verbs that tell a guest of a key.
type keyFlags struct {
	remote  remoteFlags
	account string
	asJSON  bool
}

func (f *keyFlags) add(cmd *cobra.Command) {
	f.remote.add(cmd)
	accountFlag(cmd, &f.account)
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
}

// namedKey is what a guest says of a key.
type namedKey struct {
	Name string `json:"name"`
	Key  string `json:"key"`
	Cap  uint64 `json:"cap"`
	Used uint64 `json:"used"`
}

// maxKeyAnswer bounds what a guest says of a key.
const maxKeyAnswer = 1 << 12

// tell verifies the guest and tells it of a key of the account's contract, sealed. The guest's word for the key must be the one that follows from the
// account's own.
func (f *keyFlags) tell(cmd *cobra.Command, url, name string, most uint64) (k namedKey, err error) {
	if err := api.CheckKeyName(name); err != nil {
		return k, exitError{exitUsage, fmt.Errorf("NAME: %w", err)}
	}
	account, err := readAccount(f.account)
	if err != nil {
		return k, err
	}
	own, err := account.key()
	if err != nil {
		return k, err
	}
	base, _, err := guestAddress(url)
	if err != nil {
		return k, err
	}
	remote, err := f.remote.open()
	if err != nil {
		return k, err
	}
	guest, err := client.NewSealed(base, remote)
	if err != nil {
		return k, unavailable(err)
	}
	defer guest.Close()
	result, err := guest.Verify(cmd.Context())
	if err != nil {
		return k, refusalOf(err, f.remote.trusted())
	}
	if m := result.Config(); !m.Service.Settles() {
		return k, exitError{exitUsage, errors.New("this guest settles nothing on chain, and takes no keys")}
	}
	body, err := json.Marshal(map[string]any{"name": name, "cap": most}, json.Deterministic(true))
	if err != nil {
		return k, err
	}
	request, err := http.NewRequestWithContext(cmd.Context(), http.MethodPost, base+api.Keys, bytes.NewReader(body))
	if err != nil {
		return k, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+own.String())
	response, err := guest.RoundTrip(request)
	if err != nil {
		return k, refusalOf(spoken(err), f.remote.trusted())
	}
	defer response.Body.Close()
	said, err := io.ReadAll(io.LimitReader(response.Body, maxKeyAnswer+1))
	if err != nil {
		return k, unavailable(err)
	}
	if len(said) > maxKeyAnswer {
		return k, rejected(fmt.Errorf("the guest's answer has more than %d bytes", maxKeyAnswer))
	}
	if response.StatusCode != http.StatusOK {
		var refused struct{ Error struct{ Message string } }
		if json.Unmarshal(said, &refused, json.MatchCaseInsensitiveNames(true)) != nil || refused.Error.Message == "" {
			refused.Error.Message = string(said)
		}
		return k, unavailable(fmt.Errorf("the guest says: %s (%d %s)", printable(refused.Error.Message), response.StatusCode, http.StatusText(response.StatusCode)))
	}
	if err := json.Unmarshal(said, &k, json.RejectUnknownMembers(true)); err != nil {
		return k, rejected(fmt.Errorf("the guest's answer: %v", err))
	}
	if want := (namedKey{name, own.Derive(name).String(), most, k.Used}); k != want {
		return k, rejected(errors.New("the guest speaks of another key or cap than it was told"))
	}
	return k, nil
}

func newClientKeysAdd() *cobra.Command {
	var f keyFlags
	var most uint64
	cmd := &cobra.Command{
		Use:   "add URL NAME --cap TOKENS --account FILE --policy FILE",
		Short: "Make a key of that name which may use so many tokens, or change how many",
		Long: "Verifies the guest, tells it that the key of this name may use so many weighted tokens of the account's deposit in all, and prints the key. It\n" +
			"spends the deposit as the account's own does, and can make no other. The key follows from the account's own and the name, so the same name gives\n" +
			"the same key with every guest of the account's identity; each guest has to be told, and counts for itself.",
		Example: "  chrysalis client keys add https://127.0.0.1:8443 ci --cap 1000000 --account box.json --policy policy.json --roots build/guest/tpm-maker.pem",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if most == 0 {
				return exitError{exitUsage, errors.New("--cap is 0, want at least 1 token; client keys revoke ends a key")}
			}
			k, err := f.tell(cmd, args[0], args[1], most)
			if err != nil {
				return err
			}
			if f.asJSON {
				return printJSON(cmd.OutOrStdout(), k)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "key %s may use %d weighted tokens in all, and has used %d\n", k.Name, k.Cap, k.Used)
			fmt.Fprintln(cmd.OutOrStdout(), k.Key)
			return nil
		},
	}
	f.add(cmd)
	cmd.Flags().Uint64Var(&most, "cap", 0, "weighted tokens that the key may use in all")
	cmd.MarkFlagRequired("cap")
	return cmd
}

func newClientKeysRevoke() *cobra.Command {
	var f keyFlags
	cmd := &cobra.Command{
		Use:   "revoke URL NAME --account FILE --policy FILE",
		Short: "End the key of that name",
		Long: "Verifies the guest and tells it that the key of this name may use nothing more. Other guests of the account's identity have to be told too; client\n" +
			"keys renew ends all keys at once, with a message to the contract.",
		Example: "  chrysalis client keys revoke https://127.0.0.1:8443 ci --account box.json --policy policy.json --roots build/guest/tpm-maker.pem",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := f.tell(cmd, args[0], args[1], 0)
			if err != nil {
				return err
			}
			if f.asJSON {
				return printJSON(cmd.OutOrStdout(), k)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "key %s is revoked; it has used %d weighted tokens\n", k.Name, k.Used)
			return nil
		},
	}
	f.add(cmd)
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

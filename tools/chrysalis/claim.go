package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
)

// maxBodyText bounds a file with a body: BOC bytes, or their hexadecimal or base64 text.
const maxBodyText = 16 << 10

func newClaim() *cobra.Command {
	cmd := &cobra.Command{Use: "claim", Short: "The signed messages by which a guest is paid: look at them, and have them carried"}
	cmd.AddCommand(newClaimList(), newClaimNext(), newClaimSubmit(), newClaimExport(), newClaimVerify())
	return cmd
}

// claimVerdict is the answer of claim verify for machines. Nothing of a rejected message is repeated.
type claimVerdict struct {
	check.Report
	Op       string  `json:"op,omitempty"`
	Tokens   *uint64 `json:"tokens,omitempty"`
	QueryID  *uint64 `json:"query_id,omitempty"`
	Contract string  `json:"contract,omitempty"`
}

func newClaimVerify() *cobra.Command {
	var body, key, contract string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify --body HEX|FILE --pubkey HEX [--contract ADDR] [--json]",
		Short: "Check one signed message: layout, signature, contract",
		Long: "Checks a message of COCOON's contracts: worker payout, worker last payout, client charge or client refund grant, which carry\n" +
			"a count of tokens, or a proxy's close or complete close. The body is the bag of cells, given as hexadecimal or base64 text or as a file with either or with the\n" +
			"bytes. The key is the proxy's: for a guest, the claim key of its attested statement. Exit code 0: accepted, 1: rejected.",
		Example: "  chrysalis claim verify --body charge.boc --pubkey 9d4c…f1 --contract EQCns7bYSp0igFvS1wpb5wsZjCKCV19MD5AVzI4EyxsnU73k\n" +
			"  chrysalis claim verify --body b5ee9c7241… --pubkey 9d4c…f1 --json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			policy, err := claimPolicy(key, contract)
			if err != nil {
				return err
			}
			raw, err := readBody(body)
			if err != nil {
				return err
			}
			message, err := claim.Verify(raw, policy)
			if err != nil && !errors.Is(err, check.ErrRejected) {
				return err
			}
			if policy.AnyContract && err == nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "chrysalis: hint: no --contract given: the message may be for any contract")
			}
			return printVerdict(cmd.OutOrStdout(), message, err, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&body, "body", "", "the message: hexadecimal or base64 text, or a file")
	flags.StringVar(&key, "pubkey", "", "Ed25519 public key, 64 hexadecimal digits")
	flags.StringVar(&contract, "contract", "", "address that the message must be for")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	for _, name := range []string{"body", "pubkey"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	return cmd
}

func claimPolicy(key, contract string) (claim.Policy, error) {
	public, err := pubkey.Parse(strings.ToLower(key))
	if err != nil {
		return claim.Policy{}, fmt.Errorf("--pubkey: %v", err)
	}
	p := claim.Policy{Key: public, AnyContract: contract == ""}
	if contract != "" {
		if p.Contract, err = ton.Parse(contract); err != nil {
			return claim.Policy{}, fmt.Errorf("--contract: %v", err)
		}
		if p.Contract.IsZero() {
			return claim.Policy{}, errors.New("--contract is the zero address, which is no contract's")
		}
	}
	return p, nil
}

// readBody returns the bytes of a body that is given as text or as a file's name.
func readBody(arg string) ([]byte, error) {
	f, err := os.Open(arg)
	if err != nil {
		if raw, ok := decodeText(arg); ok {
			return raw, nil
		}
		return nil, fmt.Errorf("--body is neither hexadecimal or base64 text nor a file that can be opened (%v)", errors.Unwrap(err))
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxBodyText+1))
	if err != nil {
		return nil, fmt.Errorf("--body: %v", err)
	}
	if len(raw) > maxBodyText {
		return nil, fmt.Errorf("--body: %s has more than %d bytes", arg, maxBodyText)
	}
	if bytes.HasPrefix(raw, []byte{0xb5, 0xee, 0x9c, 0x72}) {
		return raw, nil
	}
	if text, ok := decodeText(strings.TrimSpace(string(raw))); ok {
		return text, nil
	}
	return raw, nil // no bag of cells: Verify says so
}

// decodeText reads hexadecimal or base64 text.
func decodeText(text string) ([]byte, bool) {
	if text == "" {
		return nil, false
	}
	if raw, err := hex.DecodeString(text); err == nil {
		return raw, true
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	return raw, err == nil
}

func printVerdict(w io.Writer, m *claim.Message, rejection error, asJSON bool) error {
	v := claimVerdict{Report: check.Accept(nil, nil)}
	if rejection != nil {
		v.Report = check.Refuse(rejection)
	} else {
		v.Op, v.QueryID, v.Contract = m.Op.String(), &m.QueryID, m.Contract.String()
		if !m.Op.Closes() {
			v.Tokens = &m.Tokens
		}
	}
	switch {
	case asJSON:
		if err := printJSON(w, v); err != nil {
			return unavailable(err)
		}
	case rejection != nil:
		fmt.Fprintf(w, "rejected\n")
	default:
		fmt.Fprintf(w, "accepted\nop        %s\n", m.Op)
		if !m.Op.Closes() {
			fmt.Fprintf(w, "tokens    %d\n", m.Tokens)
		}
		fmt.Fprintf(w, "contract  %s\nquery id  %d\n", m.Contract, m.QueryID)
	}
	if rejection != nil {
		return rejected(rejection)
	}
	return nil
}

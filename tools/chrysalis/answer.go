package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/measure/config"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
)

const (
	maxEventBytes  = 256 << 10
	maxAnswerBytes = 64 << 20
	maxErrorBytes  = 8 << 10
)

// answer is what came back for one prompt.
type answer struct {
	text, reasoning strings.Builder
	receipt, charge []byte // as sent, not yet judged
	done            bool   // the stream ended with its own mark
}

// event is one chunk of a streamed answer. Members that are not here belong to the API and are of no use here.
type event struct {
	Choices []struct {
		Delta struct {
			Content   string `json:"content"`
			Reasoning string `json:"reasoning_content"`
		} `json:"delta"`
	} `json:"choices"`
	Chrysalis *struct {
		Receipt string `json:"receipt"`
		Charge  string `json:"charge"`
	} `json:"chrysalis"`
	Error *struct {
		Message string `json:"message"`
	} `json:"error"`
}

var errCut = errors.New("the answer ended without its end mark: it was cut")

// readAnswer reads a stream of events to its end and writes the text to w as it comes.
func readAnswer(body io.Reader, w io.Writer) (*answer, error) {
	a := &answer{}
	lines := bufio.NewScanner(io.LimitReader(body, maxAnswerBytes))
	lines.Buffer(make([]byte, 4096), maxEventBytes)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case !ok:
			continue // comments and the empty lines between events
		case a.done:
			return a, errors.New("reading answer: an event after its end mark")
		case data == "[DONE]":
			a.done = true
			continue
		}
		if err := a.take(data, w); err != nil {
			return a, fmt.Errorf("reading answer: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return a, fmt.Errorf("reading answer: %w", err)
	}
	if !a.done {
		return a, errCut
	}
	return a, nil
}

func (a *answer) take(data string, w io.Writer) error {
	var e event
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return err
	}
	for _, choice := range e.Choices {
		a.reasoning.WriteString(choice.Delta.Reasoning)
		a.text.WriteString(choice.Delta.Content)
		if _, err := io.WriteString(w, choice.Delta.Content); err != nil {
			return err
		}
	}
	if c := e.Chrysalis; c != nil {
		var err error
		if a.receipt, err = base64.StdEncoding.DecodeString(c.Receipt); err != nil {
			return fmt.Errorf("receipt: %w", err)
		}
		if a.charge, err = base64.StdEncoding.DecodeString(c.Charge); err != nil {
			return fmt.Errorf("charge: %w", err)
		}
	}
	if e.Error != nil {
		return fmt.Errorf("the guest says: %s", printable(e.Error.Message))
	}
	return nil
}

// refusal reads the error of an answer that was refused as a whole.
func refusal(response *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(response.Body, maxErrorBytes))
	if err != nil {
		return err
	}
	var e event
	if json.Unmarshal(body, &e) == nil && e.Error != nil {
		return fmt.Errorf("the guest says: %s (%s)", printable(e.Error.Message), response.Status)
	}
	return fmt.Errorf("the guest answered %s", response.Status)
}

// judge verifies the receipt and the charge of an answer: signed by the attested keys, over what was sent and what came
// back, at the attested price. client is the zero address when nothing is charged.
func (a *answer) judge(result *attest.Result, request []byte, client ton.Address) (*receipt.Receipt, *claim.Message, error) {
	r, err := receipt.Verify(a.receipt, pubkey.Ed25519(result.ReceiptKey()))
	if err != nil {
		return nil, nil, fmt.Errorf("verifying receipt: %w", err)
	}
	m := result.Config()
	_, service, err := config.Split(result.ConfigBytes())
	if err != nil {
		return nil, nil, err
	}
	text := receipt.NewResponseHash()
	text.Reasoning([]byte(a.reasoning.String()))
	text.Content([]byte(a.text.String()))
	for _, c := range []struct {
		name string
		ok   bool
	}{
		{"request hash", r.Request == sha256.Sum256(request)},
		{"response hash", r.Response == text.Sum()},
		{"service digest", r.Service == serviceDigest(service)},
		{"model", r.Model == m.Service.Model.Volume.Root},
		{"engine", r.Engine == m.Service.Engine.Volume.Root},
		{"price", r.Price == m.Service.Price.Price},
		{"client", r.Client == client},
	} {
		if !c.ok {
			return nil, nil, fmt.Errorf("verifying receipt: its %s is not that of this answer", c.name)
		}
	}
	if m.Service.Price.Payment != config.PayCharge {
		if len(a.charge) != 0 {
			return nil, nil, errors.New("verifying charge: there is one, but the config charges nothing")
		}
		return r, nil, nil
	}
	message, err := claim.Verify(a.charge, claim.Policy{Key: pubkey.Ed25519(result.ClaimKey()), Contract: client})
	if err != nil {
		return nil, nil, fmt.Errorf("verifying charge: %w", err)
	}
	if message.Op != claim.ClientCharge || message.Tokens != r.Cumulative {
		return nil, nil, fmt.Errorf("verifying charge: it is a %s of %d tokens, want a %s of the receipt's %d", message.Op, message.Tokens, claim.ClientCharge, r.Cumulative)
	}
	return r, message, nil
}

// serviceDigest is the digest of the service part as receipts name it: with its length, like the identity part's.
func serviceDigest(service []byte) [32]byte { return config.IdentityDigest(service) }

// printable drops what would move a terminal's cursor or change its colours; line feeds and tabs stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || slices.Contains([]rune{'\u2028', '\u2029', '\u202e'}, r)) {
			return -1
		}
		return r
	}, s)
}

// Package proof judges answers: whether a verified guest has signed for this text, over this request, at the attested price. It reads what
// others carry, and opens no connection, so it is also for pages, whose connections are the browser's.
//
//	answer, err := proof.Judge(untrusted, guest)                       // what was kept
//	answer, err := proof.Read(body, untrusted, guest, each)            // a streamed chat, as it comes
//	watched := proof.Watch(path, body, streamed, request, payer, guest) // any answer, on its way to somebody else
//
// Errors have the classes of package client.
package proof

import (
	"crypto/sha256"
	"fmt"

	"chrysalis/attest"
	"chrysalis/attest/check"
	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
)

// Untrusted is an answer as it came, or was kept, with the request that it is for.
type Untrusted struct {
	Request            []byte      // body, byte for byte as it was sent
	Payer              ton.Address // whom the request named; zero where nothing is charged
	Content, Reasoning string      // the whole text
	Calls              []Call      // of tools
	Receipt, Charge    []byte      // as they came; Charge is empty where nothing is charged
	Whole              bool        // the stream had its end mark, so that the receipt must not be that of a cut answer
}

// Call is a call of a tool.
type Call struct {
	ID, Name  string
	Arguments string // JSON as the model wrote it
}

// Answer is an answer that a verified guest has signed for. Only Judge makes one.
type Answer struct {
	Request            []byte // body as it was sent
	Content, Reasoning string
	Calls              []Call
	Receipt            *receipt.Receipt
	Charge             *claim.Message // nil where nothing is charged
	Signed             receipt.Proof  // receipt and charge as the guest signed them: what an auditor wants
	Guest              *attest.Result // what the guest that answered was
}

// Judge decides whether a guest has answered: receipt and charge are signed by the attested keys, over what was sent and
// what came back, at the attested price, for the payer. The error wraps check.ErrRejected.
func Judge(u Untrusted, guest *attest.Result) (*Answer, error) {
	r, err := judgeReceipt(u.Receipt, u.Payer, guest)
	if err != nil {
		return nil, err
	}
	text := receipt.NewResponseHash()
	text.Reasoning([]byte(u.Reasoning))
	text.Content([]byte(u.Content))
	for i, c := range u.Calls {
		if !text.Call(i, []byte(c.ID), []byte(c.Name), []byte(c.Arguments)) {
			return nil, fmt.Errorf("verifying receipt: %w: the answer has %d calls of tools, want at most %d", check.ErrRejected, len(u.Calls), receipt.MaxCalls)
		}
	}
	if err := same([]part{
		{"model's name", asksFor(u.Request, r, guest.Config().Service)},
		{"request hash", r.Request == sha256.Sum256(u.Request)},
		{"response hash", r.Response == text.Sum()},
		{"outcome", !u.Whole || r.Outcome == receipt.Complete},
	}); err != nil {
		return nil, err
	}
	answer, err := judgeCharge(r, u.Charge, u.Payer, guest)
	if err != nil {
		return nil, err
	}
	answer.Request, answer.Content, answer.Reasoning, answer.Calls = u.Request, u.Content, u.Reasoning, u.Calls
	signed := receipt.Signed(u.Receipt)
	answer.Signed.Receipt = &signed
	return answer, nil
}

// JudgeProof is Judge where the texts are not at hand: it decides whether the guest has signed receipt and charge, under its config, for the
// payer. For which request and which answer, by hash, the receipt says.
func JudgeProof(untrusted, charge []byte, payer ton.Address, guest *attest.Result) (*Answer, error) {
	r, err := judgeReceipt(untrusted, payer, guest)
	if err != nil {
		return nil, err
	}
	answer, err := judgeCharge(r, charge, payer, guest)
	if err != nil {
		return nil, err
	}
	signed := receipt.Signed(untrusted)
	answer.Signed.Receipt = &signed
	return answer, nil
}

// judgeCharge judges what was charged for a receipt.
func judgeCharge(r *receipt.Receipt, charge []byte, payer ton.Address, guest *attest.Result) (*Answer, error) {
	answer := &Answer{Receipt: r, Guest: guest}
	if guest.Config().Service.Price.Payment != config.PayCharge {
		if len(charge) != 0 {
			return nil, fmt.Errorf("verifying charge: %w: there is one, but the config charges nothing", check.ErrRejected)
		}
		return answer, nil
	}
	settles := guest.Config().Service.Settles()
	if settles && len(charge) == 0 {
		return answer, nil // the contract had nothing more that could be charged: a later charge stands for this answer too
	}
	if len(charge) != claim.BodySize {
		return nil, fmt.Errorf("verifying charge: %w: it has %d bytes, want %d", check.ErrRejected, len(charge), claim.BodySize)
	}
	message, err := claim.Verify(charge, claim.Policy{Key: guest.ClaimKey(), Contract: payer})
	if err != nil {
		return nil, fmt.Errorf("verifying charge: %w", err)
	}
	// Settled on chain, a charge takes no more than the contract has: less than is counted, and never more.
	if message.Op != claim.ClientCharge || message.Tokens > r.Cumulative || message.Tokens < r.Cumulative && !settles {
		return nil, fmt.Errorf("verifying charge: %w: it is a %s of %d tokens, want a %s of the receipt's %d", check.ErrRejected,
			message.Op, message.Tokens, claim.ClientCharge, r.Cumulative)
	}
	body := claim.Body(charge)
	answer.Charge, answer.Signed.Charge = message, &body
	return answer, nil
}

// judgeReceipt judges a receipt but for its hashes.
func judgeReceipt(untrusted []byte, payer ton.Address, guest *attest.Result) (*receipt.Receipt, error) {
	r, err := receipt.Verify(untrusted, guest.ReceiptKey())
	if err != nil {
		return nil, err
	}
	_, service, err := config.Split(guest.ConfigBytes())
	if err != nil {
		return nil, err
	}
	m := guest.Config()
	served, ok := answered(r, m.Service)
	return r, same([]part{
		{"service digest", r.Service == config.ServiceDigest(service)},
		{"model", ok},
		{"engine", r.Engine == served.Engine.Volume.Root},
		{"price", r.Price == m.Service.Price.Price},
		{"coefficient", m.Service.Takes(r.Coefficient)},
		{"client", r.Client == payer},
		{"usage", r.Usage.Prompt <= served.Limits.ContextTokens && r.Usage.Completion <= served.Limits.AnswerTokens},
	})
}

// part is something that a receipt says, and whether it is so.
type part struct {
	name string
	ok   bool
}

func same(parts []part) error {
	for _, p := range parts {
		if !p.ok {
			return fmt.Errorf("verifying receipt: %w: its %s is not that of this answer", check.ErrRejected, p.name)
		}
	}
	return nil
}

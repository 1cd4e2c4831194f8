//go:build js && wasm

package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"syscall/js"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest"
	"chrysalis/measure/ton"
	"chrysalis/runtime/client/exchange"
	"chrysalis/runtime/client/proof"
	"chrysalis/runtime/envelope"
)

// What is handed out, in the words of JavaScript. An object with error has nothing else, and one that lives has close, after which it
// does nothing; error is {verdict: rejected, unavailable or refused, reason}, refused being what the caller has done wrong.
//
//	client:   {issued, ask() → question, seen() → JSON, close()} or {report}
//	question: {target, judge(evidence) → {report, guest}}, guest on acceptance alone
//	guest:    {key, fresh(), seal({method, path, query, header: [name, value, …], body}) → call, close()}
//	call:     {sealed, type, keyHeader, key, take(bytes) → piece, end() → piece, clear(status, bytes) → {rekey, error}, close()}
//	piece:    {data, head: {status, header: [name, value, …]}, proof: JSON, error}

// object is an object that lives until it is closed, and what it is made of.
func object(fields map[string]any, closed func()) js.Value {
	var mine []js.Func
	for name, f := range fields {
		if f, ok := f.(func([]js.Value) any); ok {
			made := function(f)
			mine = append(mine, made)
			fields[name] = made
		}
	}
	shut := js.Func{}
	shut = function(func([]js.Value) any {
		if mine == nil {
			return nil
		}
		closed()
		for _, f := range mine {
			f.Release()
		}
		mine = nil
		shut.Release()
		return nil
	})
	fields["close"] = shut
	return js.ValueOf(fields)
}

// problem is an error as JavaScript has it.
func problem(err error) map[string]any {
	verdict := "refused"
	switch {
	case errors.Is(err, attest.ErrRejected):
		verdict = "rejected"
	case errors.Is(err, attest.ErrUnavailable):
		verdict = "unavailable"
	}
	return map[string]any{"verdict": verdict, "reason": err.Error()}
}

func failed(err error) any { return map[string]any{"error": problem(err)} }

func open(args []js.Value) any {
	client, issued, err := clientOf(args)
	if err != nil {
		return map[string]any{"report": reportOf(nil, err)}
	}
	said := ""
	if !issued.IsZero() {
		said = issued.UTC().Format(time.RFC3339)
	}
	return object(map[string]any{
		"issued": said,
		"ask":    func([]js.Value) any { return question(client.Ask()) },
		"seen": func([]js.Value) any {
			text, err := json.Marshal(client.Seen(), json.Deterministic(true))
			if err != nil {
				panic(err) // our own types
			}
			return string(text)
		},
	}, func() {})
}

func clientOf(args []js.Value) (client *exchange.Client, issued time.Time, err error) {
	in, err := argument(args)
	if err != nil {
		return nil, issued, err
	}
	var c exchange.Config
	if c.Policy, c.Roots, issued, err = trusted(in); err != nil {
		return nil, issued, err
	}
	payer, err := textOf(in, "payer")
	if err != nil {
		return nil, issued, err
	}
	if payer != "" {
		if c.Payer, err = ton.Parse(payer); err != nil {
			return nil, issued, fmt.Errorf("reading arguments: payer: %w", err)
		}
	}
	seen, err := textOf(in, "seen")
	if err != nil {
		return nil, issued, err
	}
	if seen != "" {
		if err := json.Unmarshal([]byte(seen), &c.Seen, json.RejectUnknownMembers(true)); err != nil {
			return nil, issued, fmt.Errorf("reading arguments: seen: %w", err)
		}
	}
	client, err = exchange.New(c)
	return client, issued, err
}

func question(q *exchange.Question) js.Value {
	judge := js.Func{}
	judge = function(func(args []js.Value) any {
		defer judge.Release()
		if len(args) != 1 {
			return map[string]any{"report": reportOf(nil, errors.New("reading arguments: want one"))}
		}
		raw, err := copied(args[0], maxEvidenceBytes)
		if err != nil {
			return map[string]any{"report": reportOf(nil, err)}
		}
		guest, err := q.Judge(raw)
		if err != nil {
			return map[string]any{"report": reportOf(nil, err)}
		}
		return map[string]any{"report": reportOf(guest.Result(), nil), "guest": guestOf(guest)}
	})
	return js.ValueOf(map[string]any{"target": q.Target, "judge": judge})
}

func guestOf(g *exchange.Guest) js.Value {
	return object(map[string]any{
		"key":   g.KeyID(),
		"fresh": func([]js.Value) any { return g.Fresh() },
		"seal": func(args []js.Value) any {
			r, err := requestOf(args)
			if err != nil {
				return failed(err)
			}
			call, err := g.Seal(r)
			if err != nil {
				return failed(err)
			}
			return callOf(g, call)
		},
	}, func() {})
}

func requestOf(args []js.Value) (r exchange.Request, err error) {
	in, err := argument(args)
	if err != nil {
		return r, err
	}
	if r.Method, err = textOf(in, "method"); err != nil {
		return r, err
	}
	if r.Path, err = textOf(in, "path"); err != nil {
		return r, err
	}
	if r.Query, err = textOf(in, "query"); err != nil {
		return r, err
	}
	header := in.Get("header")
	if header.Type() != js.TypeObject || header.Length() > 4*64 {
		return r, errors.New("reading arguments: want header as a list of names and values")
	}
	for i := 0; i+1 < header.Length(); i += 2 {
		name, value := header.Index(i), header.Index(i+1)
		if name.Type() != js.TypeString || value.Type() != js.TypeString {
			return r, errors.New("reading arguments: want header as a list of names and values")
		}
		r.Header = append(r.Header, envelope.Field{Name: name.String(), Value: value.String()})
	}
	r.Body, err = bytesOf(in, "body", maxBodyBytes)
	return r, err
}

func callOf(g *exchange.Guest, c *exchange.Call) js.Value {
	told := false
	piece := func(data []byte, err error) any {
		out := map[string]any{"data": handed(data)}
		if h := c.Head(); h != nil && !told {
			told = true
			header := []any{}
			for _, f := range h.Header {
				header = append(header, f.Name, f.Value)
			}
			out["head"] = map[string]any{"status": h.Status, "header": header}
		}
		if err != nil {
			out["error"] = problem(err)
		}
		return out
	}
	return object(map[string]any{
		"sealed": handed(c.Sealed), "type": envelope.RequestType, "answerType": envelope.ResponseType, "keyHeader": envelope.KeyHeader, "key": g.KeyID(),
		"take": func(args []js.Value) any {
			if len(args) != 1 {
				return failed(errors.New("reading arguments: want one"))
			}
			raw, err := copied(args[0], math.MaxInt32)
			if err != nil {
				return failed(err)
			}
			return piece(c.Take(raw))
		},
		"end": func([]js.Value) any { return piece(c.End()) },
		"proof": func(args []js.Value) any {
			if c.Answer() == nil || len(args) != 1 || args[0].Type() != js.TypeString {
				return nil
			}
			return proofOf(c, args[0].String())
		},
		"clear": func(args []js.Value) any {
			if len(args) != 2 || args[0].Type() != js.TypeNumber {
				return failed(errors.New("reading arguments: want status and body"))
			}
			body, err := copied(args[1], 64<<10)
			if err != nil {
				body = nil // too long for what it could say
			}
			err = exchange.Clear(args[0].Int(), body)
			return map[string]any{"rekey": errors.Is(err, exchange.ErrRekey), "error": problem(err)}
		},
	}, c.Close)
}

// proven is what is proven of an answer, in JSON.
type proven struct {
	Name       string            `json:"name"` // of the receipt: its hash
	Sequence   uint64            `json:"sequence"`
	Instance   string            `json:"instance"`
	Outcome    string            `json:"outcome"`
	Usage      map[string]uint32 `json:"usage"`
	Weighted   uint64            `json:"weighted"`
	Cumulative uint64            `json:"cumulative"`
	Charge     *charged          `json:"charge,omitzero"`
	StepsBack  []string          `json:"steps_back"`
	// Bundle is what an auditor wants: chrysalis receipt verify reads it.
	Bundle proof.Bundle `json:"bundle"`
}

type charged struct {
	Tokens   uint64 `json:"tokens"`  // in all
	Nanoton  uint64 `json:"nanoton"` // what this answer costs
	Contract string `json:"contract"`
}

func proofOf(c *exchange.Call, url string) string {
	a := c.Answer()
	r, name := a.Receipt, a.Signed.Receipt.Hash()
	kept, shown, err := a.Keep(url, time.Now())
	if err != nil {
		panic(err) // it was decoded
	}
	p := proven{Name: hex.EncodeToString(name[:]), Sequence: r.Sequence, Instance: hex.EncodeToString(r.Instance[:]), Outcome: r.Outcome.String(),
		Usage:    map[string]uint32{"prompt_tokens": r.Usage.Prompt, "cached_tokens": r.Usage.Cached, "completion_tokens": r.Usage.Completion, "reasoning_tokens": r.Usage.Reasoning},
		Weighted: r.Weighted, Cumulative: r.Cumulative, StepsBack: append([]string{}, c.StepsBack()...),
		Bundle: proof.Bundle{Object: proof.BundleObject, Receipts: []proof.Kept{kept}, Evidence: map[string][]byte{kept.Evidence: shown}}}
	if a.Charge != nil {
		p.Charge = &charged{a.Charge.Tokens, r.Weighted * r.Price.NanotonPerToken, a.Charge.Contract.String()}
	}
	text, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		panic(err) // our own types
	}
	return string(text)
}

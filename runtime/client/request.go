package client

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/measure/config"
	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user, assistant or tool
	Content string `json:"content"`
	// Calls are those of an assistant's earlier turn. CallID names the one that a tool answers.
	Calls  []Call `json:"-"`
	CallID string `json:"tool_call_id,omitzero"`
}

// Tool is a function that the model may call.
type Tool struct {
	Name        string         `json:"name"`
	Description string         `json:"description,omitzero"`
	Parameters  jsontext.Value `json:"parameters,omitzero"` // JSON schema
}

// function is how the API writes a tool and a call of one.
type function[T any] struct {
	ID       string `json:"id,omitzero"`
	Type     string `json:"type"`
	Function T      `json:"function"`
}

// MarshalJSONTo writes the message as the API has it.
func (m Message) MarshalJSONTo(enc *jsontext.Encoder) error {
	type plain Message
	type called struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	}
	out := struct {
		plain
		Calls []function[called] `json:"tool_calls,omitzero"`
	}{plain: plain(m)}
	for _, c := range m.Calls {
		out.Calls = append(out.Calls, function[called]{c.ID, "function", called{c.Name, c.Arguments}})
	}
	return json.MarshalEncode(enc, out)
}

// Request is what a guest is asked: the settings of runtime/internal/gateway/API.md. The guest refuses others.
type Request struct {
	Model       string    `json:"model"` // default: the one that the guest's config names; of several one must be named
	Messages    []Message `json:"messages"`
	MaxTokens   uint32    `json:"max_tokens,omitzero"`  // default: the measured limit, to which more is cut
	Temperature *float64  `json:"temperature,omitzero"` // 0 to 2; default: the engine's
	TopP        *float64  `json:"top_p,omitzero"`       // above 0, to 1; default: the engine's
	Seed        *uint32   `json:"seed,omitzero"`        // default: random
	Stop        []string  `json:"stop,omitzero"`        // up to four texts that end the answer
	Tools       []Tool    `json:"-"`                    // functions that the model may call
	// ResponseFormat is the API's object of that name: {"type": "json_schema", …} makes the answer JSON of a schema.
	ResponseFormat jsontext.Value `json:"response_format,omitzero"`
	// Payer is the payment contract that is charged: one where the config charges, and none where it does not.
	Payer ton.Address `json:"-"`
	// Key is wanted where the config's charges are settled on chain: it names the contract, which Payer may then leave out, and shows its secret.
	Key api.Key `json:"-"`
	// MaxCoefficient is the most that tokens may be multiplied by there, in parts of 10000; default: what the config allows. A guest that would take
	// more refuses the request before it computes anything, and an answer that was counted by more is none.
	MaxCoefficient uint32 `json:"-"`
}

// payer returns who pays, and refuses a request that this config could not charge.
func (r Request) payer(m config.Measured) (ton.Address, error) {
	payer := r.Payer
	if r.Key != (api.Key{}) {
		of := ton.Address{Account: r.Key.Contract}
		if !payer.IsZero() && payer != of {
			return payer, fmt.Errorf("making request: Payer is %s, and the key is of %s", payer, of)
		}
		payer = of
	}
	switch charges := m.Service.Price.Payment == config.PayCharge; {
	case charges && payer.IsZero():
		return payer, errors.New("making request: this guest charges, and Payer names no payment contract")
	case !charges && !payer.IsZero():
		return payer, fmt.Errorf("making request: this guest charges nothing, but Payer is %s", payer)
	case m.Service.Settles() && r.Key == (api.Key{}):
		return payer, errors.New("making request: this guest settles on chain, and Key is none")
	case !m.Service.Settles() && r.MaxCoefficient != 0:
		return payer, errors.New("making request: this guest settles nothing on chain, and has no coefficient")
	case !m.Service.Settles() && r.Key != (api.Key{}):
		return payer, errors.New("making request: this guest settles nothing on chain, and need not see a key")
	}
	return payer, nil
}

// body returns the request as it is sent, and hashed into the receipt.
func (r Request) body(m config.Measured) ([]byte, error) {
	names := m.Service.Names()
	switch {
	case r.Model == "" && len(names) == 1:
		r.Model = names[0]
	case r.Model == "":
		return nil, fmt.Errorf("making request: it names no model, and the guest has %q", names)
	}
	var tools []function[Tool]
	for _, t := range r.Tools {
		tools = append(tools, function[Tool]{"", "function", t})
	}
	body, err := json.Marshal(struct {
		Request
		Tools  []function[Tool] `json:"tools,omitzero"`
		Stream bool             `json:"stream"`
	}{r, tools, true})
	if err != nil {
		return nil, fmt.Errorf("making request: %v", err)
	}
	return body, nil
}

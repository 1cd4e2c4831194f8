package client

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"

	"chrysalis/measure/config"
	"chrysalis/measure/ton"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user or assistant
	Content string `json:"content"`
}

// Request is what a guest is asked: the settings of runtime/internal/gateway/API.md. The guest refuses others.
type Request struct {
	Model       string    `json:"model"` // default: the one that the guest's config names
	Messages    []Message `json:"messages"`
	MaxTokens   uint32    `json:"max_tokens,omitzero"`  // default: the measured limit, to which more is cut
	Temperature *float64  `json:"temperature,omitzero"` // 0 to 2; default: the engine's
	TopP        *float64  `json:"top_p,omitzero"`       // above 0, to 1; default: the engine's
	Seed        *uint32   `json:"seed,omitzero"`        // default: random
	Stop        []string  `json:"stop,omitzero"`        // up to four texts that end the answer
	// Payer is the payment contract that is charged: one where the config charges, and none where it does not.
	Payer ton.Address `json:"-"`
}

// body returns the request as it is sent, and hashed into the receipt.
func (r Request) body(m config.Measured) ([]byte, error) {
	if charges := m.Service.Price.Payment == config.PayCharge; charges && r.Payer.IsZero() {
		return nil, errors.New("making request: this guest charges, and Payer names no payment contract")
	} else if !charges && !r.Payer.IsZero() {
		return nil, fmt.Errorf("making request: this guest charges nothing, but Payer is %s", r.Payer)
	}
	if r.Model == "" {
		r.Model = m.Service.Model.Name
	}
	body, err := json.Marshal(struct {
		Request
		Stream bool `json:"stream"`
	}{r, true})
	if err != nil {
		return nil, fmt.Errorf("making request: %v", err)
	}
	return body, nil
}

package receipt

import (
	"crypto/sha256"
	"hash"
)

// ResponseHash computes the Response of a receipt while an answer streams. Client and guest use the same one.
type ResponseHash struct {
	content, reasoning hash.Hash
	calls              []callHash
}

type callHash struct{ id, name, arguments hash.Hash }

// NewResponseHash returns the hash of an answer that has no text yet.
func NewResponseHash() *ResponseHash {
	return &ResponseHash{content: sha256.New(), reasoning: sha256.New()}
}

// Content adds text of the answer.
func (h *ResponseHash) Content(text []byte) { h.content.Write(text) }

// Reasoning adds text of the reasoning before the answer.
func (h *ResponseHash) Reasoning(text []byte) { h.reasoning.Write(text) }

// MaxCalls bounds the calls of tools in an answer.
const MaxCalls = 128

// Call adds to the call of a tool that has an index: one that is there already, or the next one. It reports whether it is one of these.
func (h *ResponseHash) Call(index int, id, name, arguments []byte) bool {
	if index < 0 || index > len(h.calls) || index >= MaxCalls {
		return false
	}
	if index == len(h.calls) {
		h.calls = append(h.calls, callHash{sha256.New(), sha256.New(), sha256.New()})
	}
	c := h.calls[index]
	c.id.Write(id)
	c.name.Write(name)
	c.arguments.Write(arguments)
	return true
}

// Sum returns SHA-256 of the reasoning's SHA-256 and then the content's; where tools are called, then follows SHA-256 of what the calls
// hash to, each id, name and arguments. How the text was cut into pieces does not matter, so a streamed answer and the same answer in one
// piece have one hash.
func (h *ResponseHash) Sum() [32]byte {
	said := h.content.Sum(h.reasoning.Sum(nil))
	if len(h.calls) == 0 {
		return sha256.Sum256(said)
	}
	var calls []byte
	for _, c := range h.calls {
		calls = c.arguments.Sum(c.name.Sum(c.id.Sum(calls)))
	}
	of := sha256.Sum256(calls)
	return sha256.Sum256(append(said, of[:]...))
}

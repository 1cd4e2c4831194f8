package receipt

import (
	"crypto/sha256"
	"hash"
)

// ResponseHash computes the Response of a receipt while an answer streams. Client and guest use the same one.
type ResponseHash struct {
	content, reasoning hash.Hash
}

// NewResponseHash returns the hash of an answer that has no text yet.
func NewResponseHash() *ResponseHash {
	return &ResponseHash{content: sha256.New(), reasoning: sha256.New()}
}

// Content adds text of the answer.
func (h *ResponseHash) Content(text []byte) { h.content.Write(text) }

// Reasoning adds text of the reasoning before the answer.
func (h *ResponseHash) Reasoning(text []byte) { h.reasoning.Write(text) }

// Sum returns SHA-256 of the reasoning's SHA-256 and then the content's. How the text was cut into pieces does not
// matter, so a streamed answer and the same answer in one piece have one hash.
func (h *ResponseHash) Sum() [32]byte {
	return sha256.Sum256(h.content.Sum(h.reasoning.Sum(nil)))
}

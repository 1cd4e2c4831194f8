package receipt

import (
	"chrysalis/measure/ton"
	"chrysalis/runtime/claim"
)

// AnswerID names one answer. The guest draws it at random, so that an answer that is recorded twice is counted once.
type AnswerID [16]byte

// Answer is what the guest knows of an answer when it ends: what a receipt, and a charge, are made of.
type Answer struct {
	ID       AnswerID
	Model    uint8       // which of the config's models answered, by its place there
	Client   ton.Address // the client's payment contract; zero when nobody pays
	Request  [32]byte    // as in Receipt
	Response [32]byte
	Usage    Usage
	Outcome  Outcome
	// Coefficient is as in Receipt.
	Coefficient uint32
}

// Proof is what a client gets for an answer. Charge is nil when nobody pays.
type Proof struct {
	Receipt *Signed
	Charge  *claim.Body
}

// Package lending carries a secret from a custodian to one borrower, or for good to another custodian, over mutually attested TLS. CUSTODY.md
// beside this package is the protocol.
//
// Each side judges the other with the production verifier, under what the identity of both says, before the secret is on the way: the
// borrower the lender as every client does its guest; the lender the borrower by evidence that it has no secret yet, over a nonce of the
// lender's, this very connection, and the key with which the borrower ends it. Whoever relays that ends two connections, and has neither
// exporter.
//
//	lender, err := lending.NewLender(side, attested, ask)       // the custodian's guest
//	loan, err := lending.Borrow(ctx, conn, side, list, quote)   // the borrower
//	err = loan.Keep(ctx)
//
//	giver, err := lending.Reach(ctx, conn, side, list, quote)   // a custodian that takes the secret over
//	loan, err := giver.Move(ctx)
//	err = giver.Moved(ctx, loan.Number, loan.Secret.Moved(loan.Number))   // once it is sealed there
//
// What this package does not promise: that two clocks go alike, or that a date is today's. Both are the host's.
package lending

import "time"

// The requests, in the order in which a borrower makes them, each a POST over the one connection.
const (
	pathChallenge = "/v1/custody/challenge"
	pathLoan      = "/v1/custody/loan"
	pathRenew     = "/v1/custody/renew"
	pathCount     = "/v1/custody/count"
	pathBack      = "/v1/custody/back"
	pathMove      = "/v1/custody/move"
	pathMoved     = "/v1/custody/moved"
)

const (
	nonceBytes = 32
	// movedBytes is the body of pathMoved: number (u64, little endian) and proof.
	movedBytes = 8 + 32
	// maxListBytes bounds the release list in front of a borrower's evidence.
	maxListBytes = 256 << 10
	// maxTextBytes bounds what is read or written of a refusal.
	maxTextBytes = 1 << 10
	// askingLife is how far ahead the not-after of a borrower's statement lies.
	askingLife = 10 * time.Minute
)

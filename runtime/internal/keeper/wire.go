package keeper

import (
	"encoding/binary"
	"fmt"

	"chrysalis/runtime/claim"
	"chrysalis/runtime/receipt"
)

// Both directions have one fixed size, so that neither side ever reads a length from the other.
const (
	requestSize  = 1 + 16 + 1 + 32 + 32 + 32 + 4*4 + 1 + 4 + 1
	responseSize = 1 + 1 + receipt.Size + claim.BodySize
)

// Flags of a response.
const (
	flagCharge = 1  // a charge follows the receipt
	flagPlace  = 2  // the connection holds a place
	flagText   = 4  // the signature of a text stands where a receipt would
	flagCounts = 8  // counts stand there
	flagUsed   = 16 // what a key has used stands there
)

func encodeRequest(op operation, r receipt.Answer) [requestSize]byte {
	var out [requestSize]byte
	b := append(append(out[:0], byte(op)), r.ID[:]...)
	b = append(append(b, byte(r.Client.Workchain)), r.Client.Account[:]...)
	b = append(append(b, r.Request[:]...), r.Response[:]...)
	for _, n := range []uint32{r.Usage.Prompt, r.Usage.Cached, r.Usage.Completion, r.Usage.Reasoning} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	_ = append(binary.LittleEndian.AppendUint32(append(b, byte(r.Outcome)), r.Coefficient), r.Model)
	return out
}

// decodeRequest refuses operations that do not exist, and a record, or a part of one, where there should be none.
func decodeRequest(in [requestSize]byte) (op operation, r receipt.Answer, err error) {
	b := in[:]
	take := func(n int) []byte { part := b[:n]; b = b[n:]; return part }
	op = operation(take(1)[0])
	copy(r.ID[:], take(16))
	r.Client.Workchain = int8(take(1)[0])
	copy(r.Client.Account[:], take(32))
	copy(r.Request[:], take(32))
	copy(r.Response[:], take(32))
	for _, n := range []*uint32{&r.Usage.Prompt, &r.Usage.Cached, &r.Usage.Completion, &r.Usage.Reasoning} {
		*n = binary.LittleEndian.Uint32(take(4))
	}
	r.Outcome = receipt.Outcome(take(1)[0])
	r.Coefficient = binary.LittleEndian.Uint32(take(4))
	r.Model = take(1)[0]
	switch op {
	case opRecord:
	case opReserve:
		if r != (receipt.Answer{Client: r.Client, Request: r.Request, Coefficient: r.Coefficient,
			Usage: receipt.Usage{Prompt: r.Usage.Prompt, Completion: r.Usage.Completion}}) {
			return 0, receipt.Answer{}, fmt.Errorf("operation %d carries more than a client, a hash, tokens and a coefficient", op)
		}
	case opKey:
		if r != (receipt.Answer{ID: r.ID, Client: r.Client, Request: r.Request, Response: r.Response,
			Usage: receipt.Usage{Prompt: r.Usage.Prompt, Cached: r.Usage.Cached}}) {
			return 0, receipt.Answer{}, fmt.Errorf("operation %d carries more than a name, a client, two hashes and a cap", op)
		}
	case opCount:
		if r != (receipt.Answer{}) {
			return 0, receipt.Answer{}, fmt.Errorf("operation %d carries a record", op)
		}
	case opVouch:
		if r != (receipt.Answer{ID: r.ID, Response: r.Response}) {
			return 0, receipt.Answer{}, fmt.Errorf("operation %d carries more than an id and a hash", op)
		}
	default:
		return 0, receipt.Answer{}, fmt.Errorf("operation is %d, want 1, 2, 4, 5 or 7", op)
	}
	return op, r, nil
}

func encodeResponse(r reply) [responseSize]byte {
	var out [responseSize]byte
	out[0] = byte(r.status)
	if r.proof.Receipt != nil {
		copy(out[2:], r.proof.Receipt[:])
	}
	if r.text != (receipt.TextSignature{}) {
		out[1] |= flagText
		copy(out[2:], r.text[:])
	}
	if r.counts != (Counts{}) {
		out[1] |= flagCounts
		for i, n := range []uint64{r.counts.Bytes, r.counts.Receipts, r.counts.Contracts, r.counts.Left, r.counts.Waiting} {
			binary.LittleEndian.PutUint64(out[2+8*i:], n)
		}
	}
	if r.used != 0 {
		out[1] |= flagUsed
		binary.LittleEndian.PutUint64(out[2:], r.used)
	}
	if r.place {
		out[1] |= flagPlace
	}
	if r.proof.Charge != nil {
		out[1] |= flagCharge
		copy(out[2+receipt.Size:], r.proof.Charge[:])
	}
	return out
}

func decodeResponse(in [responseSize]byte) (reply, error) {
	r := reply{status: status(in[0])}
	if r.status > statusChain || in[1] > flagCharge|flagPlace|flagText|flagCounts|flagUsed {
		return reply{}, fmt.Errorf("response has status %d and flags %#x", in[0], in[1])
	}
	r.place = in[1]&flagPlace != 0
	signed := receipt.Signed(in[2:])
	switch {
	case r.status != statusOK:
	case in[1]&flagCounts != 0:
		for i, n := range []*uint64{&r.counts.Bytes, &r.counts.Receipts, &r.counts.Contracts, &r.counts.Left, &r.counts.Waiting} {
			*n = binary.LittleEndian.Uint64(in[2+8*i:])
		}
	case in[1]&flagUsed != 0:
		r.used = binary.LittleEndian.Uint64(in[2:])
	case in[1]&flagText != 0:
		r.text = receipt.TextSignature(in[2:])
	case signed != (receipt.Signed{}):
		r.proof.Receipt = &signed
	}
	if in[1]&flagCharge != 0 {
		body := claim.Body(in[2+receipt.Size:])
		r.proof.Charge = &body
	}
	return r, nil
}

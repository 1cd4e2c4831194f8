package gateway

import (
	"context"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/collect"
)

const (
	quoteEvery   = time.Second
	quoteWait    = 20 * time.Second
	maxQuestions = 4096 // that wait for the next quote
)

var errNoEvidence = &refusal{status: http.StatusServiceUnavailable, code: "no_evidence", message: "no quote could be had: try again later"}

// serveEvidence answers a challenge with evidence that is bound to this connection and no other.
func (g *Gateway) serveEvidence(w http.ResponseWriter, r *http.Request) error {
	nonce, err := parseNonce(r.URL.RawQuery)
	if err != nil {
		return err
	}
	exported, err := r.TLS.ExportKeyingMaterial(attest.ExporterLabel, nil, 32)
	keys := g.keys.of(r.Context())
	if err != nil || keys == nil {
		return errNoEvidence
	}
	evidence, err := g.evidence.ask(r.Context(), keys, attest.Leaf(nonce, [32]byte(exported)))
	if err != nil {
		g.config.Log.Warn("no evidence", "error", err)
		return errNoEvidence
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.Itoa(len(evidence)))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(evidence) // the client may be gone
	return nil
}

// parseNonce takes exactly nonce=<64 lower-case hexadecimal digits>.
func parseNonce(query string) (nonce [32]byte, err error) {
	text, ok := strings.CutPrefix(query, "nonce=")
	raw, err := hex.DecodeString(text)
	if !ok || err != nil || len(raw) != len(nonce) || strings.ToLower(text) != text {
		return nonce, refuse("nonce", "want ?nonce= and 64 lower-case hexadecimal digits")
	}
	return [32]byte(raw), nil
}

// question is one challenge that waits for a quote.
type question struct {
	keys  *keySet
	leaf  [32]byte
	reply chan answered // of one
}

type answered struct {
	evidence []byte
	err      error
}

// batcher answers challenges. One goroutine asks for quotes, at most one a second; what comes in meanwhile shares the next.
type batcher struct {
	quoter    Quoter
	questions chan question
}

func newBatcher(q Quoter) *batcher {
	return &batcher{quoter: q, questions: make(chan question, maxQuestions)}
}

func (b *batcher) ask(ctx context.Context, keys *keySet, leaf [32]byte) ([]byte, error) {
	q := question{keys, leaf, make(chan answered, 1)}
	select {
	case b.questions <- q:
	default:
		return nil, errBusy
	}
	select {
	case a := <-q.reply:
		return a.evidence, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (b *batcher) run(ctx context.Context) {
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case first := <-b.questions:
			if wait := quoteEvery - time.Since(last); wait > 0 {
				select {
				case <-ctx.Done():
					return
				case <-time.After(wait):
				}
			}
			last = time.Now()
			b.answer(ctx, b.gather(first))
		}
	}
}

// gather takes what waits, in groups of one TLS key: a statement names one.
func (b *batcher) gather(first question) map[*keySet][]question {
	groups := map[*keySet][]question{first.keys: {first}}
	for {
		select {
		case q := <-b.questions:
			groups[q.keys] = append(groups[q.keys], q)
		default:
			return groups
		}
	}
}

func (b *batcher) answer(ctx context.Context, groups map[*keySet][]question) {
	for keys, group := range groups {
		replies, err := b.quote(ctx, keys, group)
		for i, q := range group {
			if err != nil {
				q.reply <- answered{err: err}
			} else {
				q.reply <- answered{evidence: replies[i]}
			}
		}
	}
}

// quote gets one quote for a group and returns each question's evidence.
func (b *batcher) quote(ctx context.Context, keys *keySet, group []question) ([][]byte, error) {
	leaves := make([][32]byte, len(group))
	for i, q := range group {
		leaves[i] = q.leaf
	}
	root, paths, err := attest.Batch(leaves)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, quoteWait)
	defer cancel()
	evidence, err := b.quoter.Quote(ctx, collect.Request{NonceRoot: root, TLSKey: keys.spki, Epoch: keys.epoch, NotAfter: uint64(keys.notAfter.Unix())})
	if err != nil {
		return nil, err
	}
	replies := make([][]byte, len(group))
	for i := range group {
		one := *evidence
		one.Path = paths[i]
		if replies[i], err = one.Encode(); err != nil {
			return nil, err
		}
	}
	return replies, nil
}

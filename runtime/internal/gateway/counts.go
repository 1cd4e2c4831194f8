package gateway

import (
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"chrysalis/runtime/numbers"
	"chrysalis/runtime/receipt"
)

// counts are the counters of what became of requests, by the numbers' table. They tell nothing of any text.
type counts [numbers.Count]atomic.Uint64

// refused counts a refusal of a request for an answer by its class.
func (c *counts) refused(r *refusal) { c[refusalClass(r)].Add(1) }

// refusalClass says whose fault a refusal is.
func refusalClass(r *refusal) numbers.Number {
	switch {
	case r.status == http.StatusTooManyRequests:
		return numbers.RefusedBusy
	case r.code == errFull.code:
		return numbers.RefusedFull
	case r.code == errKeeper.code, r.code == errChain.code:
		return numbers.RefusedUnrecorded
	case r.status >= 500:
		return numbers.RefusedEngine
	}
	return numbers.RefusedInvalid
}

// recorded counts an answer that the keeper has.
func (c *counts) recorded(a receipt.Answer) {
	which := numbers.Answered
	if a.Outcome != receipt.Complete {
		which = numbers.Cut
	}
	c[which].Add(1)
	c[numbers.PromptTokens].Add(scattered(a.Usage.Prompt, rand.Uint64N(numbers.TokenStep)))
	c[numbers.CompletionTokens].Add(scattered(a.Usage.Completion, rand.Uint64N(numbers.TokenStep)))
}

// spoke counts a stream's first words, so long after its request. Answers in one piece have none: a host sees when a stream's first packet
// leaves, and of the others would learn how long their prompts took.
func (c *counts) spoke(after time.Duration) {
	c[numbers.Begun].Add(1)
	c[numbers.FirstToken].Add(uint64(after.Milliseconds()))
}

// scattered returns tokens in whole steps: what is left over counts as one step more with the chance that it has of one. Sums come out right,
// and whoever asks himself until a sum moves learns nothing of what others were answered, which a sum that is merely cut would tell.
func scattered(tokens uint32, chance uint64) uint64 {
	whole := uint64(tokens) / numbers.TokenStep * numbers.TokenStep
	if chance < uint64(tokens)%numbers.TokenStep {
		whole += numbers.TokenStep
	}
	return whole
}

// Numbers returns what the gateway counts, as of now; what the keeper knows is zero.
func (g *Gateway) Numbers() (v numbers.Values) {
	for n := range v {
		v[n] = g.counted[n].Load()
	}
	var total, taken, waiting, uncounted int
	for _, m := range g.served {
		places, computing, waits := m.places.stand()
		_, _, counted := m.counts.stand() // prompts that wait to be counted, before they wait for a place
		total, taken, waiting, uncounted = total+places, taken+computing, waiting+waits, uncounted+counted
	}
	ends, made := g.attested.Instants()
	v[numbers.Places], v[numbers.Computing], v[numbers.Waiting] = uint64(total), uint64(taken), uint64(waiting+uncounted)
	v[numbers.KeyEnds], v[numbers.EvidenceMade] = uint64(max(ends.Unix(), 0)), uint64(max(made.Unix(), 0))
	return v
}

package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	envelope "chrysalis/runtime/envelope"
	"chrysalis/runtime/numbers"
	"chrysalis/runtime/receipt"
)

// TestCounts: each thing that can become of a request moves the numbers that are its, and no other.
func TestCounts(t *testing.T) {
	full := func(b *bench) { b.keeper.onTake = fmt.Errorf("taking: %w", ErrFull) }
	for _, tt := range []struct {
		name  string
		set   func(*bench)
		tweak func(*Gateway)
		body  string
		moves numbers.Values
	}{
		{name: "a whole answer", body: ask(""), moves: numbers.Values{numbers.Asked: 1, numbers.Answered: 1, numbers.PromptTokens: 14, numbers.CompletionTokens: 5}},
		{name: "a streamed answer", body: ask(`,"stream":true`),
			moves: numbers.Values{numbers.Begun: 1, numbers.FirstToken: 1, numbers.Asked: 1, numbers.Answered: 1, numbers.PromptTokens: 14, numbers.CompletionTokens: 5}},
		{name: "an answer that was cut", body: ask(`,"stream":true`), set: func(b *bench) { b.engine.set(func(w *engineWriter) { w.begin(14); w.text("x"); w.conn() }) },
			moves: numbers.Values{numbers.Begun: 1, numbers.FirstToken: 1, numbers.Asked: 1, numbers.Cut: 1, numbers.PromptTokens: 14, numbers.CompletionTokens: 1}},
		{name: "no request", body: "{", moves: numbers.Values{numbers.Asked: 1, numbers.RefusedInvalid: 1}},
		{name: "no memory", body: ask(""), tweak: func(g *Gateway) { g.bodies = newBudget(0) }, moves: numbers.Values{numbers.Asked: 1, numbers.RefusedBusy: 1}},
		{name: "a full journal", body: ask(""), set: full, moves: numbers.Values{numbers.Asked: 1, numbers.RefusedFull: 1}},
		{name: "no keeper", body: ask(""), set: func(b *bench) { b.keeper.onTake = errTest }, moves: numbers.Values{numbers.Asked: 1, numbers.RefusedUnrecorded: 1}},
		{name: "not recorded", body: ask(""), set: func(b *bench) { b.keeper.onRecord = errTest },
			moves: numbers.Values{numbers.Asked: 1, numbers.RefusedUnrecorded: 1}},
		{name: "a stream that says nothing", body: ask(`,"stream":true`), set: func(b *bench) { b.engine.set(func(w *engineWriter) { w.begin(14); w.conn() }) },
			moves: numbers.Values{numbers.Asked: 1, numbers.RefusedEngine: 1}},
		{name: "a stream not recorded", body: ask(`,"stream":true`), set: func(b *bench) { b.keeper.onRecord = errTest },
			moves: numbers.Values{numbers.Begun: 1, numbers.FirstToken: 1, numbers.Asked: 1, numbers.RefusedUnrecorded: 1}},
		{name: "no engine", body: ask(""), set: func(b *bench) { b.engine.path += ".gone" }, moves: numbers.Values{numbers.Asked: 1, numbers.RefusedEngine: 1}},
		{name: "an engine that ends", body: ask(""), set: func(b *bench) { b.engine.set(func(w *engineWriter) { w.begin(14); w.conn() }) },
			moves: numbers.Values{numbers.Asked: 1, numbers.RefusedEngine: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tweaks []func(*Gateway)
			if tt.tweak != nil {
				tweaks = append(tweaks, tt.tweak)
			}
			b := startBench(t, nil, tweaks...)
			if tt.set != nil {
				tt.set(b)
			}
			b.post(t, tt.body)
			wantCounts(t, b.gateway, tt.moves)
		})
	}
}

// TestScattered: sums of tokens come out right over all that chance can do, in whole steps.
func TestScattered(t *testing.T) {
	for _, tokens := range []uint32{0, 1, 14, 999, 1000, 1001, 2500, 1<<32 - 1} {
		var sum uint64
		for chance := range uint64(numbers.TokenStep) {
			n := scattered(tokens, chance)
			if n%numbers.TokenStep != 0 || n > uint64(tokens)+numbers.TokenStep || uint64(tokens) > n+numbers.TokenStep {
				t.Fatalf("%d tokens are counted as %d", tokens, n)
			}
			sum += n
		}
		if sum != uint64(tokens)*numbers.TokenStep {
			t.Errorf("%d tokens come out as %d over all chances, want %d", tokens, sum, uint64(tokens)*numbers.TokenStep)
		}
	}
	moved := map[uint64]bool{}
	for range 1000 {
		var c counts
		c.recorded(receipt.Answer{Usage: receipt.Usage{Prompt: 500}})
		moved[c[numbers.PromptTokens].Load()] = true
	}
	if !moved[0] || !moved[numbers.TokenStep] {
		t.Errorf("500 tokens are counted as %v, want now none and now a step", moved)
	}
}

// wantCounts compares the counters alone.
func wantCounts(t *testing.T, g *Gateway, want numbers.Values) {
	t.Helper()
	got := g.Numbers()
	for _, n := range numbers.All() {
		if n.Row().Unit == "milliseconds" { // a time: some or none
			if got[n] > 0 && want[n] == 0 {
				t.Errorf("%s: got %d, want none", n.Row().Name, got[n])
			}
			continue
		}
		if n.Row().Step > 1 { // by chance a step or none
			if got[n] > 0 && want[n] == 0 || got[n]%n.Row().Step != 0 || got[n] > n.Row().Step {
				t.Errorf("%s: got %d, want 0 or one step for %d", n.Row().Name, got[n], want[n])
			}
			continue
		}
		if n.Row().Kind == numbers.Counter && got[n] != want[n] {
			t.Errorf("%s: got %d, want %d", n.Row().Name, got[n], want[n])
		}
	}
}

// TestFirstToken: the time to a stream's first words lies between what the engine took to them and what the client waited for all, and goes on adding up.
// Nearer it is not held: a busy machine hears the first word later than it was said.
func TestFirstToken(t *testing.T) {
	const before = 40 * time.Millisecond
	b := startBench(t, nil)
	b.engine.set(func(w *engineWriter) {
		time.Sleep(before)
		w.begin(14)
		w.text("x")
		w.end(14, 1)
	})
	var waited time.Duration
	for i := range uint64(2) {
		began := time.Now()
		b.post(t, ask(`,"stream":true`))
		waited += time.Since(began)
		v := b.gateway.Numbers()
		took, n := time.Duration(v[numbers.FirstToken])*time.Millisecond, time.Duration(i+1)
		if v[numbers.Begun] != i+1 || took < n*before || took > waited {
			t.Errorf("after %d streams: %d begun, %s to their first words, want %s to %s", n, v[numbers.Begun], took, n*before, waited)
		}
	}
}

// TestCountsOfEnvelopes: what is in an envelope is counted once, and an envelope that does not open as a request that is none.
func TestCountsOfEnvelopes(t *testing.T) {
	b := startSealed(t, nil)
	if _, _, err := b.exchange(t, b.seal(t, ask(""))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.exchange(t, b.seal(t, "{")); err != nil {
		t.Fatal(err)
	}
	r := b.request(t, t.Context(), strings.Repeat("x", 2000))
	r.Header.Set("Content-Type", envelope.RequestType)
	if status, _ := b.do(t, r); status == http.StatusOK {
		t.Error("a request that is no envelope is answered")
	}
	wantCounts(t, b.gateway, numbers.Values{numbers.Challenges: 1, numbers.Asked: 3, numbers.Answered: 1, numbers.RefusedInvalid: 2, numbers.PromptTokens: 14, numbers.CompletionTokens: 5})
}

// TestGauges: places, queue and keys are those of now, and evidence is counted where it is asked for.
func TestGauges(t *testing.T) {
	b := startBench(t, func(c *Config) { c.Models[0].Concurrent = 1 })
	before := time.Now()
	v := b.gateway.Numbers()
	if ends, made := time.Unix(int64(v[numbers.KeyEnds]), 0), time.Unix(int64(v[numbers.EvidenceMade]), 0); ends.Before(before.Add(time.Hour)) ||
		made.Before(before.Add(-time.Minute)) || made.After(time.Now()) {
		t.Errorf("keys until %s, evidence of %s, want an hour from now and now", ends, made)
	}
	if v[numbers.Places] != 1 || v[numbers.Computing] != 0 || v[numbers.Waiting] != 0 {
		t.Errorf("at rest: got %d places, %d computed, %d wait", v[numbers.Places], v[numbers.Computing], v[numbers.Waiting])
	}
	begun, release := make(chan struct{}, 2), make(chan struct{})
	b.engine.set(func(w *engineWriter) { begun <- struct{}{}; <-release; w.text("x"); w.end(1, 1) })
	done := make(chan struct{}, 2)
	for range 2 {
		go func() {
			if response, err := b.http.Do(b.request(t, t.Context(), ask(""))); err == nil {
				response.Body.Close()
			}
			done <- struct{}{}
		}()
	}
	<-begun
	for v = b.gateway.Numbers(); v[numbers.Waiting] == 0; v = b.gateway.Numbers() {
		time.Sleep(time.Millisecond)
	}
	if v[numbers.Computing] != 1 || v[numbers.Waiting] != 1 {
		t.Errorf("with two requests: got %d computed, %d wait, want one each", v[numbers.Computing], v[numbers.Waiting])
	}
	close(release)
	<-done
	<-done
	if response, err := b.http.Get(b.url + "/v1/evidence?nonce=" + strings.Repeat("0", 64)); err != nil {
		t.Error(err)
	} else {
		response.Body.Close()
	}
	if v := b.gateway.Numbers(); v[numbers.Challenges] != 1 {
		t.Errorf("got %d challenges, want 1", v[numbers.Challenges])
	}
}

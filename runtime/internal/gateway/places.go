package gateway

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"chrysalis/measure/ton"
)

// who is whom a request is counted for: an address, and the payer that it names. An address that names many payers is one address.
type who struct {
	address netip.Prefix
	payer   ton.Address
}

// places are what requests are computed in. A place that becomes free goes to whoever has the fewest of them, by address and then by payer,
// and among equals to who did not get the last one, or else came first. When as many wait as may, a newcomer takes the turn of the last of those who have the most.
type places struct {
	mu      sync.Mutex
	free    int
	most    int // of those who wait
	waiting []*waiter
	ofAddr  map[netip.Prefix]int // places taken
	of      map[who]int
	last    who           // who got the last place
	took    time.Duration // about how long a place is taken, moving
	count   int           // places in all
}

type waiter struct {
	who    who
	answer chan error // nil: the place is this one's
}

func newPlaces(n, most int) *places {
	return &places{free: n, most: most, ofAddr: map[netip.Prefix]int{}, of: map[who]int{}, count: n, took: time.Second}
}

// stand returns how many places there are, how many are taken, and how many requests wait.
func (p *places) stand() (total, taken, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count, p.count - p.free, len(p.waiting)
}

// enter waits for a place. The refusal that it returns says how many wait, and for how long they will.
func (p *places) enter(ctx context.Context, w who, patience time.Duration) (leave func(), err error) {
	p.mu.Lock()
	if p.free > 0 && len(p.waiting) == 0 {
		p.grant(w)
		p.mu.Unlock()
		return p.leave(w), nil
	}
	if len(p.waiting) >= p.most && !p.displace(w) {
		defer p.mu.Unlock()
		return nil, p.busy()
	}
	me := &waiter{w, make(chan error, 1)}
	p.waiting = append(p.waiting, me)
	p.mu.Unlock()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case err = <-me.answer:
	case <-ctx.Done():
		err = p.giveUp(me)
	case <-timeout.C:
		err = p.giveUp(me)
	}
	if err != nil {
		return nil, err
	}
	return p.leave(w), nil
}

// giveUp takes a waiter out. One that has got a place in the same moment has it.
func (p *places) giveUp(me *waiter) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.Index(p.waiting, me)
	if at < 0 {
		return <-me.answer
	}
	p.waiting = slices.Delete(p.waiting, at, at+1)
	return p.busy()
}

// grant counts a place as taken. p is locked.
func (p *places) grant(w who) {
	p.free--
	p.ofAddr[w.address]++
	p.of[w]++
	p.last = w
}

// leave returns what gives a place back.
func (p *places) leave(w who) func() {
	began := time.Now()
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.took += (time.Since(began) - p.took) / 8
		p.free++
		if p.ofAddr[w.address]--; p.ofAddr[w.address] == 0 {
			delete(p.ofAddr, w.address)
		}
		if p.of[w]--; p.of[w] == 0 {
			delete(p.of, w)
		}
		p.next()
	}
}

// next gives a free place away. p is locked.
func (p *places) next() {
	if p.free == 0 || len(p.waiting) == 0 {
		return
	}
	best := 0
	for i, w := range p.waiting {
		if p.fewer(w.who, p.waiting[best].who) {
			best = i
		}
	}
	w := p.waiting[best]
	p.waiting = slices.Delete(p.waiting, best, best+1)
	p.grant(w.who)
	w.answer <- nil
}

// fewer reports whether a comes before b: it has fewer places, or as many and did not get the last one.
func (p *places) fewer(a, b who) bool {
	count := func(places int, got bool) int {
		if got {
			return 2*places + 1
		}
		return 2 * places
	}
	if x, y := count(p.ofAddr[a.address], a.address == p.last.address), count(p.ofAddr[b.address], b.address == p.last.address); x != y {
		return x < y
	}
	return count(p.of[a], a == p.last) < count(p.of[b], b == p.last)
}

// displace turns the last of those away who have the most places and turns, if a newcomer has fewer by more than one. p is locked.
func (p *places) displace(newcomer who) bool {
	addresses, payers := map[netip.Prefix]int{}, map[who]int{}
	for _, w := range p.waiting {
		addresses[w.who.address]++
		payers[w.who]++
	}
	load := func(w who) (int, int) { return p.ofAddr[w.address] + addresses[w.address], p.of[w] + payers[w] }
	last := -1
	var byAddress, byPayer int
	for i, w := range p.waiting {
		if x, y := load(w.who); last < 0 || x > byAddress || x == byAddress && y >= byPayer {
			last, byAddress, byPayer = i, x, y
		}
	}
	if last < 0 {
		return false
	}
	x, y := load(newcomer)
	heaviest := p.waiting[last]
	if heaviest.who.address == newcomer.address {
		x = byAddress // the address is the same: its payers decide
	}
	if byAddress <= x+1 && (byAddress != x || byPayer <= y+1) {
		return false
	}
	p.waiting = slices.Delete(p.waiting, last, last+1)
	heaviest.answer <- p.busy()
	return true
}

// busy is the refusal of now. p is locked.
func (p *places) busy() *refusal {
	r := *errBusy
	r.waiting = len(p.waiting)
	wait := p.took * time.Duration(len(p.waiting)+1) / time.Duration(p.count)
	r.retryAfter = min(max(int((wait+time.Second-1)/time.Second), 1), 60)
	return &r
}

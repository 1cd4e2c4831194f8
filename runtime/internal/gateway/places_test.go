package gateway

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"chrysalis/measure/ton"
)

func client(address byte, payer byte) who {
	w := who{address: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, address}), 32)}
	w.payer.Account[0] = payer
	return w
}

// crowd are requests at places, which are told apart by a number each.
type crowd struct {
	t      *testing.T
	p      *places
	ended  chan int // who entered, or minus who was turned away
	leaves map[int]func()
}

// come has a request come, and returns when it has a place, waits, or was turned away.
func (c *crowd) come(n int, w who) {
	c.t.Helper()
	c.p.mu.Lock()
	before := len(c.p.waiting)
	c.p.mu.Unlock()
	done := make(chan func(), 1)
	go func() {
		leave, err := c.p.enter(context.Background(), w, time.Minute)
		done <- leave
		if err != nil {
			c.ended <- -n
			return
		}
		c.ended <- n
	}()
	for range 5000 {
		select {
		case leave := <-done:
			c.leaves[n] = leave
			return
		default:
		}
		c.p.mu.Lock()
		waits := len(c.p.waiting) > before || before == c.p.most && c.p.waiting[len(c.p.waiting)-1].who == w
		c.p.mu.Unlock()
		if waits {
			go func() {
				leave := <-done
				c.p.mu.Lock()
				c.leaves[n] = leave
				c.p.mu.Unlock()
			}()
			return
		}
		time.Sleep(time.Millisecond)
	}
	c.t.Fatalf("request %d neither entered nor waits", n)
}

func (c *crowd) next() int {
	c.t.Helper()
	select {
	case n := <-c.ended:
		return n
	case <-time.After(10 * time.Second):
		c.t.Fatal("nobody entered, and nobody was turned away")
		return 0
	}
}

// leave has a request leave its place.
func (c *crowd) leave(n int) {
	for range 5000 {
		c.p.mu.Lock()
		leave := c.leaves[n]
		c.p.mu.Unlock()
		if leave != nil {
			leave()
			return
		}
		time.Sleep(time.Millisecond)
	}
	c.t.Fatalf("request %d has no place", n)
}

func TestPlacesAreFair(t *testing.T) {
	type arrival struct {
		n   int
		who who
	}
	a, b := client(1, 1), client(2, 1)
	for _, tt := range []struct {
		name           string
		count, most    int
		come           []arrival
		entered, order []int // at once, and then as each leaves; negative was turned away at once
	}{
		{"one client in order", 1, 4, []arrival{{1, a}, {2, a}, {3, a}}, []int{1}, []int{2, 3}},
		{"another address before the first one's second", 2, 8, []arrival{{1, a}, {2, a}, {3, a}, {4, a}, {5, b}}, []int{1, 2}, []int{5, 3, 4}},
		{"another payer before the first one's second", 2, 8, []arrival{{1, a}, {2, a}, {3, a}, {4, client(1, 2)}}, []int{1, 2}, []int{4, 3}},
		{"many payers of one address are one", 2, 8, []arrival{{1, a}, {2, client(1, 2)}, {3, client(1, 3)}, {4, client(1, 4)}, {5, b}}, []int{1, 2}, []int{5, 3, 4}},
		{"full of one client", 1, 2, []arrival{{1, a}, {2, a}, {3, a}, {4, a}}, []int{1, -4}, []int{2, 3}},
		{"full of one client, and another comes", 1, 2, []arrival{{1, a}, {2, a}, {3, a}, {4, b}}, []int{1, -3}, []int{4, 2}},
		{"full of one payer, and another of the address comes", 1, 2, []arrival{{1, a}, {2, a}, {3, a}, {4, client(1, 2)}}, []int{1, -3}, []int{4, 2}},
		{"full of two, and each comes again", 1, 2, []arrival{{1, client(3, 1)}, {2, a}, {3, b}, {4, a}, {5, b}}, []int{1, -4, -5}, []int{2, 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &crowd{t, newPlaces(tt.count, tt.most), make(chan int, 16), map[int]func(){}}
			for _, r := range tt.come {
				c.come(r.n, r.who)
			}
			var got []int
			for range tt.entered {
				got = append(got, c.next())
			}
			slices.SortFunc(got, func(a, b int) int { return max(a, -a) - max(b, -b) })
			if !slices.Equal(got, tt.entered) {
				t.Fatalf("at once: got %d, want %d", got, tt.entered)
			}
			holds := []int{}
			for _, n := range tt.entered {
				if n > 0 {
					holds = append(holds, n)
				}
			}
			for _, want := range tt.order {
				c.leave(holds[0])
				n := c.next()
				if n != want {
					t.Fatalf("after %d left: got %d, want %d", holds[0], n, want)
				}
				holds = append(holds[1:], n)
			}
			for _, n := range holds {
				c.leave(n)
			}
			if c.p.free != tt.count || len(c.p.of)+len(c.p.ofAddr)+len(c.p.waiting) != 0 {
				t.Errorf("at the end %d places are free of %d, and something is still counted: %v %v %d", c.p.free, tt.count, c.p.of, c.p.ofAddr, len(c.p.waiting))
			}
		})
	}
}

// TestPlacesGiveUp: who leaves or loses patience frees the turn, and is told how long the queue is.
func TestPlacesGiveUp(t *testing.T) {
	p := newPlaces(1, 4)
	leave, err := p.enter(t.Context(), client(1, 1), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	p.took = 10 * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, enter := range map[string]func() (func(), error){
		"left":     func() (func(), error) { return p.enter(ctx, client(1, 2), time.Minute) },
		"patience": func() (func(), error) { return p.enter(t.Context(), client(1, 2), time.Millisecond) },
	} {
		_, err := enter()
		var r *refusal
		if !errors.As(err, &r) || r.status != 429 || r.retryAfter != 10 || r.waiting != 0 || len(p.waiting) != 0 {
			t.Errorf("%s: got %+v and %d waiting, want 429 with 10 s for a queue of none", name, r, len(p.waiting))
		}
	}
	leave()
	if again, err := p.enter(t.Context(), who{payer: ton.Address{}}, 0); err != nil {
		t.Errorf("after all left: %v", err)
	} else {
		again()
	}
}

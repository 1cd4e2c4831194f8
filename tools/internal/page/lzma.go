package page

import (
	"encoding/binary"
	"math/bits"
)

// LZMA, as the specification in Igor Pavlov's SDK has it (lzma-specification.txt), with lc 3, lp 0, pb 0 and a dictionary as long as what is packed:
// a fifth smaller than gzip for the client's program, for distances of megabytes. Before the stream stand the bytes of what is packed, as a
// number of 32 bits in little endian. sdk/js/core.js reads it.
//
// It is written here because nothing else does: the libraries for Go either make 2.17 MB of the program, where at most 1.9 are wanted and these are 1.78
// (ulikunitz/xz with its table of hashes; with its tree it did not end within minutes), or pack in forms that not every browser unpacks (brotli, zstd). A
// page is made with Go alone, so xz is no way out; a test has it read what is written here.

const (
	lzStates  = 12
	lzMinLen  = 2
	lzMaxLen  = 273
	lzDepth   = 64  // candidates that are looked at for a match
	lzGood    = 128 // a match of this length is taken without a look at the next
	lzTop     = 1 << 24
	lzHashLog = 18
)

// rangeCoder is the range coder.
type rangeCoder struct {
	out   []byte
	low   uint64
	width uint32
	cache byte
	held  int // bytes that a carry may still change, the cache among them
}

func (c *rangeCoder) shift() {
	if c.low < 0xff000000 || c.low > 0xffffffff {
		for b := c.cache; c.held > 0; c.held-- {
			c.out = append(c.out, b+byte(c.low>>32))
			b = 0xff
		}
		c.cache = byte(c.low >> 24)
	}
	c.held++
	c.low = c.low & 0x00ffffff << 8
}

// bit codes a bit under a probability, which learns.
func (c *rangeCoder) bit(p *uint16, b int) {
	bound := c.width >> 11 * uint32(*p)
	if b == 0 {
		c.width = bound
		*p += (2048 - *p) >> 5
	} else {
		c.low += uint64(bound)
		c.width -= bound
		*p -= *p >> 5
	}
	for c.width < lzTop {
		c.width <<= 8
		c.shift()
	}
}

func (c *rangeCoder) direct(value uint32, n int) {
	for n--; n >= 0; n-- {
		c.width >>= 1
		if value>>n&1 == 1 {
			c.low += uint64(c.width)
		}
		for c.width < lzTop {
			c.width <<= 8
			c.shift()
		}
	}
}

func (c *rangeCoder) tree(p []uint16, value, n int) {
	m := 1
	for n--; n >= 0; n-- {
		b := value >> n & 1
		c.bit(&p[m], b)
		m = m<<1 | b
	}
}

func (c *rangeCoder) reverse(p []uint16, value uint32, n int) {
	m := 1
	for range n {
		b := int(value & 1)
		value >>= 1
		c.bit(&p[m], b)
		m = m<<1 | b
	}
}

// lengths codes the lengths of matches.
type lengths struct {
	choice   [2]uint16
	low, mid [8]uint16
	high     [256]uint16
}

// lzma is an encoder.
type lzma struct {
	rangeCoder
	data                                            []byte
	literals                                        []uint16
	isMatch, isRep, isRepG0, isRepG1, isRepG2, long [lzStates]uint16
	slots                                           [4][64]uint16
	spec                                            [128]uint16
	align                                           [16]uint16
	matchLen, repLen                                lengths
	state                                           int
	reps                                            [4]int // distances, from 1

	head4, head3, head2 []int32 // newest place of a hash, and one
	before              []int32 // the place before it of the same four bytes' hash
}

// even sets probabilities to a half.
func even(all ...[]uint16) {
	for _, p := range all {
		for i := range p {
			p[i] = 1024
		}
	}
}

// packed returns data under LZMA.
func packed(data []byte) []byte {
	e := &lzma{data: data, literals: make([]uint16, 8*0x300), reps: [4]int{1, 1, 1, 1},
		head4: make([]int32, 1<<lzHashLog), head3: make([]int32, 1<<16), head2: make([]int32, 1<<16), before: make([]int32, len(data))}
	e.width, e.held = 0xffffffff, 1
	even(e.literals, e.isMatch[:], e.isRep[:], e.isRepG0[:], e.isRepG1[:], e.isRepG2[:], e.long[:], e.spec[:], e.align[:])
	for i := range e.slots {
		even(e.slots[i][:])
	}
	for _, l := range []*lengths{&e.matchLen, &e.repLen} {
		even(l.choice[:], l.low[:], l.mid[:], l.high[:])
	}
	e.encode()
	for range 5 {
		e.shift()
	}
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(data))), e.out...)
}

// match is a place behind, by its distance, where as many bytes are the same.
type match struct{ length, distance int }

// same returns how many bytes at two places are the same.
func (e *lzma) same(a, b, most int) (n int) {
	for n+8 <= most {
		if x := binary.LittleEndian.Uint64(e.data[a+n:]) ^ binary.LittleEndian.Uint64(e.data[b+n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
		n += 8
	}
	for n < most && e.data[a+n] == e.data[b+n] {
		n++
	}
	return n
}

// find returns matches at a place, longer and farther from one to the next, and takes the place in. Each place is found or passed once, in order.
func (e *lzma) find(at int) (found []match) {
	most := min(lzMaxLen, len(e.data)-at)
	if most < 4 {
		return nil
	}
	h2, h3, h4 := e.hashes(at)
	best := 1
	take := func(place int) {
		if n := e.same(place, at, most); n > best {
			best = n
			found = append(found, match{n, at - place})
		}
	}
	if p := int(e.head2[h2]); p > 0 {
		take(p - 1)
	}
	if p := int(e.head3[h3]); p > 0 && best < most {
		take(p - 1)
	}
	next := e.head4[h4]
	for range lzDepth {
		if next == 0 || best == most {
			break
		}
		take(int(next) - 1)
		next = e.before[next-1]
	}
	e.pass(at)
	return found
}

// pass takes a place in that no match is looked for at.
func (e *lzma) pass(at int) {
	if len(e.data)-at < 4 {
		return
	}
	h2, h3, h4 := e.hashes(at)
	e.before[at] = e.head4[h4]
	e.head2[h2], e.head3[h3], e.head4[h4] = int32(at+1), int32(at+1), int32(at+1)
}

// hashes are of the next two, three and four bytes.
func (e *lzma) hashes(at int) (h2, h3, h4 uint32) {
	word := binary.LittleEndian.Uint32(e.data[at:])
	return word & 0xffff, word << 8 * 0x9e3779b1 >> 16, word * 0x9e3779b1 >> (32 - lzHashLog)
}

// rep returns the longest match at a place at one of the last distances.
func (e *lzma) rep(at int) (length, which int) {
	most := min(lzMaxLen, len(e.data)-at)
	for i, d := range e.reps {
		if d <= at {
			if n := e.same(at-d, at, most); n > length {
				length, which = n, i
			}
		}
	}
	return length, which
}

// closer reports whether a distance is so much smaller that a byte less is better.
func closer(small, big int) bool { return small < big>>7 }

// pick returns the match to take of those that were found: a shorter one where it is much closer.
func pick(found []match) match {
	if len(found) == 0 {
		return match{}
	}
	m := found[len(found)-1]
	for i := len(found) - 2; i >= 0 && m.length == found[i].length+1 && closer(found[i].distance, m.distance); i-- {
		m = found[i]
	}
	if m.length == 2 && m.distance > 0x80 {
		return match{}
	}
	return m
}

func (e *lzma) encode() {
	var ahead []match
	known := false
	for at := 0; at < len(e.data); {
		found := ahead
		if !known {
			found = e.find(at)
		}
		known = false
		m := pick(found)
		repLen, which := e.rep(at)
		switch {
		case repLen >= lzMinLen && (repLen+1 >= m.length || repLen+2 >= m.length && m.distance > 1<<9 || repLen+3 >= m.length && m.distance > 1<<15):
			e.repeat(which, repLen)
			for i := 1; i < repLen; i++ {
				e.pass(at + i)
			}
			at += repLen
			continue
		case m.length < lzMinLen:
			e.literal(at)
			at++
			continue
		case m.length < lzGood && at+1 < len(e.data):
			ahead, known = e.find(at+1), true
			n := pick(ahead)
			if n.length >= m.length && n.distance < m.distance || n.length == m.length+1 && !closer(m.distance, n.distance) || n.length > m.length+1 ||
				n.length+1 >= m.length && m.length >= 3 && n.length >= 2 && closer(n.distance, m.distance) || e.repAhead(at+1, m.length) {
				e.literal(at)
				at++
				continue
			}
		}
		e.match(m)
		from := 1
		if known {
			from, known = 2, false
		}
		for i := from; i < m.length; i++ {
			e.pass(at + i)
		}
		at += m.length
	}
}

// repAhead reports whether at the next place one of the last distances gives nearly as much.
func (e *lzma) repAhead(at, length int) bool {
	n, _ := e.rep(at)
	return n >= max(2, length-1)
}

func (e *lzma) literal(at int) {
	e.bit(&e.isMatch[e.state], 0)
	previous := byte(0)
	if at > 0 {
		previous = e.data[at-1]
	}
	p := e.literals[int(previous>>5)*0x300:]
	symbol := int(e.data[at])
	if e.state < 7 {
		e.tree(p, symbol, 8)
	} else {
		matched, offset, m := int(e.data[at-e.reps[0]]), 0x100, 1
		for i := 7; i >= 0; i-- {
			matched <<= 1
			b, seen := symbol>>i&1, matched&offset
			e.bit(&p[offset+seen+m], b)
			m = m<<1 | b
			if b == 0 {
				seen = ^seen
			}
			offset &= seen
		}
	}
	switch {
	case e.state < 4:
		e.state = 0
	case e.state < 10:
		e.state -= 3
	default:
		e.state -= 6
	}
}

func (e *lzma) length(l *lengths, n int) {
	n -= lzMinLen
	switch {
	case n < 8:
		e.bit(&l.choice[0], 0)
		e.tree(l.low[:], n, 3)
	case n < 16:
		e.bit(&l.choice[0], 1)
		e.bit(&l.choice[1], 0)
		e.tree(l.mid[:], n-8, 3)
	default:
		e.bit(&l.choice[0], 1)
		e.bit(&l.choice[1], 1)
		e.tree(l.high[:], n-16, 8)
	}
}

func (e *lzma) match(m match) {
	e.bit(&e.isMatch[e.state], 1)
	e.bit(&e.isRep[e.state], 0)
	e.state = after(e.state, 7, 10)
	e.length(&e.matchLen, m.length)
	d := uint32(m.distance - 1)
	slot := int(d)
	if d >= 4 {
		n := bits.Len32(d) - 1
		slot = n<<1 | int(d>>(n-1)&1)
	}
	e.tree(e.slots[min(m.length-lzMinLen, 3)][:], slot, 6)
	if slot >= 4 {
		n := slot>>1 - 1
		base := uint32(2|slot&1) << n
		if slot < 14 {
			e.reverse(e.spec[int(base)-slot:], d-base, n)
		} else {
			e.direct((d-base)>>4, n-4)
			e.reverse(e.align[:], (d-base)&15, 4)
		}
	}
	e.reps = [4]int{m.distance, e.reps[0], e.reps[1], e.reps[2]}
}

func (e *lzma) repeat(which, length int) {
	e.bit(&e.isMatch[e.state], 1)
	e.bit(&e.isRep[e.state], 1)
	if which == 0 {
		e.bit(&e.isRepG0[e.state], 0)
		e.bit(&e.long[e.state], 1)
	} else {
		e.bit(&e.isRepG0[e.state], 1)
		e.bit(&e.isRepG1[e.state], min(which-1, 1))
		if which > 1 {
			e.bit(&e.isRepG2[e.state], which-2)
		}
	}
	e.length(&e.repLen, length)
	e.state = after(e.state, 8, 11)
	d := e.reps[which]
	copy(e.reps[1:which+1], e.reps[:which])
	e.reps[0] = d
}

func after(state, literal, match int) int {
	if state < 7 {
		return literal
	}
	return match
}

// Package chain proves what TON's chain says, from bytes that an untrusted liteserver sent. It asks nobody: whoever has a network
// hands over the answers as they came, and whoever has the keys judges them here.
//
// The common path: begin with a Head that is known (a Network's own, or the newest one that was kept), Advance it by the liteserver's
// proof of newer blocks, judge its age with Fresh, and under it take an account from Prove. A Trail walks an account's transactions back to
// one that is known, and forward again. CHAIN.md beside this file says what each step checks.
//
// What is believed is one key block, and that at no time more than a third of the weight of its validators, or of those of a later one,
// sign two chains. No get-method is ever asked: nothing proves its answer.
//
// What this package does not promise: that a block is the newest there is. A liteserver may keep newer ones back, so ask several, compare
// the block's time with a clock, and sign nothing that an older view could make wrong.
package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ErrRejected is wrapped by every refusal of bytes: a liteserver sent something that is no proof.
var ErrRejected = errors.New("rejected")

func rejectf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRejected}, args...)...)
}

// Masterchain and Basechain are the two workchains there are.
const (
	Masterchain int32 = -1
	Basechain   int32 = 0
)

// wholeShard is the shard that is all of a workchain.
const wholeShard = 1 << 63

// BlockID names one block. The hash of its file is signed and never compared with a file here: only cells are read.
type BlockID struct {
	Workchain int32
	Shard     uint64
	Seqno     uint32
	RootHash  [32]byte
	FileHash  [32]byte
}

func (b BlockID) String() string {
	return fmt.Sprintf("(%d,%016x,%d) %x", b.Workchain, b.Shard, b.Seqno, b.RootHash[:8])
}

// Head is how much of the masterchain is known. The zero Head knows nothing, and nothing follows from it.
type Head struct {
	Key  BlockID // the newest key block known: its config names who signs what comes after
	Last BlockID // the newest block proven
	Time uint32  // when Last was made, Unix time
}

// Network is one of TON's networks.
type Network struct {
	Name     string
	GlobalID int32 // every block of the network says it
	Anchor   Head  // a key block that is believed without proof
	// Anchored is the day on which the anchor was the newest key block; zero where nobody says it.
	Anchored time.Time
}

// Fresh refuses a head that is older than maxAge, or that was made more than a minute after now.
func (h Head) Fresh(now time.Time, maxAge time.Duration) error {
	const skew = time.Minute
	switch age := now.Sub(time.Unix(int64(h.Time), 0)); {
	case age > maxAge:
		return fmt.Errorf("block %d is %v old, want at most %v", h.Last.Seqno, age.Round(time.Second), maxAge)
	case age < -skew:
		return fmt.Errorf("block %d was made %v after now", h.Last.Seqno, (-age).Round(time.Second))
	}
	return nil
}

// HeadBytes is the length of a Head as bytes: key block and newest block, each as a liteserver's scheme has a tonNode.blockIdExt, and the
// time. Numbers are little endian.
const HeadBytes = 2*blockIDBytes + 4

const blockIDBytes = 4 + 8 + 4 + 32 + 32

// Append appends the head as bytes.
func (h Head) Append(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(h.Last.Append(h.Key.Append(b)), h.Time)
}

// Append appends the id as a liteserver's scheme has it.
func (b BlockID) Append(to []byte) []byte {
	le := binary.LittleEndian
	to = le.AppendUint32(le.AppendUint64(le.AppendUint32(to, uint32(b.Workchain)), b.Shard), b.Seqno)
	return append(append(to, b.RootHash[:]...), b.FileHash[:]...)
}

// ReadHead reads a head that was kept. It refuses one that no proof leads to.
func ReadHead(b []byte) (Head, error) {
	if len(b) != HeadBytes {
		return Head{}, fmt.Errorf("head has %d bytes, want %d", len(b), HeadBytes)
	}
	a := &answer{b: b}
	h := Head{Key: a.block(), Last: a.block(), Time: a.uint32()}
	for _, id := range []BlockID{h.Key, h.Last} {
		if id.Workchain != Masterchain || id.Shard != wholeShard || id.Seqno == 0 {
			return Head{}, fmt.Errorf("head is at block %v, want one of the masterchain", id)
		}
	}
	if h.Last.Seqno < h.Key.Seqno || h.Last.Seqno == h.Key.Seqno && h.Last != h.Key {
		return Head{}, fmt.Errorf("head is at block %v, and its key block is %v", h.Last, h.Key)
	}
	return h, nil
}

// Behind refuses another head that is older than this one, or of another chain.
func (h Head) Behind(next Head) error {
	switch {
	case next.Last.Seqno < h.Last.Seqno || next.Key.Seqno < h.Key.Seqno || next.Time < h.Time:
		return fmt.Errorf("head is at block %d of %d, and %d of %d is known", next.Last.Seqno, next.Time, h.Last.Seqno, h.Time)
	case next.Last.Seqno == h.Last.Seqno && next.Last != h.Last || next.Key.Seqno == h.Key.Seqno && next.Key != h.Key:
		return fmt.Errorf("head is at block %v after %v, and %v after %v is known", next.Last, next.Key, h.Last, h.Key)
	}
	return nil
}

package chain

import (
	"bytes"
	"testing"
)

// TestHeadAsBytes: a head has one form, and no form is read that no proof leads to.
func TestHeadAsBytes(t *testing.T) {
	id := BlockID{Workchain: Masterchain, Shard: wholeShard, Seqno: 7, RootHash: [32]byte{1}, FileHash: [32]byte{2}}
	h := Head{Key: id, Last: id, Time: 99}
	h.Last.Seqno = 9
	raw := h.Append(nil)
	if got, err := ReadHead(raw); err != nil || got != h || !bytes.Equal(got.Append(nil), raw) {
		t.Errorf("got %+v (%v), want %+v", got, err, h)
	}
	for name, change := range map[string]func(*Head){
		"no key block":                     func(h *Head) { h.Key = BlockID{} },
		"a workchain's block":              func(h *Head) { h.Last.Workchain = 0 },
		"a shard's block":                  func(h *Head) { h.Last.Shard = 1 << 62 },
		"block zero":                       func(h *Head) { h.Key.Seqno = 0 },
		"a block before the key block":     func(h *Head) { h.Last.Seqno = 6 },
		"another in the key block's place": func(h *Head) { h.Last.Seqno, h.Last.FileHash[0] = 7, 9 },
	} {
		bad := h
		change(&bad)
		if got, err := ReadHead(bad.Append(nil)); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
	if _, err := ReadHead(raw[1:]); err == nil {
		t.Error("a head of another length: got no error")
	}
}

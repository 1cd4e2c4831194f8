package keeper

import (
	"encoding/binary"
	"fmt"

	"chrysalis/measure/ton"
	"chrysalis/runtime/internal/journal"
)

// checkpoint is how far the ledger is with the journal's checkpoints. Counts only rise and each receipt says what its contract's is then, so
// contracts are written one after the other while answers go on.
type checkpoint struct {
	round  uint32 // the newest one
	cursor int    // contracts before it are part of that
	began  bool   // one was read or begun
	whole  bool   // one was read whole, or there was none to read: every contract is known
}

// A checkpoint's head is next receipt (u64) and hash of the last (32), and then settledBytes if the chain has proven anything. A part is a
// kind (u8) and its items.
const (
	headBytes     = 8 + 32
	partContracts = 1
	itemBytes     = 1 + 32 + 8 + 8 // workchain, account, count, place of the newest proof if the host has not got that
	partClients   = 2              // of the book, of settle.ItemBytes each
)

// maxItems returns how many bytes of items the journal's checkpoints have room for.
func maxItems(j *journal.Journal) int {
	return int(j.MaxState() / 16 * 15) // a sixteenth is for what stands before the items, and between the parts
}

// Begin reads a checkpoint's head. What was read before has to come to it.
func (l *ledger) Begin(head []byte) error {
	if len(head) != headBytes && len(head) != headBytes+settledBytes {
		return fmt.Errorf("a checkpoint's head has %d bytes, want %d or %d", len(head), headBytes, headBytes+settledBytes)
	}
	next, prev, proven := binary.LittleEndian.Uint64(head), [32]byte(head[8:]), head[headBytes:]
	if l.began && (next != l.next || prev != l.prev) {
		return fmt.Errorf("a checkpoint before receipt %d, want it before %d", next, l.next)
	}
	if err := l.settled.begin(proven, l.began); err != nil {
		return err
	}
	if !l.began {
		l.next, l.prev, l.whole = next, prev, next == 0 && len(proven) == 0
	}
	l.round, l.cursor, l.keys.cursor, l.began = l.round+1, 0, 0, true
	return nil
}

// Part reads contracts, or clients of the book. Those that are known have to be as they are known.
func (l *ledger) Part(part []byte) error {
	if len(part) > 0 && part[0] == partClients {
		return l.settled.part(part[1:], l.whole, l.round)
	}
	if len(part) > 0 && part[0] == partKeys {
		return l.keys.part(part[1:], l.whole, l.round)
	}
	if len(part) == 0 || part[0] != partContracts || (len(part)-1)%itemBytes != 0 {
		return fmt.Errorf("a part of %d bytes, want kind %d and items of %d", len(part), partContracts, itemBytes)
	}
	for b := part[1:]; len(b) > 0; b = b[itemBytes:] {
		address := ton.Address{Workchain: int8(b[0]), Account: [32]byte(b[1:])}
		count, newest := binary.LittleEndian.Uint64(b[33:]), journal.Place(binary.LittleEndian.Uint64(b[41:]))
		i, known := l.index[address]
		switch {
		case known && l.contracts[i].count != count:
			return fmt.Errorf("a part has contract %x at %d, want %d", address.Account, count, l.contracts[i].count)
		case !known && l.whole:
			return fmt.Errorf("a part has contract %x, of which there is no receipt", address.Account)
		case !known:
			i = l.at(address)
			l.contracts[i].count, l.contracts[i].newest = count, newest
			if newest != 0 {
				l.exports.add(l.contracts, i)
			}
		}
		l.contracts[i].round = l.round
	}
	return nil
}

// End ends a checkpoint: every contract is known, and every client.
func (l *ledger) End() error {
	l.whole = true
	return l.settled.end()
}

// Head begins a checkpoint.
func (l *ledger) Head() []byte {
	l.round, l.cursor, l.settled.cursor, l.keys.cursor, l.began = l.round+1, 0, 0, 0, true
	return l.settled.appendHead(append(binary.LittleEndian.AppendUint64(nil, l.next), l.prev[:]...))
}

// Next returns contracts that the checkpoint has not got, then clients, then keys.
func (l *ledger) Next(most int) []byte {
	var part []byte
	for ; l.cursor < len(l.contracts); l.cursor++ {
		c := &l.contracts[l.cursor]
		if c.round == l.round {
			continue
		}
		if part == nil {
			part = append(make([]byte, 0, most), partContracts)
		}
		if len(part)+itemBytes > most {
			break
		}
		part = append(append(part, byte(c.address.Workchain)), c.address.Account[:]...)
		part = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(part, c.count), uint64(c.newest))
		c.round = l.round
	}
	if part == nil {
		part = l.settled.next(most, l.round)
	}
	if part == nil {
		part = l.keys.next(most, l.round)
	}
	return part
}

package keeper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"chrysalis/measure/ton"
	"chrysalis/runtime/settle"
)

// keys are those that clients have derived from their secrets, each with a name and a cap. They are in the journal, and so is what each has used.
type keys struct {
	list   []clientKey
	index  map[named]int
	hashes map[[32]byte]int // of keys' secrets
	held   map[int]uint64   // weighted tokens of answers that are computed
	cursor int              // keys before it are part of the newest checkpoint
}

// named is what a key is known by.
type named struct {
	contract ton.Address
	name     [16]byte
}

type clientKey struct {
	named
	under     [32]byte // hash of the contract's secret, which it was derived from: once the contract has another, the key is none
	hash      [32]byte // of its own secret
	cap, used uint64   // weighted tokens; a cap of 0 is a key that was revoked
	round     uint32   // as contract.round
}

const (
	keyBytes       = 33 + 16 + 32 + 32 + 8 + 8
	entryKey       = 2 // kind of an entry of no answer: one key
	partKeys       = 3 // kind of a part: keys
	maxKeys        = 16
	keyedEntryTail = 16 // name of the key, behind the entry of an answer that it asked for
)

func newKeys() keys {
	return keys{index: map[named]int{}, hashes: map[[32]byte]int{}, held: map[int]uint64{}}
}

func (c *clientKey) append(b []byte) []byte {
	b = append(append(b, byte(c.contract.Workchain)), c.contract.Account[:]...)
	b = append(append(append(b, c.name[:]...), c.under[:]...), c.hash[:]...)
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, c.cap), c.used)
}

func readKey(b []byte) (c clientKey, err error) {
	c.contract = ton.Address{Workchain: int8(b[0]), Account: [32]byte(b[1:])}
	c.name, c.under, c.hash = [16]byte(b[33:]), [32]byte(b[49:]), [32]byte(b[81:])
	c.cap, c.used = binary.LittleEndian.Uint64(b[113:]), binary.LittleEndian.Uint64(b[121:])
	if c.contract.Check() != nil || c.name == [16]byte{} || c.hash == c.under {
		err = fmt.Errorf("key %q of %s, derived from %x and being %x", c.name, c.contract, c.under[:4], c.hash[:4])
	}
	return c, err
}

// set makes a key as it says. Its name is its contract's: another of that name is this one from then on.
func (k *keys) set(c clientKey) int {
	at, known := k.index[c.named]
	if !known {
		at = len(k.list)
		k.list, k.index[c.named] = append(k.list, clientKey{}), at
	} else {
		delete(k.hashes, k.list[at].hash)
		c.round = k.list[at].round
	}
	k.list[at], k.hashes[c.hash] = c, at
	return at
}

// count returns how many names a contract has.
func (k *keys) count(contract ton.Address) (n int) {
	for i := range k.list {
		if k.list[i].contract == contract {
			n++
		}
	}
	return n
}

// use counts an answer to a key. Before a first checkpoint is whole, one that is not known is in a part that comes.
func (k *keys) use(n named, weighted uint64, whole bool) error {
	at, known := k.index[n]
	if !known && whole {
		return fmt.Errorf("an answer to key %q of %s, which there is not", n.name, n.contract)
	}
	if known {
		k.list[at].used += weighted
	}
	return nil
}

// tail is what stands behind the entry of an answer that a key asked for.
func (k *keys) tail(key int) []byte {
	if key == 0 {
		return nil
	}
	return k.list[key-1].name[:]
}

// readEntry applies an entry that sets a key.
func (k *keys) readEntry(e []byte) error {
	if len(e) != notAnAnswer+1+keyBytes {
		return fmt.Errorf("entry of a key has %d bytes, want %d", len(e), notAnAnswer+1+keyBytes)
	}
	c, err := readKey(e[notAnAnswer+1:])
	if err == nil {
		k.set(c)
	}
	return err
}

// part reads keys. Those that are known have to be as they are known.
func (k *keys) part(b []byte, whole bool, round uint32) error {
	if len(b)%keyBytes != 0 {
		return fmt.Errorf("a part of keys has %d bytes, want items of %d", len(b), keyBytes)
	}
	for ; len(b) > 0; b = b[keyBytes:] {
		c, err := readKey(b[:keyBytes])
		if err != nil {
			return err
		}
		at, known := k.index[c.named]
		switch {
		case known && !bytes.Equal(k.list[at].append(nil), b[:keyBytes]):
			return fmt.Errorf("a part has key %q of %s as %x, want %x", c.name, c.contract, b[49:keyBytes], k.list[at].append(nil)[49:])
		case !known && whole:
			return fmt.Errorf("a part has key %q of %s, which was never made", c.name, c.contract)
		case !known:
			at = k.set(c)
		}
		k.list[at].round = round
	}
	return nil
}

// next returns keys that the checkpoint has not got.
func (k *keys) next(most int, round uint32) []byte {
	var part []byte
	for ; k.cursor < len(k.list); k.cursor++ {
		if k.list[k.cursor].round == round {
			continue
		}
		if part == nil {
			part = append(make([]byte, 0, most), partKeys)
		}
		if len(part)+keyBytes > most {
			break
		}
		part = k.list[k.cursor].append(part)
		k.list[k.cursor].round = round
	}
	return part
}

// covers returns the key whose secret has a hash, if it is the client's, was derived from the secret that its contract has now, and has so many
// tokens left.
func (k *keys) covers(client ton.Address, secret, now [32]byte, worst uint64) (at int, err error) {
	at, ok := k.hashes[secret]
	if !ok || k.list[at].contract != client || k.list[at].under != now || k.list[at].cap == 0 {
		return 0, ErrKey
	}
	c := &k.list[at]
	if taken := c.used + k.held[at]; taken > c.cap || worst > c.cap-taken {
		return 0, fmt.Errorf("%w: key %q has %d of %d tokens left", ErrFunds, c.name, c.cap-min(c.cap, taken), c.cap)
	}
	return at, nil
}

// keying is a client's word on one of its keys.
type keying struct {
	shown [32]byte // hash of what it shows: of the contract's own secret
	key   clientKey
	reply chan keyed
}

type keyed struct {
	used uint64
	err  error
}

// setKey makes a key durable, with its cap, or revokes it. Its error is the disk's; the client gets the others'.
func (k *Keeper) setKey(w keying) error {
	l := k.ledger
	used, err := l.mayKey(w.shown, &w.key, k.items-k.taken())
	if err != nil {
		w.reply <- keyed{err: err}
		return nil
	}
	entry := w.key.append(append(make([]byte, notAnAnswer, notAnAnswer+1+keyBytes), entryKey))
	l.keys.set(w.key)
	if _, err := k.journal.Commit(entry); err != nil {
		w.reply <- keyed{err: ErrUnknown}
		return fmt.Errorf("recording a key: %w", err)
	}
	w.reply <- keyed{used: used}
	return nil
}

// taken returns how many bytes of a checkpoint are taken.
func (k *Keeper) taken() int {
	return len(k.ledger.contracts)*itemBytes + k.bookBytes() + len(k.ledger.keys.list)*keyBytes
}

// bookBytes returns what is kept for the book's clients: half, where answers are paid on chain.
func (k *Keeper) bookBytes() int {
	book := len(k.ledger.settled.rounds) * settle.ItemBytes
	if k.ledger.terms.Settling != nil {
		book = max(book, k.items/2)
	}
	return book
}

// mayKey judges a client's word on a key, fills in what the client can't say, and returns what the key has used.
func (l *ledger) mayKey(shown [32]byte, c *clientKey, room int) (used uint64, err error) {
	if l.terms.Settling == nil {
		return 0, fmt.Errorf("%w: charges are not settled on chain", errRefused)
	}
	if !l.settling.seen {
		return 0, ErrChain
	}
	of, ok := l.settled.book.Client(c.contract)
	if !ok || of.SecretHash != shown || shown == ([32]byte{}) {
		return 0, ErrKey
	}
	if c.under = shown; c.name == ([16]byte{}) || c.hash == shown || c.hash == ([32]byte{}) {
		return 0, fmt.Errorf("%w: key %q", errRefused, c.name)
	}
	at, known := l.keys.index[c.named]
	if other, taken := l.keys.hashes[c.hash]; taken && (!known || other != at) {
		return 0, fmt.Errorf("%w: key %q is another one's", errRefused, c.name)
	}
	if known && l.keys.list[at].under == shown {
		c.used = l.keys.list[at].used
	}
	if !known && (l.keys.count(c.contract) >= maxKeys || room < keyBytes) {
		return 0, ErrFull
	}
	return c.used, nil
}

// key has Run make a key durable.
func (k *Keeper) key(shown [32]byte, c clientKey) (used uint64, err error) {
	w := keying{shown, c, make(chan keyed, 1)}
	select {
	case k.keyed <- w:
		r := <-w.reply
		return r.used, r.err
	case <-k.stopped:
		return 0, ErrUnknown
	}
}

// statusOf is what the gateway is told of a refusal.
func statusOf(err error) status {
	for _, s := range []status{statusFull, statusRefused, statusKey, statusFunds, statusChain} {
		if errors.Is(err, s.err()) {
			return s
		}
	}
	if err != nil {
		return statusFailed
	}
	return statusOK
}

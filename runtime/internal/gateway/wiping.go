package gateway

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"runtime"
	"sync"
	"time"
	"unsafe"
)

// What clients and engine say passes through memory of net/http and crypto/tls. What of it is garbage is overwritten by the runtime as it
// is freed (GODEBUG=clobberfree=1, which init sets, as it sets asyncpreemptoff=1: a thread that is interrupted leaves its registers in memory, where
// a cipher had the end of a text), so that it is gone after two collections: the first empties pools into a second
// place, the second frees them. What belongs to an open connection is overwritten here, when the connection waits for its next request.

// collectAfter is how long after a text the collections begin.
const collectAfter = 600 * time.Millisecond

// collector collects garbage after texts have passed.
type collector struct {
	mu    sync.Mutex
	armed bool
	more  bool // texts have passed since
}

// passed says that a text has passed, and that what is left of it is garbage in a moment.
func (c *collector) passed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more = c.armed; !c.armed {
		c.armed = true
		time.AfterFunc(collectAfter, c.collect)
	}
}

// collect collects, and again later where a text passed so late that it may not have been garbage yet.
func (c *collector) collect() {
	c.mu.Lock()
	more := c.more
	c.armed, c.more = false, false
	c.mu.Unlock()
	if more {
		c.passed()
	}
	runtime.GC()
	runtime.GC()
}

// inputs are where a tls.Conn reads and decrypts, and where it gathers a handshake, whose first message has a KiB and a half. There is no way to
// them but by their places in the struct.
var inputs = func() (places []uintptr) {
	for _, name := range []string{"rawInput", "hand"} {
		f, ok := reflect.TypeFor[tls.Conn]().FieldByName(name)
		if !ok || f.Type != reflect.TypeFor[bytes.Buffer]() {
			panic("gateway: this Go keeps a connection's " + name + " elsewhere: it could not be wiped")
		}
		places = append(places, f.Offset)
	}
	return places
}()

// input returns what a connection keeps at one of inputs.
func input(c *tls.Conn, place uintptr) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), place))
}

// wipeInput overwrites what a connection has decrypted, if all of it was read, and gives the memory back: most connections are idle most of
// the time. Nobody may be reading.
func wipeInput(c *tls.Conn) {
	for _, place := range inputs {
		if b := input(c, place); b.Len() == 0 {
			b.Reset()
			all := b.AvailableBuffer()
			clear(all[:cap(all)])
			*b = bytes.Buffer{}
		}
	}
}

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
// is freed (GODEBUG=clobberfree=1, which init sets), so that it is gone after two collections: the first empties pools into a second
// place, the second frees them. What belongs to an open connection is overwritten here, when the connection waits for its next request.

// collectAfter is how long after a text the collections begin.
const collectAfter = 600 * time.Millisecond

// collector collects garbage after texts have passed.
type collector struct {
	mu    sync.Mutex
	armed bool
}

// passed says that a text has passed, and that what is left of it is garbage now.
func (c *collector) passed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.armed {
		return
	}
	c.armed = true
	time.AfterFunc(collectAfter, func() {
		c.mu.Lock()
		c.armed = false // before it collects: what passes from here on needs collections of its own
		c.mu.Unlock()
		runtime.GC()
		runtime.GC()
	})
}

// rawInput is where a tls.Conn reads and decrypts. There is no way to it but by its place in the struct.
var rawInput = func() uintptr {
	f, ok := reflect.TypeFor[tls.Conn]().FieldByName("rawInput")
	if !ok || f.Type != reflect.TypeFor[bytes.Buffer]() {
		panic("gateway: this Go keeps a connection's input elsewhere: it could not be wiped")
	}
	return f.Offset
}()

// wipeInput overwrites what a connection has decrypted, if all of it was read. Nobody may be reading.
func wipeInput(c *tls.Conn) {
	b := (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), rawInput))
	if b.Len() == 0 {
		b.Reset()
		all := b.AvailableBuffer()
		clear(all[:cap(all)])
	}
}

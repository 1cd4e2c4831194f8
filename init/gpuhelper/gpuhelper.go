// Package gpuhelper is what process 1 and the program that speaks to the driver of GPUs say to each other. GPU.md beside this file is the
// specification.
//
//	h := gpuhelper.New(conn)
//	state, err := h.State()
//	devices, err := h.Evidence(nonce)
//
// The driver's library is C, and as large as it is; so it runs in a process of its own, which is given one request at a time over a
// socket and has nothing else of the guest. Serve is that program's end.
//
// Nothing that a helper says is believed for its own sake: its evidence is what devices signed, and is verified. What it can do is keep a
// guest from serving.
package gpuhelper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"chrysalis/attest/evidence"
)

// State is what the driver says of the machine's devices.
type State struct {
	Confidential bool // confidential mode is on
	Development  bool // devtools are
	Ready        bool // the GPUs take work
	Devices      []Device
}

// Device is one that the driver has.
type Device struct {
	Kind    evidence.DeviceKind
	Address string // on PCI, as sysfs writes it
}

// The requests.
const (
	askState    = 1
	askEvidence = 2
	setReady    = 3
	setUnready  = 4
)

const (
	requestBytes = 1 + 32
	flags        = 3
	addressBytes = len("0000:41:00.0")
	deviceBytes  = 1 + addressBytes
	maxDevices   = evidence.MaxGPUs + evidence.MaxSwitches
	maxState     = flags + maxDevices*deviceBytes
)

// The statuses of an answer.
const (
	statusDone    = 0
	statusRefused = 1
)

// ErrRefused says that the driver does not do what it is asked.
var ErrRefused = errors.New("refused by the driver")

// The times that a helper has. Evidence of a whole board takes its devices some.
const (
	stateLimit    = 10 * time.Second
	evidenceLimit = 30 * time.Second
)

// Helper asks a helper. One goroutine asks at a time.
type Helper struct {
	conn   net.Conn
	broken error
}

// New returns the asking end of a connection.
func New(conn net.Conn) *Helper { return &Helper{conn: conn} }

// State asks how things are.
func (h *Helper) State() (State, error) {
	body, err := h.ask(askState, [32]byte{}, maxState, stateLimit)
	if err != nil {
		return State{}, fmt.Errorf("asking for state: %w", err)
	}
	state, err := decodeState(body)
	return state, h.breaks("asking for state", err)
}

// Evidence asks every device for its report over a nonce.
func (h *Helper) Evidence(nonce [32]byte) ([]evidence.Device, error) {
	body, err := h.ask(askEvidence, nonce, evidence.MaxDeviceBytes, evidenceLimit)
	if err != nil {
		return nil, fmt.Errorf("asking for evidence: %w", err)
	}
	devices, err := evidence.DecodeDevices(body)
	return devices, h.breaks("asking for evidence", err)
}

// SetReady lets the GPUs take work, or has them refuse it.
func (h *Helper) SetReady(ready bool) error {
	kind := byte(setUnready)
	if ready {
		kind = setReady
	}
	if _, err := h.ask(kind, [32]byte{}, 0, stateLimit); err != nil {
		return fmt.Errorf("setting ready state to %t: %w", ready, err)
	}
	return nil
}

// breaks ends the connection's use after an answer that does not parse.
func (h *Helper) breaks(doing string, err error) error {
	if err != nil {
		h.broken = fmt.Errorf("%s: %w", doing, err)
	}
	return h.broken
}

func (h *Helper) ask(kind byte, nonce [32]byte, most int, limit time.Duration) ([]byte, error) {
	if h.broken != nil {
		return nil, h.broken
	}
	body, err := h.exchange(kind, nonce, most, limit)
	if err != nil && !errors.Is(err, ErrRefused) {
		h.broken = err // an answer that comes late would be taken for the next one
	}
	return body, err
}

func (h *Helper) exchange(kind byte, nonce [32]byte, most int, limit time.Duration) ([]byte, error) {
	if err := h.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	if _, err := h.conn.Write(append([]byte{kind}, nonce[:]...)); err != nil {
		return nil, err
	}
	return readAnswer(h.conn, most)
}

// readAnswer reads the answer to a request whose body has at most so many bytes.
func readAnswer(r io.Reader, most int) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("reading answer: %w", err)
	}
	size := binary.LittleEndian.Uint32(head[1:])
	switch {
	case head[0] == statusRefused && size == 0:
		return nil, ErrRefused
	case head[0] != statusDone:
		return nil, fmt.Errorf("answer has status %d and %d bytes, want %d, or %d without any", head[0], size, statusDone, statusRefused)
	case int64(size) > int64(most):
		return nil, fmt.Errorf("answer has %d bytes, want at most %d", size, most)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("reading answer: %w", err)
	}
	return body, nil
}

func encodeState(s State) []byte {
	b := make([]byte, flags, maxState)
	for i, on := range []bool{s.Confidential, s.Development, s.Ready} {
		if on {
			b[i] = 1
		}
	}
	for _, d := range s.Devices {
		b = append(append(b, byte(d.Kind)), d.Address...)
	}
	return b
}

// decodeState parses what encodeState writes: GPUs first, each address once and in ascending order of its kind.
func decodeState(b []byte) (s State, err error) {
	if len(b) < flags || (len(b)-flags)%deviceBytes != 0 || len(b) > maxState {
		return s, fmt.Errorf("state has %d bytes, want %d and %d for each of at most %d devices", len(b), flags, deviceBytes, maxDevices)
	}
	for i, flag := range []*bool{&s.Confidential, &s.Development, &s.Ready} {
		if b[i] > 1 {
			return State{}, fmt.Errorf("flag %d of the state is %d, want 0 or 1", i, b[i])
		}
		*flag = b[i] == 1
	}
	for b = b[flags:]; len(b) > 0; b = b[deviceBytes:] {
		d := Device{Kind: evidence.DeviceKind(b[0]), Address: string(b[1:deviceBytes])}
		if d.Kind != evidence.KindGPU && d.Kind != evidence.KindSwitch || !plain(d.Address) {
			return State{}, fmt.Errorf("device of kind %d at %q, want a GPU (%d) or switch (%d) at an address like 0000:41:00.0", d.Kind, d.Address,
				evidence.KindGPU, evidence.KindSwitch)
		}
		if n := len(s.Devices); n > 0 && (d.Kind < s.Devices[n-1].Kind || d.Kind == s.Devices[n-1].Kind && d.Address <= s.Devices[n-1].Address) {
			return State{}, fmt.Errorf("device at %s after %s, want GPUs and then switches, each by ascending address", d.Address, s.Devices[n-1].Address)
		}
		s.Devices = append(s.Devices, d)
	}
	return s, nil
}

// plain reports whether an address is of the one form: hexadecimal digits where the first of all has zeros.
func plain(address string) bool {
	const first = "0000:00:00.0"
	if len(address) != len(first) {
		return false
	}
	for i, c := range []byte(address) {
		digit := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
		if first[i] == '0' && !digit || first[i] != '0' && c != first[i] {
			return false
		}
	}
	return true
}

// Driver is what a helper has behind it.
type Driver interface {
	State() (State, error)
	Evidence(nonce [32]byte) ([]evidence.Device, error)
	SetReady(bool) error
}

// Serve answers requests on conn until it ends. A request that is none ends it with an error.
func Serve(conn io.ReadWriter, driver Driver) error {
	for {
		var request [requestBytes]byte
		if _, err := io.ReadFull(conn, request[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading request: %w", err)
		}
		body, err := do(request[0], [32]byte(request[1:]), driver)
		if errors.Is(err, errRequest) {
			return fmt.Errorf("reading request: %w", err)
		}
		head := []byte{statusDone}
		if err != nil {
			head, body = []byte{statusRefused}, nil
		}
		if _, err := conn.Write(append(binary.LittleEndian.AppendUint32(head, uint32(len(body))), body...)); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
}

var errRequest = errors.New("no request")

func do(kind byte, nonce [32]byte, driver Driver) ([]byte, error) {
	if kind != askEvidence && nonce != ([32]byte{}) {
		return nil, fmt.Errorf("%w: one of kind %d with a nonce", errRequest, kind)
	}
	switch kind {
	case askState:
		s, err := driver.State()
		return encodeState(s), err
	case askEvidence:
		devices, err := driver.Evidence(nonce)
		return evidence.EncodeDevices(devices), err
	case setReady, setUnready:
		return nil, driver.SetReady(kind == setReady)
	}
	return nil, fmt.Errorf("%w: kind %d, want 1 to 4", errRequest, kind)
}

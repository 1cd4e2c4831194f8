package exchange

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/check"
	"chrysalis/measure/ton"
	"chrysalis/runtime/client/proof"
	"chrysalis/runtime/envelope"
)

// Call is one request, and its answer as it comes. One goroutine uses it.
type Call struct {
	Path   string
	Sealed []byte // with the type envelope.RequestType, and the key's id in envelope.KeyHeader

	guest   *Guest
	opens   *envelope.Answer
	request []byte
	payer   ton.Address
	proves  bool   // the answer to it has a proof
	before  []Seen // when it was sealed

	head   *Head
	answer *proof.Answer
	back   []string

	in   inlet
	next func() (step, bool)
	stop func()
	done error // how it ended, errWhole among the ways
}

// Head is an answer's status and header, which the guest has sealed.
type Head struct {
	Status int
	Header []envelope.Field
}

// errWhole ends a call whose answer came whole.
var errWhole = errors.New("the answer came whole")

// step is how far the reader of an answer has come.
type step struct {
	data []byte // may be passed on
	wait bool   // nothing more before more comes
	err  error  // it has ended
}

// inlet is what comes, as a reader that steps aside while there is nothing.
type inlet struct {
	piece []byte
	ended bool
	wait  func() bool
}

func (in *inlet) Read(p []byte) (int, error) {
	for len(in.piece) == 0 {
		if in.ended {
			return 0, io.EOF
		}
		if !in.wait() {
			return 0, errLeft
		}
	}
	n := copy(p, in.piece)
	in.piece = in.piece[n:]
	return n, nil
}

// errLeft says that whoever asked has left.
var errLeft = errors.New("nobody waits for the answer")

// Take takes what came next, and returns what may be passed on. The first answer's Head is there once some of it is.
func (c *Call) Take(piece []byte) ([]byte, error) {
	c.in.piece = piece
	return c.run() // the final chunk ends where the bytes end, so an answer is whole at End alone
}

// End says that nothing more comes, and returns what may be passed on. Without an error the answer is whole, and proven where it has to be.
func (c *Call) End() ([]byte, error) {
	c.in.ended = true
	data, err := c.run()
	if errors.Is(err, errWhole) {
		return data, nil
	}
	return data, err
}

// run reads as far as what came goes.
func (c *Call) run() (data []byte, err error) {
	if c.done != nil {
		return nil, c.done
	}
	if c.next == nil {
		c.next, c.stop = iter.Pull(iter.Seq[step](c.read))
	}
	for {
		s, ok := c.next()
		switch {
		case !ok:
			return data, errLeft
		case s.err != nil:
			c.done = s.err
			return data, c.done
		case s.wait:
			return data, nil
		}
		data = append(data, s.data...)
	}
}

// Close ends a call whose answer nobody waits for. A call that has ended may be closed too.
func (c *Call) Close() {
	if c.stop != nil {
		c.stop()
	}
	if c.done == nil {
		c.done = errLeft
	}
}

// read is the reader of the answer, from its first byte to its last.
func (c *Call) read(yield func(step) bool) {
	c.in.wait = func() bool { return yield(step{wait: true}) }
	yield(step{err: c.opened(func(data []byte) bool { return yield(step{data: data}) })})
}

func (c *Call) opened(pass func([]byte) bool) error {
	opened, err := c.opens.Open(&c.in)
	if err != nil {
		return classOf(err)
	}
	c.head = &Head{opened.Status, opened.Header}
	if c.proves && opened.Status == 200 {
		return c.watched(opened, pass)
	}
	buffer := make([]byte, 16<<10)
	for {
		n, err := opened.Read(buffer)
		if n > 0 && !pass(buffer[:n]) {
			return errLeft
		}
		if err == io.EOF {
			return errWhole
		}
		if err != nil {
			return classOf(err)
		}
	}
}

// watched passes an answer on that has a proof.
func (c *Call) watched(opened *envelope.Response, pass func([]byte) bool) error {
	streamed := false
	for _, f := range opened.Header {
		if f.Name == "content-type" {
			kind, _, _ := strings.Cut(f.Value, ";")
			streamed = strings.TrimSpace(kind) == "text/event-stream"
		}
	}
	w := proof.Watch(c.Path, classed{opened}, streamed, c.request, c.payer, c.guest.result)
	for {
		event, err := w.Next()
		if c.answer == nil && w.Answer() != nil {
			c.answer = w.Answer()
			c.back = c.guest.client.remember(c.before, c.answer)
		}
		if len(event) > 0 && !pass(event) {
			return errLeft
		}
		if err == io.EOF {
			return errWhole
		}
		if err != nil {
			return err
		}
	}
}

// classed gives the errors of an opened answer their class.
type classed struct{ of io.Reader }

func (r classed) Read(p []byte) (int, error) {
	n, err := r.of.Read(p)
	if err != nil && err != io.EOF {
		err = classOf(err)
	}
	return n, err
}

// classOf tells an answer that was cut from one that is not the guest's.
func classOf(err error) error {
	if errors.Is(err, errLeft) {
		return err
	}
	if errors.Is(err, envelope.ErrCut) {
		return fmt.Errorf("%w: %w", check.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", check.ErrRejected, err)
}

// Head returns status and header, nil before they came.
func (c *Call) Head() *Head { return c.head }

// Answer returns what is proven: nil before the end, where nothing is, and of a request whose answer has no proof.
func (c *Call) Answer() *proof.Answer { return c.answer }

// StepsBack says, in sentences for people, where the guest has come behind what it had signed before the request was sealed.
func (c *Call) StepsBack() []string { return c.back }

// ErrRekey says that the guest does not hold the key. Anybody between can say so: all that comes of it is that the guest is verified anew.
var ErrRekey = fmt.Errorf("%w: it does not hold the key that was sealed to", check.ErrUnavailable)

// Clear makes an error of what was answered around no envelope, which is nobody's word. A redirect is such an answer.
func Clear(status int, body []byte) error {
	var document struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &document) // what is no error object has no code
	if status == 421 && document.Error.Code == "rekey" {
		return ErrRekey
	}
	return fmt.Errorf("asking guest: %w: somebody on the way says %d in the clear", check.ErrUnavailable, status)
}

// remember keeps how far a guest has come, and says where that is behind what was known when the request was sealed.
func (c *Client) remember(before []Seen, a *proof.Answer) (back []string) {
	r := a.Receipt
	name, payer := hex.EncodeToString(r.Instance[:]), r.Client.String()
	for _, s := range before {
		if s.Instance != name {
			continue
		}
		if r.Sequence <= s.Sequence {
			back = append(back, fmt.Sprintf("the receipt is number %d of its guest, and number %d was signed before", r.Sequence, s.Sequence))
		}
		if count, known := s.Counts[payer]; known && r.Cumulative < count+r.Weighted {
			back = append(back, fmt.Sprintf("the guest has counted %d tokens, and had counted %d before these %d", r.Cumulative, count, r.Weighted))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.seen[r.Instance]
	if s == nil {
		if len(c.seen) >= maxSeen {
			clear(c.seen)
		}
		s = &Seen{Instance: name, Counts: map[string]uint64{}}
		c.seen[r.Instance] = s
	}
	s.Sequence = max(s.Sequence, r.Sequence)
	if s.Counts == nil || len(s.Counts) >= maxSeen {
		s.Counts = map[string]uint64{}
	}
	s.Counts[payer] = max(s.Counts[payer], r.Cumulative)
	return back
}

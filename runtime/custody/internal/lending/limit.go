package lending

import (
	"net"
	"sync"
)

// maxConns bounds the open connections of a lender: more wait, and whoever renews goes on.
const maxConns = 256

// Limit returns a listener of which maxConns connections can be open at a time.
func Limit(l net.Listener) net.Listener {
	return limited{l, make(chan struct{}, maxConns)}
}

type limited struct {
	net.Listener
	places chan struct{}
}

func (l limited) Accept() (net.Conn, error) {
	l.places <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &place{Conn: c, free: sync.OnceFunc(func() { <-l.places })}, nil
}

// place is a connection that holds a place until it is closed.
type place struct {
	net.Conn
	free func()
}

func (p *place) Close() error {
	defer p.free()
	return p.Conn.Close()
}

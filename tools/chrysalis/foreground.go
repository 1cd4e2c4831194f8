package main

import (
	"context"
	"net"
	"os"
	"time"
)

// How long a guest that ended waits before it is started again: twice as long each time, until one has served for a while.
const (
	firstWait = time.Second
	longWait  = time.Minute
	steady    = 10 * time.Minute
)

// supervised is a guest as up --foreground keeps it.
type supervised struct {
	boot func(context.Context) error         // starts the guest and returns when it serves
	end  func(context.Context) error         // returns when it has ended, and why
	stop func(context.Context) error         // powers it off
	say  func(why error, wait time.Duration) // that it is started again
}

// keep boots the guest, and boots it again when it ends, until the context is cancelled; then it powers the guest off. A guest that
// never served is not tried again: what keeps it from serving is in its config or this machine.
func (s supervised) keep(ctx context.Context) error {
	served := false
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		began := time.Now()
		err := s.boot(ctx)
		if err == nil {
			served = true
			err = s.end(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return s.stop(context.WithoutCancel(ctx))
		case !served:
			return err
		case time.Since(began) > steady:
			wait = firstWait
		}
		s.say(err, wait)
		select {
		case <-ctx.Done():
			return s.stop(context.WithoutCancel(ctx))
		case <-time.After(wait):
		}
	}
}

// notify tells systemd how the guest stands, where it started this program and asks for that: sd_notify(3). Nobody waits for it.
func notify(state string) {
	address := os.Getenv("NOTIFY_SOCKET")
	if address == "" {
		return
	}
	conn, err := net.Dial("unixgram", address) // "@" begins an abstract one for both
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}

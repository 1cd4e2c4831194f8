package services

import (
	"context"
	"errors"
	"io"
	"net"
	"os"

	"chrysalis/init/internal/sealing"
	"chrysalis/init/status"
	"chrysalis/runtime/role"
)

// Keeper starts the keeper with the journal's disk and its stream to who asks liteservers, gives it the secret, which nobody else gets, and
// forgets it. What the keeper hands out goes to proofs.
func (s *Services) Keeper(ctx context.Context, journal, chain *os.File, proofs io.Writer) error {
	if err := os.MkdirAll(keeperDir, 0o755); err != nil {
		return err
	}
	socket, err := listenUnix(keeperDir+"/"+role.KeeperSocketName, role.GatewayUser)
	if err != nil {
		return err
	}
	defer socket.Close()
	return s.keeper(ctx, journal, chain, socket, proofs)
}

func (s *Services) keeper(ctx context.Context, journal, chain, socket *os.File, proofs io.Writer) error {
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	defer in.Close()
	handed, hands, err := os.Pipe()
	if err != nil {
		return err
	}
	defer hands.Close()
	go s.forward(handed, proofs)
	files := role.Files{role.SecretPipe: out, role.Journal: journal, role.Socket: socket, role.Proofs: hands, role.Chain: chain}
	return s.run(ctx, role.Keeper, role.Settings{}, files, func() error {
		return s.hand(in, func(pipe io.Writer, t sealing.Taken) error { return role.SendSecret(pipe, t.Secret, t.Boots) })
	})
}

// forward hands the keeper's proofs to the host. A keeper that says anything else is somebody else's by now; a host that takes nothing
// any more loses what it does not take.
func (s *Services) forward(handed *os.File, proofs io.Writer) {
	defer handed.Close()
	if err := role.ForwardProofs(handed, &host{to: proofs}); err != nil {
		s.End(status.KeeperExited, err)
	}
}

// host is a writer whose errors are the host's own affair.
type host struct {
	to   io.Writer
	gone bool
}

func (h *host) Write(b []byte) (int, error) {
	if !h.gone {
		_, err := h.to.Write(b)
		h.gone = err != nil
	}
	return len(b), nil
}

// hand writes the secret's message, and ends the pipe.
func (s *Services) hand(pipe *os.File, send func(io.Writer, sealing.Taken) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken.Secret == nil {
		return errors.New("there is no secret to give away")
	}
	defer s.forget()
	// A pipe takes so short a message whole, whether or not somebody reads it.
	if err := send(pipe, s.taken); err != nil {
		return err
	}
	return pipe.Close()
}

// listenUnix opens a socket that one user alone can connect to.
func listenUnix(path string, user int) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if err := errors.Join(os.Chown(path, user, user), os.Chmod(path, 0o600)); err != nil {
		return nil, err
	}
	return l.File()
}

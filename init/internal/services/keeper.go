package services

import (
	"context"
	"errors"
	"net"
	"os"

	"chrysalis/runtime/role"
)

// Keeper starts the keeper with the journal's disk, gives it the secret, which nobody else gets, and forgets it.
func (s *Services) Keeper(ctx context.Context, journal *os.File) error {
	if err := os.MkdirAll(keeperDir, 0o755); err != nil {
		return err
	}
	socket, err := listenUnix(keeperDir+"/"+role.KeeperSocketName, role.GatewayUser)
	if err != nil {
		return err
	}
	defer socket.Close()
	return s.keeper(ctx, journal, socket)
}

func (s *Services) keeper(ctx context.Context, journal, socket *os.File) error {
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	defer in.Close()
	files := role.Files{role.SecretPipe: out, role.Journal: journal, role.Socket: socket}
	return s.run(ctx, role.Keeper, role.Settings{}, files, func() error { return s.hand(in) })
}

// hand writes the secret's message, and ends the pipe.
func (s *Services) hand(pipe *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secret == nil {
		return errors.New("starting keeper: there is no secret to give to it")
	}
	defer s.forget()
	// A pipe takes so short a message whole, whether or not somebody reads it.
	if err := role.SendSecret(pipe, s.secret, s.boots); err != nil {
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

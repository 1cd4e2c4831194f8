package services

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"chrysalis/init/internal/mount"
	"chrysalis/runtime/role"
)

// Gateway starts the gateway with the socket that it accepts on. quotes serves the stream on which it asks for quotes, until that
// ends.
func (s *Services) Gateway(ctx context.Context, listener *os.File, quotes func(stream *os.File)) error {
	if err := os.MkdirAll(gatewayRoot, 0o755); err != nil {
		return err
	}
	if err := mount.Bind(keeperDir, gatewayRoot+keeperMount); err != nil {
		return err
	}
	if err := mount.Bind(engineSocketDir, gatewayRoot+engineMount); err != nil {
		return err
	}
	ours, theirs, err := socketPair("quotes")
	if err != nil {
		return err
	}
	defer theirs.Close()
	go quotes(ours)
	return s.run(ctx, role.Gateway, role.Settings{
		role.KeeperSocket: keeperMount + "/" + role.KeeperSocketName, role.EngineSocket: engineMount + "/" + role.EngineSocketName,
		role.Chroot: gatewayRoot,
	}, role.Files{role.Listener: listener, role.Quotes: theirs}, nil)
}

func socketPair(name string) (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

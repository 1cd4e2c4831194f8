package services

import (
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"chrysalis/init/internal/mount"
	"chrysalis/init/status"
	"chrysalis/measure/engines"
	"chrysalis/runtime/role"
)

// Gateway starts the gateway of so many models with the socket that it accepts on. quotes serves the stream on which it asks for quotes, until that
// ends. On wipes it asks engine-host. What it counts goes to numbers, which waits for nobody.
func (s *Services) Gateway(ctx context.Context, listener, wipes *os.File, models int, quotes func(stream *os.File), numbers io.Writer) error {
	if err := os.MkdirAll(gatewayRoot, 0o755); err != nil {
		return err
	}
	if err := mount.Bind(keeperDir, gatewayRoot+keeperMount); err != nil {
		return err
	}
	for at := range models {
		if err := mount.Bind(engines.Nth(engineSocketDir, at, models), gatewayRoot+engines.Nth(engineMount, at, models)); err != nil {
			return err
		}
	}
	ours, theirs, err := socketPair("quotes")
	if err != nil {
		return err
	}
	defer theirs.Close()
	counted, counts, err := os.Pipe()
	if err != nil {
		ours.Close()
		return err
	}
	defer counts.Close()
	go s.forwardNumbers(counted, numbers)
	go quotes(ours)
	return s.run(ctx, role.Gateway, role.Settings{
		role.KeeperSocket: keeperMount + "/" + role.KeeperSocketName, role.EngineSocket: engineMount + "/" + role.EngineSocketName,
		role.Chroot: gatewayRoot,
	}, role.Files{role.Listener: listener, role.Quotes: theirs, role.Wipes: wipes, role.Numbers: counts}, nil)
}

// forwardNumbers hands what the gateway counts to the host. A gateway that says anything else is somebody else's by now.
func (s *Services) forwardNumbers(counted *os.File, numbers io.Writer) {
	defer counted.Close()
	if err := role.ForwardNumbers(counted, numbers, time.Now); err != nil {
		s.End(status.GatewayExited, err)
	}
}

func socketPair(name string) (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}

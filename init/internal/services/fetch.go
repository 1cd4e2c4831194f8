package services

import (
	"context"
	"errors"
	"os"

	"chrysalis/runtime/role"
)

// Fetch starts the process that asks liteservers, with the host document, and returns the stream that is the keeper's.
func (s *Services) Fetch(ctx context.Context, host []byte) (chain *os.File, err error) {
	if err := errors.Join(os.MkdirAll(emptyRoot, 0o755), os.WriteFile(hostFile, host, 0o400)); err != nil {
		return nil, err
	}
	return s.fetch(ctx)
}

func (s *Services) fetch(ctx context.Context) (*os.File, error) {
	chain, theirs, err := socketPair("chain")
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	err = s.run(ctx, role.Fetch, role.Settings{role.Host: hostFile, role.Chroot: emptyRoot}, role.Files{role.Chain: theirs}, nil)
	if err != nil {
		return nil, errors.Join(err, chain.Close())
	}
	return chain, nil
}

// NoChain returns a stream at the other end of which is nobody: a keeper that has it settles nothing.
func NoChain() (*os.File, error) {
	chain, theirs, err := socketPair("chain")
	if err != nil {
		return nil, err
	}
	return chain, theirs.Close()
}

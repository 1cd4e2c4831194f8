package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/tools/internal/earned"
)

// What guests of a folder have handed out stays there when they are forgotten.
const (
	ProofsFile  = "proofs.log"  // receipts and charges, as package earned reads them
	SignersFile = "signers.log" // the keys of the guests that were booted here
)

// tidyProofs leaves the newest proof of each contract in the file, before a guest adds to it.
func (g Guest) tidyProofs() error {
	f, err := os.Open(g.Path(ProofsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return os.WriteFile(g.Path(ProofsFile), nil, 0o644)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	log, err := earned.Read(f)
	if err != nil {
		return fmt.Errorf("tidying %s: %w", f.Name(), err)
	}
	// In the file's place at once: what was earned must not be lost to a power cut.
	next, err := os.Create(f.Name() + ".new")
	if err != nil {
		return err
	}
	defer next.Close()
	if err := errors.Join(earned.Write(next, log), next.Sync()); err != nil {
		return fmt.Errorf("tidying %s: %w", f.Name(), err)
	}
	return os.Rename(next.Name(), f.Name())
}

// RememberSigners asks the guest that serves for the keys with which it signs, so that its claims can be verified when it is gone. It
// is the host's own note about a guest of its own, and proves nothing to anybody else.
func (g Guest) RememberSigners(ctx context.Context, spec Spec) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	certificate, err := spec.greet(ctx)
	if err != nil {
		return fmt.Errorf("asking guest for its keys: %w", err)
	}
	e, err := evidence.FromCertificate(certificate)
	if err != nil {
		return fmt.Errorf("asking guest for its keys: %w", err)
	}
	return g.rememberSigners(earned.Signers{Receipt: e.Statement.ReceiptKey, Claim: e.Statement.ClaimKey})
}

func (g Guest) rememberSigners(s earned.Signers) error {
	f, err := os.OpenFile(g.Path(SignersFile), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	known, err := earned.ParseSigners(f)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if slices.Contains(known, s) {
		return nil
	}
	if _, err := fmt.Fprintln(f, s); err != nil {
		return err
	}
	return f.Sync()
}

// Forget removes what the guest's folder holds but for what guests have handed out, and the folder itself where that is nothing.
func (g Guest) Forget() error {
	files, err := os.ReadDir(g.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	keep := false
	if info, err := os.Stat(g.Path(ProofsFile)); err == nil {
		keep = info.Size() > 0
	}
	for _, f := range files {
		if keep && (f.Name() == ProofsFile || f.Name() == SignersFile) {
			continue
		}
		if err := os.RemoveAll(g.Path(f.Name())); err != nil {
			return err
		}
	}
	if keep {
		return nil
	}
	return os.Remove(g.Dir)
}

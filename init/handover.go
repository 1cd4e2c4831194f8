package main

import (
	"context"
	"errors"
	"fmt"

	"chrysalis/attest/evidence"
	"chrysalis/attest/handover"
	"chrysalis/init/internal/boot"
	"chrysalis/init/internal/sealing"
	"chrysalis/init/status"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
)

// handOver reads the host document, and does what it may ask of the secret: to seal it to another image. That is done here, in a boot of
// its own that serves nobody, and not in a guest that serves: the secret is then in no process but this one, for the moment between
// unsealing and sealing, the list is read before it is there at all, and nobody has to keep it or to hand it back. The guest ends
// after it, whatever came of it.
func (g *guest) handOver(ctx context.Context) error {
	var err error
	if g.hostDoc, err = config.DecodeHost(g.hostSays); err != nil {
		return err
	}
	if !g.borrows() {
		if err := g.openVault(ctx); err != nil {
			return err
		}
	}
	asked := g.hostDoc.Handover
	if !asked.Asked() {
		if own, ok := g.vault.(sealing.Keeper); ok && g.isCustodian() {
			g.blank, err = own.Blank()
		}
		return err
	}
	mover, giver, err := g.mayHandOver(asked)
	if err != nil {
		return boot.Coded{Code: status.HandoverRefused, Err: err}
	}
	if err := g.recorder.HandOver(func() error { return mover.Move(named(asked.PCRs), giver) }); err != nil {
		return sealed(err)
	}
	return boot.Coded{Code: status.HandedOver, Err: errors.New("the secret is another image's")}
}

// mayHandOver judges what is asked. giver is the measurement that the list of those who have held the secret has to end in: zeros where
// the taker is the same image.
func (g *guest) mayHandOver(asked config.HostHandover) (mover sealing.Mover, giver register.Digest, err error) {
	mover, ok := g.vault.(sealing.Mover)
	if !ok {
		return nil, giver, fmt.Errorf("sealing is %q, want %q: no other can seal to another image", g.config.Identity.Sealing, config.SealTPM)
	}
	own, err := mover.Image()
	if err != nil {
		return nil, giver, err
	}
	identity, _, err := config.Split(g.measured)
	if err != nil {
		return nil, giver, err
	}
	party := func(registers map[string][]byte) handover.Party {
		// What the secret is sealed to has this boot's identity: it is one of the registers.
		return handover.Party{Platform: evidence.VTPM, Registers: registers, Identity: config.IdentityDigest(identity)}
	}
	h := handover.Handover{Giver: party(own), Taker: party(named(asked.PCRs)), Image: g.image, Narrowed: g.config.Identity.Handover, List: asked.List}
	if err := h.Judge(); err != nil {
		return nil, giver, err
	}
	giver, err = h.Adds()
	return mover, giver, err
}

// named returns registers by their names.
func named(pcrs register.PCRs) map[string][]byte {
	values := map[string][]byte{}
	for index, value := range pcrs {
		values[register.PCR(index)] = value[:]
	}
	return values
}

package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"chrysalis/attest/check"
	"chrysalis/measure/config"
	"chrysalis/measure/register"
	"chrysalis/runtime/cell"
	"chrysalis/runtime/chain"
	"chrysalis/runtime/claim"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/onchain"
)

// settleFlags say how a guest whose charges are settled on chain reaches it.
type settleFlags struct {
	source chainFlags
	ends   bool
}

func (f *settleFlags) add(cmd *cobra.Command) {
	f.source.addServers(cmd, "ton-config")
	cmd.Flags().BoolVar(&f.ends, "end-contracts", false, "with a config that settles on chain: have the guest serve nobody any more, settle with everybody, and close its proxy")
}

// chainOf is the chain of a config that settles, and where its proof begins.
func chainOf(m config.Measured) chain.Network {
	if m.Identity.Network == config.Mainnet {
		return chain.Mainnet
	}
	a := m.Service.Chain.Anchor
	return chain.NewNetwork(string(m.Identity.Network), a.GlobalID, a.Seqno, a.RootHash, a.FileHash)
}

// apply hands the guest liteservers and the root's params: those of the file, read by proofs, or those that it had before.
func (f *settleFlags) apply(cmd *cobra.Command, spec *guest.Spec, before guest.Spec) error {
	m := spec.Config
	switch settles := m.Service.Settles(); {
	case !settles && (f.source.file != "" || f.ends):
		return exitError{exitUsage, errors.New("--ton-config and --end-contracts are for a config that settles on chain (chrysalis earn init writes one)")}
	case !settles:
		return nil
	case f.source.file == "" && before.Chain.Given() && before.Config.Service.Chain.Params == m.Service.Chain.Params:
		spec.Chain = before.Chain
		spec.Chain.Close = f.ends
		return nil
	case f.source.file == "":
		return exitError{exitUsage, errors.New("the config settles on chain: --ton-config names liteservers to read it through")}
	}
	o, err := f.source.options(cmd)
	if err != nil {
		return err
	}
	o.Network = chainOf(m)
	r, err := onchain.Open(cmd.Context(), o)
	if err != nil {
		return chainError(err)
	}
	root, err := r.Account(cmd.Context(), m.Identity.RootContract)
	if err != nil {
		return chainError(err)
	}
	if spec.Chain.Params, err = paramsOf(root, m.Service.Chain.Params); err != nil {
		return chainError(err)
	}
	var at []netip.AddrPort
	var keys [][32]byte
	for _, s := range o.Servers {
		at, keys = append(at, s.Address), append(keys, s.Key)
	}
	spec.Chain.Liteservers, spec.Chain.Close = guest.Liteservers(at, keys), f.ends
	return nil
}

// paramsOf returns a root contract's params as a bag of cells, whose hash the config has.
func paramsOf(root chain.Account, want register.Digest) ([]byte, error) {
	if root.Status != chain.Active || root.Data == nil {
		return nil, fmt.Errorf("%w: root contract %s is %s (chrysalis earn init says how to deploy it)", check.ErrRejected, root.Address, root.Status)
	}
	d, err := claim.ParseRoot(root.Data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", check.ErrRejected, root.Address, err)
	}
	params, err := d.Params.Cell()
	if err != nil {
		return nil, err
	}
	if got := register.Digest(params.Hash()); got != want {
		return nil, fmt.Errorf("%w: root contract %s has the params %s, and the config names %s", check.ErrRejected, root.Address, got, want)
	}
	return cell.Encode(params)
}

package claim

import (
	_ "embed"
	"fmt"

	"chrysalis/measure/ton"
	"chrysalis/runtime/cell"
)

// guardBag is guard/guard.tolk, compiled by tolk-js 1.3.0 (npm @ton/tolk-js) with its standard settings.
//
//go:embed guard/guard.boc
var guardBag []byte

// Guard is the data of the contract that owns a proxy here. It passes coins on to Owner and tells nobody anything: with it as the owner, a
// proxy's end is begun by the proxy's key alone, and its owner can't take deposits out by it.
type Guard struct {
	Owner ton.Address
}

// Cell builds the data.
func (g Guard) Cell() (*cell.Cell, error) { return new(cell.Builder).Address(g.Owner).Cell() }

// GuardCode returns the guard's code.
func GuardCode() *cell.Cell {
	c, err := cell.ParseOne(guardBag)
	if err != nil {
		panic(fmt.Sprintf("the guard's code: %v", err))
	}
	return c
}

// Address returns the guard's address.
func (g Guard) Address() (ton.Address, error) { return Address(GuardCode(), g) }

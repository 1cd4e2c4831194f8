package chaintest

import (
	"embed"

	house "chrysalis/runtime/cell"
)

// The contracts were compiled from contracts/*.tolk by tolk-js 1.3.0 (npm @ton/tolk-js) with its standard settings.
//
//go:embed contracts/*.boc
var contracts embed.FS

// Code returns the code of one of this folder's contracts: root, proxy, client, worker or wallet.
func Code(name string) *house.Cell {
	bag, err := contracts.ReadFile("contracts/" + name + ".boc")
	if err != nil {
		panic(err)
	}
	c, err := house.ParseOne(bag)
	if err != nil {
		panic(err)
	}
	return c
}

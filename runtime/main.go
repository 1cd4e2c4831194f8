// Command runtime is the part of the guest's service that holds keys, in roles that init starts as processes of their own:
//
//	runtime keeper     owns the keys that sign and the journal; no network
//	runtime custodian  keeps a secret and counts its loans, in the place of both; no network
//	runtime gateway    answers the network; owns nothing but its TLS key
//
// The third process of the service, engine-host, is a program of its own, so that what it links stays out of this one.
//
// Each takes its settings from the measured config and its flags, and what it may touch from inherited descriptors. A role
// says on its status pipe, in words of a closed vocabulary, when it is ready and why it gave up.
package main

import (
	"fmt"
	"os"

	"chrysalis/measure/config"
	"chrysalis/runtime/role"
)

// roles are what this program can be.
var roles = map[role.Role]role.Run{role.Keeper: runKeeper, role.Gateway: runGateway, role.Custodian: runCustodian}

func main() { os.Exit(role.Main(os.Args[1:], roles)) }

// readMeasured reads the measured config, which init has hashed and logged before.
func readMeasured(path string) (config.Measured, []byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return config.Measured{}, nil, fmt.Errorf("reading measured config: %w", err)
	}
	m, err := config.Decode(raw)
	if err != nil {
		return config.Measured{}, nil, err
	}
	return m, raw, nil
}

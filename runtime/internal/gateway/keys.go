package gateway

import (
	"context"
	"fmt"
	"net/http"

	"github.com/go-json-experiment/json"

	"chrysalis/measure/ton"
	"chrysalis/runtime/api"
)

// maxKeyBody bounds a request about a key.
const maxKeyBody = 1 << 10

// key makes a key of the contract whose own is shown, or revokes it: {"name": "ci", "cap": 1000000}, with a cap of 0. The key follows from the name
// and from what is shown, so its text need not be kept by anybody.
func (g *Gateway) key(w http.ResponseWriter, r *http.Request) error {
	own, err := g.shown(r)
	if err != nil {
		return err
	}
	memory := g.bodies.of(r)
	defer memory.give()
	body, err := readBody(r, maxKeyBody, memory)
	if err != nil {
		return err
	}
	var asked struct {
		Name string  `json:"name"`
		Cap  *uint64 `json:"cap"`
	}
	if err := json.Unmarshal(body, &asked, json.RejectUnknownMembers(true)); err != nil {
		return refuse("", "the body is not an object of name and cap alone")
	}
	if err := api.CheckKeyName(asked.Name); err != nil {
		return refuse("name", "%s", err)
	}
	if asked.Cap == nil {
		return refuse("cap", "cap is missing: weighted tokens that the key may use in all, or 0 to revoke it")
	}
	var name [api.MaxKeyName]byte
	copy(name[:], asked.Name)
	derived := own.Derive(asked.Name)
	ctx, cancel := context.WithTimeout(r.Context(), g.waits.record)
	defer cancel()
	used, err := g.config.Keeper.SetKey(ctx, ton.Address{Account: own.Contract}, own.SecretHash(), derived.SecretHash(), name, *asked.Cap)
	if err != nil {
		return unreserved(err)
	}
	writeJSON(w, fmt.Appendf(nil, `{"name":"%s","key":"%s","cap":%d,"used":%d}`+"\n", asked.Name, derived, *asked.Cap, used))
	return nil
}

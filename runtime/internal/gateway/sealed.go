package gateway

import (
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/guest"
	"chrysalis/attest/ratls/session"
	envelope "chrysalis/runtime/envelope/guest"
)

// newOpener opens envelopes with the keys that attested holds.
func newOpener(attested *guest.Server) *envelope.Opener {
	return envelope.NewOpener(func(id evidence.KeyID) (envelope.Key, bool) {
		k, ok := attested.HPKE(id)
		return envelope.Key{PrivateKey: k.PrivateKey, Epoch: k.Epoch, Instance: k.Instance}, ok
	}, nil)
}

// What is answered in the clear to an envelope that was not opened.
var (
	errRekey = &refusal{status: http.StatusMisdirectedRequest, code: "rekey",
		message: "the guest does not hold the envelope's key and has read nothing: verify it anew, and seal anew"}
	errEnvelope = &refusal{status: http.StatusBadRequest, code: "envelope", message: "this is no envelope for this guest, path and key, or it was changed"}
	errWindow   = &refusal{status: http.StatusBadRequest, code: "envelope_window", message: "the envelope is not good at the guest's time"}
	errReplayed = &refusal{status: http.StatusConflict, code: "envelope_replayed", message: "the envelope was opened before"}
)

func isSealed(r *http.Request) bool { return r.Header.Get("Content-Type") == envelope.RequestType }

// unseal opens what comes in an envelope, and has next answer it as it answers everything else: into an envelope.
func (g *Gateway) unseal(w http.ResponseWriter, r *http.Request, next http.Handler) error {
	path, _, query := strings.Cut(r.RequestURI, "?")
	if err := checkFraming(r, route{method: http.MethodPost, body: true, sealed: true}, query); err != nil {
		return err
	}
	if path == session.EvidencePath { // it is what an envelope's key comes out of, and says whose connection it came over
		return refuse("", "evidence is asked for with GET, and not in an envelope")
	}
	// A guest that does not hold the key reads nothing, so that a client may send it elsewhere.
	named := r.Header.Values(envelope.KeyHeader)
	var id evidence.KeyID
	if len(named) != 1 || hex.EncodedLen(len(id)) != len(named[0]) || strings.ToLower(named[0]) != named[0] {
		return errEnvelope
	}
	if _, err := hex.Decode(id[:], []byte(named[0])); err != nil {
		return errEnvelope
	}
	if _, held := g.attested.HPKE(id); !held {
		return errRekey
	}
	memory := g.bodies.of(r)
	defer memory.give()
	sealed, err := readBody(r, envelope.SealedBytes(g.served.requestBytes()), memory)
	if err != nil {
		return err
	}
	request, secret, err := g.envelopes.Open(sealed, id, r.Method, path)
	switch {
	case errors.Is(err, envelope.ErrKey):
		return errRekey
	case errors.Is(err, envelope.ErrWindow):
		return errWindow
	case errors.Is(err, envelope.ErrReplayed):
		return errReplayed
	case errors.Is(err, envelope.ErrFull):
		return errBusy
	case err != nil:
		return errEnvelope
	}
	defer request.Wipe()
	// A request has one id.
	return secret.Serve(w, r, request, http.Header{requestIDHeader: w.Header().Values(requestIDHeader)}, next)
}

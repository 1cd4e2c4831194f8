package ratls

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"

	"chrysalis/attest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls/session"
)

// Detached verifies the guest at a base URL over a connection that somebody else may end: asker sends the one request, and nothing
// that it says of TLS counts. The Result yields the key that envelopes are sealed to, and binds no connection. Errors are those of
// Dial. Of config, Reach, Dial and MaxConns are not used: how long anybody is waited for is asker's.
func Detached(ctx context.Context, asker http.RoundTripper, base string, config Config) (*attest.Result, error) {
	config = config.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, config.Timeout)
	defer cancel()
	var nonce [32]byte
	rand.Read(nonce[:])
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		base+session.EvidencePath+"?"+session.DetachedNonce+"="+hex.EncodeToString(nonce[:]), nil)
	if err != nil {
		return nil, fmt.Errorf("fetching evidence: %v", err)
	}
	response, err := asker.RoundTrip(request)
	if err != nil {
		return nil, fmt.Errorf("fetching evidence: %w: %w", attest.ErrUnavailable, err)
	}
	defer response.Body.Close()
	body, err := readEvidence(response)
	if err != nil {
		return nil, fmt.Errorf("fetching evidence: %w: %w", attest.ErrUnavailable, err)
	}
	return config.judge(ctx, body, func(e *evidence.Evidence) (*attest.Result, error) {
		policy, err := config.policy(e)
		if err != nil {
			return nil, err
		}
		return attest.VerifyDetached(e, nonce, policy, config.Now(), config.Roots)
	})
}

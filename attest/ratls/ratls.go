// Package ratls is TLS 1.3 whose other end is attested. The server's certificate is self-signed and carries epoch evidence for
// its key: a client whose policy refuses that ends the handshake. Epoch evidence is no proof of who is at the other end now, so
// the client fetches evidence over the connection before its first request, and goes on only if the evidence binds
// both the certificate's key and the connection's own exporter. Whoever relays genuine evidence over another connection,
// even with the guest's TLS key in hand, has another exporter and is refused.
//
// A client needs a policy and the roots that it trusts:
//
//	client := &http.Client{Transport: ratls.NewTransport(ratls.Config{Policy: policy, Roots: roots})}
//
// The guest's end is package guest, which judges nothing.
package ratls

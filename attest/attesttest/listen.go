package attesttest

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"testing"
)

// Listen serves h on the loopback interface with a TLS configuration until the test ends, and returns the address.
func Listen(t testing.TB, h http.Handler, config *tls.Config, connContext func(context.Context, net.Conn) context.Context) string {
	t.Helper()
	// httptest's server would put a certificate of its own beside GetCertificate.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, ConnContext: connContext, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(tls.NewListener(listener, config)) // it ends when the test does
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return listener.Addr().String()
}

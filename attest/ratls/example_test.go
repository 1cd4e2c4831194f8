package ratls_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"chrysalis/attest"
	"chrysalis/attest/attesttest"
	"chrysalis/attest/evidence"
	"chrysalis/attest/ratls"
	"chrysalis/attest/ratls/guest"
	"chrysalis/attest/ratls/session"
)

// exampleGuest starts a guest in software. Its policy and roots are in the place of those that a client brings along.
func exampleGuest() (url string, config ratls.Config, done func()) {
	measured, err := os.ReadFile(filepath.Join("..", "..", "measure", "config", "testdata", "vectors", "measured.bin"))
	if err != nil {
		panic(err)
	}
	g := attesttest.New(measured, time.Now())
	server, err := guest.NewServer(func(r evidence.Request) (*evidence.Evidence, error) {
		g.Statement.Epoch, g.Statement.NotAfter, g.Statement.HPKEKey = r.Epoch, r.NotAfter, r.HPKEKey
		return g.Attest(r.NonceRoot, r.TLSKey), nil
	}, nil)
	if err != nil {
		panic(err)
	}
	mux := http.NewServeMux()
	mux.Handle(session.EvidencePath, server)
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "from inside") })
	t, done := attesttest.ForExample()
	address := attesttest.Listen(t, mux, server.TLSConfig(), server.ConnContext)
	return "https://" + address, ratls.Config{Policy: g.Policy(), Roots: g.Roots()}, done
}

// A Transport makes an http.Client that talks to verified guests and to nobody else.
func Example() {
	url, config, done := exampleGuest()
	defer done()

	client := &http.Client{Transport: ratls.NewTransport(config)}
	defer client.CloseIdleConnections()
	response, err := client.Get(url + "/hello")
	if err != nil {
		panic(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err != nil {
		panic(err)
	}
	fmt.Println(string(body))

	// The zero policy accepts nothing, and a guest that is refused gets no request.
	refusing := &http.Client{Transport: ratls.NewTransport(ratls.Config{Roots: config.Roots})}
	_, err = refusing.Get(url + "/hello")
	fmt.Println(errors.Is(err, attest.ErrRejected))
	// Output:
	// from inside
	// true
}

// Dial is for what is not HTTP, or for a client that wants to know whom it talks to.
func ExampleDial() {
	url, config, done := exampleGuest()
	defer done()

	conn, err := ratls.Dial(context.Background(), "tcp", url[len("https://"):], config)
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Println(conn.Result().Platform(), conn.Result().Release(), conn.Result().Config().Identity.Network)
	// Output:
	// vtpm software local
}

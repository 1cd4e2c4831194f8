package proxy

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// checkOrigin accepts the origin of a page on this machine.
func checkOrigin(origin string) error {
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || *u != (url.URL{Scheme: u.Scheme, Host: u.Host}) || !isLocal(u.Hostname()) {
		return fmt.Errorf("origin %q, want that of a page on this machine: http://localhost:PORT", origin)
	}
	return nil
}

// isLocal reports whether a host's name means this machine whoever resolves it.
func isLocal(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

// admit refuses what a program on this machine does not send: a request by another host's name (a page whose name was made to resolve
// to this machine), and one of a page that was not named. The error is for the client.
func (p *Proxy) admit(r *http.Request, address string) error {
	host, port, err := net.SplitHostPort(r.Host)
	_, own, _ := net.SplitHostPort(address)
	if err != nil || port != own || !isLocal(host) && r.Host != address {
		return fmt.Errorf("the request is for host %.80q, and this is localhost:%s", r.Host, own)
	}
	if !strings.HasPrefix(r.RequestURI, "/") { // another reader could take its host for the request's
		return fmt.Errorf("the request is for %.80q, want a path", r.RequestURI)
	}
	origins := r.Header.Values("Origin")
	switch {
	case len(origins) > 1:
		return fmt.Errorf("the request has %d origins", len(origins))
	case len(origins) == 1 && !slices.Contains(p.config.Origins, origins[0]) && origins[0] != "http://"+r.Host:
		return fmt.Errorf("pages of %.80q may not ask here: name them with --cors", origins[0])
	case len(origins) == 0 && slices.Contains([]string{"cross-site", "same-site"}, r.Header.Get("Sec-Fetch-Site")):
		return fmt.Errorf("another site's page may not ask here")
	}
	return nil
}

// allow tells a page that was named that it may read the answer.
func (p *Proxy) allow(w http.ResponseWriter, r *http.Request) {
	origin := r.Header.Get("Origin")
	if !slices.Contains(p.config.Origins, origin) {
		return
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Expose-Headers", strings.Join(append(slices.Clone(passedBack), identityHeaders...), ", "))
	if r.Method == http.MethodOptions {
		h.Set("Access-Control-Allow-Methods", "GET, POST")
		h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
		h.Set("Access-Control-Max-Age", "600")
	}
}

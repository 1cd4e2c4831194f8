package main

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"chrysalis/tools/internal/guest"
)

// openPort is the port of a guest that other machines reach, where none is named.
const openPort = 8443

// listenAddress decides on which IPv4 address and port of this machine a guest is, out of --listen ADDR[:PORT] and --port. A guest that was
// started before keeps its port; its address is the loopback interface's unless --listen says another each time.
func listenAddress(listen string, port int, before guest.Spec) (address string, _ int, err error) {
	host, text, _ := strings.Cut(listen, ":")
	ip := net.ParseIP(host).To4()
	if host == "localhost" {
		host, ip = "127.0.0.1", net.IPv4(127, 0, 0, 1)
	}
	if listen != "" && (ip == nil || strings.HasSuffix(listen, ":")) {
		return "", 0, fmt.Errorf("--listen is %.80q, want an IPv4 address of this machine, and :PORT behind it where it is to be another", listen)
	}
	if text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != text {
			return "", 0, fmt.Errorf("--listen: port is %.40q, want 1 to 65535", text)
		}
		if port != 0 && port != int(n) {
			return "", 0, fmt.Errorf("--listen says port %d and --port says %d: give one", n, port)
		}
		port = int(n)
	}
	if port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("--port is %d, want 1 to 65535", port)
	}
	if port == 0 {
		port = before.Port
	}
	if port == 0 && listen != "" {
		port = openPort
	}
	if port == 0 {
		port, err = guest.FreePort()
	}
	return host, port, err
}

// sayOpen says what it means that other machines reach a guest.
func sayOpen(w io.Writer, spec guest.Spec) {
	if !spec.Open() {
		return
	}
	fmt.Fprintf(w, "chrysalis: note: port %d of %s is open to whoever reaches this machine. Behind it is the guest alone, over TLS that ends in it: anybody may\n"+
		"verify it, ask it, and name a payment contract that is charged, so let in whom you mean. To the guest all of them have one address, the other\n"+
		"end of its network card, and share what one address may take.\n",
		spec.Port, spec.Listen)
}

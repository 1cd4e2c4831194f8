package config

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"

	"chrysalis/measure/register"
)

// diskMagic opens a config disk and fixes its layout.
const diskMagic = "CHRYCFG1"

// sectorBytes is what the length of a disk image is rounded up to.
const sectorBytes = 512

// Host is the host-given document: how the guest is reached. Untrusted; it can cut the guest off, and nothing more.
type Host struct {
	Network HostNetwork `json:"network"`
	Port    uint16      `json:"port"` // TCP port of the service inside the guest
	// QuotingPort is the vsock port on which the host's quoting service answers a TD; it is left out of the document where quotes
	// go by way of the kernel.
	QuotingPort uint32 `json:"quoting_port,omitzero"`
	// Endorsements are handed on to clients, and left out where there are none.
	Endorsements Endorsements `json:"endorsements,omitzero"`
	// Handover asks the guest to hand its secret to another image, and to end. It is left out of the document where nothing is asked.
	Handover HostHandover `json:"handover,omitzero"`
	// Custodian says where a guest that takes a loan reaches its custodian, or a custodian the one whose secret it takes over. It is left out of
	// other guests' documents.
	Custodian HostCustodian `json:"custodian,omitzero"`
	// Chain says how a guest whose charges are settled on chain reaches it. It is left out of other guests' documents.
	Chain HostChain `json:"chain,omitzero"`
}

// HostCustodian is a way to a custodian. Who answers there is judged by its evidence, and none of this is believed.
type HostCustodian struct {
	Address netip.AddrPort `json:"address"`       // IPv4
	List    []byte         `json:"list,omitzero"` // signed release list, where the two are not of one release
}

// Check wants an address, and a list in a size that a document has room for.
func (h HostCustodian) Check() error {
	if !h.Address.IsValid() || !h.Address.Addr().Is4() || h.Address.Port() == 0 {
		return fmt.Errorf("custodian: address is %q, want an IPv4 address and a port", h.Address)
	}
	if n := len(h.List); n > maxListBytes {
		return fmt.Errorf("custodian: the release list has %d bytes, want at most %d", n, maxListBytes)
	}
	return nil
}

// Given reports whether there is a way to a custodian.
func (h HostCustodian) Given() bool { return h.Address.IsValid() || len(h.List) > 0 }

// HostHandover names an image to which a guest shall hand its secret over. What it may be is the guest's own rule (attest/handover), and
// none of this is believed.
type HostHandover struct {
	PCRs register.PCRs `json:"pcrs"`          // that name the image to a TPM: 0, 4 and 9
	List []byte        `json:"list,omitzero"` // signed release list that names it
}

// maxListBytes bounds a list: in base64 it leaves room for what else the document has.
const maxListBytes = 256 << 10

// Check wants something to be asked for, in a size that a document has room for.
func (h HostHandover) Check() error {
	if n := len(h.PCRs); n == 0 || n > 24 {
		return fmt.Errorf("handover: %d registers, want 1 to 24", n)
	}
	if n := len(h.List); n > maxListBytes {
		return fmt.Errorf("handover: the release list has %d bytes, want at most %d", n, maxListBytes)
	}
	return nil
}

// Asked reports whether a handover is asked for.
func (h HostHandover) Asked() bool { return len(h.PCRs) > 0 || len(h.List) > 0 }

// Endorsements are what others vouch for about the machine, as the host got it from them. The guest believes none of it: it goes
// into the evidence, where clients judge it, so that they need not fetch it themselves.
type Endorsements struct {
	// Certificates lead from the key that signs the machine's reports towards a root, the key's own first, in DER.
	Certificates [][]byte `json:"certificates,omitzero"`
	// Collateral is Intel's in JSON on TDX, AMD's revocation list in DER on SEV-SNP.
	Collateral []byte `json:"collateral,omitzero"`
	// RIMs are reference values of the GPUs' driver and firmware, OCSP what responders say of certificates, Authorities certificates that the
	// chains of reference values may lack.
	RIMs        [][]byte `json:"rims,omitzero"`
	OCSP        [][]byte `json:"ocsp,omitzero"`
	Authorities [][]byte `json:"authorities,omitzero"`
}

// HostNetwork is how the guest gets its address.
type HostNetwork struct {
	Mode    string       `json:"mode"`    // "dhcp4" or "static"
	Address netip.Prefix `json:"address"` // static: address and prefix length
	Gateway netip.Addr   `json:"gateway"` // static: optional
}

// The ways to an address.
const (
	ModeDHCP4  = "dhcp4"
	ModeStatic = "static"
)

// Encode returns the canonical bytes of the document.
func (h Host) Encode() ([]byte, error) {
	if err := h.validate(); err != nil {
		return nil, err
	}
	return canonical(h)
}

// DecodeHost parses a host-given document. There is one encoding for each.
func DecodeHost(data []byte) (Host, error) {
	if len(data) > maxHostBytes {
		return Host{}, fmt.Errorf("decoding host document: %d bytes, want at most %d", len(data), maxHostBytes)
	}
	var h Host
	if err := decodeCanonical(data, &h); err != nil {
		return Host{}, fmt.Errorf("decoding host document: %v", err)
	}
	return h, h.validate()
}

func (h Host) validate() error {
	if h.Port == 0 {
		return fmt.Errorf("host document: port is 0")
	}
	if h.Handover.Asked() {
		if err := h.Handover.Check(); err != nil {
			return fmt.Errorf("host document: %w", err)
		}
	}
	if h.Custodian.Given() {
		if err := h.Custodian.Check(); err != nil {
			return fmt.Errorf("host document: %w", err)
		}
	}
	if h.Chain.Given() {
		if err := h.Chain.Check(); err != nil {
			return fmt.Errorf("host document: %w", err)
		}
	}
	n := h.Network
	switch n.Mode {
	case ModeDHCP4:
		if n.Address.IsValid() || n.Gateway.IsValid() {
			return fmt.Errorf("host document: mode is %q, but an address or gateway is given", n.Mode)
		}
	case ModeStatic:
		if !n.Address.IsValid() || !n.Address.Addr().Is4() {
			return fmt.Errorf("host document: mode is %q, but address %q is no IPv4 prefix", n.Mode, n.Address)
		}
		if n.Gateway.IsValid() && !n.Address.Contains(n.Gateway) {
			return fmt.Errorf("host document: gateway %s is outside %s", n.Gateway, n.Address)
		}
	default:
		return fmt.Errorf("host document: mode is %.40q, want %q or %q", n.Mode, ModeDHCP4, ModeStatic)
	}
	return nil
}

// EncodeDisk lays out a config disk: magic, measured bytes, host document with its length, zeros to a whole sector.
func EncodeDisk(measured, host []byte) ([]byte, error) {
	if _, _, err := Split(measured); err != nil {
		return nil, err
	}
	if len(host) > maxHostBytes {
		return nil, fmt.Errorf("host document has %d bytes, want at most %d", len(host), maxHostBytes)
	}
	disk := appendPart(append([]byte(diskMagic), measured...), host)
	return append(disk, make([]byte, (sectorBytes-len(disk)%sectorBytes)%sectorBytes)...), nil
}

// ReadDisk reads a config disk and returns its parts as they lie there: the caller hashes measured before it decodes
// it. No byte past the host document is read. Every length is bounded before it is believed.
func ReadDisk(disk io.Reader) (measured, host []byte, err error) {
	magic := make([]byte, len(diskMagic))
	if _, err := io.ReadFull(disk, magic); err != nil {
		return nil, nil, fmt.Errorf("reading config disk: magic: %v", err)
	}
	if string(magic) != diskMagic {
		return nil, nil, fmt.Errorf("reading config disk: magic is %q, want %q", magic, diskMagic)
	}
	for _, part := range []struct {
		name string
		max  int
	}{{"identity", maxIdentityBytes}, {"service", maxServiceBytes}} {
		body, err := readPart(disk, part.max)
		if err != nil {
			return nil, nil, fmt.Errorf("reading config disk: %s: %v", part.name, err)
		}
		measured = appendPart(measured, body)
	}
	if host, err = readPart(disk, maxHostBytes); err != nil {
		return nil, nil, fmt.Errorf("reading config disk: host document: %v", err)
	}
	return measured, host, nil
}

func readPart(r io.Reader, maxBytes int) ([]byte, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return nil, fmt.Errorf("length: %v", err)
	}
	n := binary.LittleEndian.Uint32(prefix[:])
	if n > uint32(maxBytes) {
		return nil, fmt.Errorf("length is %d, want at most %d", n, maxBytes)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("%d bytes: %v", n, err)
	}
	return body, nil
}

func appendPart(b, part []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(part))), part...)
}

func cutPart(b []byte, maxBytes int) (part, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("%d bytes left, want a length of 4", len(b))
	}
	n := binary.LittleEndian.Uint32(b)
	if n > uint32(maxBytes) {
		return nil, nil, fmt.Errorf("length is %d, want at most %d", n, maxBytes)
	}
	if b = b[4:]; uint64(n) > uint64(len(b)) {
		return nil, nil, fmt.Errorf("length is %d, but %d bytes are left", n, len(b))
	}
	return b[:n:n], b[n:], nil
}

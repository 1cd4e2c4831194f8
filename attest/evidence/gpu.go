package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// GPUs is what a guest shows of its GPUs and of the switches between them.
type GPUs struct {
	// Devices are the reports over the statement's GPU nonce, those of GPUs first.
	Devices []Device
	// RIMs are reference values, OCSP what responders say of certificates in DER, Authorities certificates in DER that the chains of
	// reference values may lack. They are stapled as collateral is, and whoever hands the evidence on may replace them.
	RIMs, OCSP, Authorities [][]byte
}

// Device is the evidence of one.
type Device struct {
	Kind   DeviceKind
	Report []byte // an SPDM request and its signed response
	Chain  []byte // PEM, the firmware's certificate first
}

// DeviceKind is what a device is.
type DeviceKind uint8

// The kinds.
const (
	KindGPU    DeviceKind = 1
	KindSwitch DeviceKind = 2
)

// Bounds of a machine's devices.
const (
	MaxGPUs     = 8
	MaxSwitches = 4
	// MaxDeviceBytes bounds their encoding.
	MaxDeviceBytes = 160 << 10
)

// Digest is what a statement has as its GPU digest: SHA-256 of the encoded devices, zeros without any. What is stapled is not in it.
func (g GPUs) Digest() [32]byte {
	if len(g.Devices) == 0 {
		return [32]byte{}
	}
	return sha256.Sum256(EncodeDevices(g.Devices))
}

const gpuNonceLabel = "chrysalis gpu nonce v1\x00"

// GPUNonce is what each device signs for a statement: SHA-256(label, statement without its GPU digest). So a report is of one request, key
// set, config and log alone, and of no other guest.
func GPUNonce(s Statement) [32]byte {
	s.GPUDigest = [32]byte{}
	return sha256.Sum256(append([]byte(gpuNonceLabel), s.Encode()...))
}

// EncodeDevices returns the one encoding of devices: section 10.
func EncodeDevices(devices []Device) (b []byte) {
	for _, d := range devices {
		b = append(b, byte(d.Kind))
		b = append(b, encodeList([][]byte{d.Report, d.Chain})...)
	}
	return b
}

// DecodeDevices parses what EncodeDevices writes. GPUs stand before switches.
func DecodeDevices(b []byte) (devices []Device, err error) {
	if len(b) > MaxDeviceBytes {
		return nil, fmt.Errorf("devices have %d bytes, want at most %d", len(b), MaxDeviceBytes)
	}
	last, count := KindGPU, map[DeviceKind]int{}
	for len(b) > 0 {
		d := Device{Kind: DeviceKind(b[0])}
		if d.Kind != KindGPU && d.Kind != KindSwitch || d.Kind < last {
			return nil, fmt.Errorf("device %d is of kind %d after kind %d, want GPUs (%d) and then switches (%d)", len(devices), d.Kind, last,
				KindGPU, KindSwitch)
		}
		last, b = d.Kind, b[1:]
		if d.Report, b, err = cutItem(b); err != nil {
			return nil, fmt.Errorf("report of device %d: %w", len(devices), err)
		}
		if d.Chain, b, err = cutItem(b); err != nil {
			return nil, fmt.Errorf("chain of device %d: %w", len(devices), err)
		}
		devices = append(devices, d)
		if count[d.Kind]++; count[KindGPU] > MaxGPUs || count[KindSwitch] > MaxSwitches {
			return nil, fmt.Errorf("%d GPUs and %d switches, want at most %d and %d", count[KindGPU], count[KindSwitch], MaxGPUs, MaxSwitches)
		}
	}
	return devices, nil
}

// cutItem cuts what is preceded by its length, which is not zero.
func cutItem(b []byte) (item, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("%d bytes left, want a length of 4", len(b))
	}
	n := binary.LittleEndian.Uint32(b)
	if b = b[4:]; n == 0 || int64(n) > int64(len(b)) {
		return nil, nil, fmt.Errorf("item of %d bytes, want 1 to the %d left", n, len(b))
	}
	return b[:n:n], b[n:], nil
}

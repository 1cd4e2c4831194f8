package dialect

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest/nvidia"
)

// Names in evidence of NVIDIA's attestation SDK. A conceptual message wrapper (CMW, draft-ietf-rats-msg-wrap) is a media type and a value
// in base64url; a collection has them under labels of its own.
const (
	cmwCollection  = "tag:nvidia.com,2026:verifier-input/profiles/base/pre-1.0.0"
	cmwItem        = "tag:nvidia.com,2026:evidence-item/v1"
	mediaReport    = "application/vnd.nvidia.spdm-measurement-transcript"
	mediaChain     = "application/vnd.nvidia.pem-cert-chain"
	mediaBytes     = "application/octet-stream"
	maxCMWItems    = 2 * nvidia.MaxDevices
	maxNVIDIABytes = 1 << 20
)

// IsNVIDIA reports whether a file may be evidence as NVIDIA's SDK writes it: a JSON object or array.
func IsNVIDIA(file []byte) bool { return len(file) > 0 && (file[0] == '{' || file[0] == '[') }

// NVIDIA reads devices as NVIDIA's attestation SDK writes them: as a collection of conceptual message wrappers, or as an array of what
// its tools collect. The nonce, where the file has one, is what somebody says that was asked for; a report has its own.
func NVIDIA(file []byte) (devices []nvidia.Device, nonce []byte, err error) {
	if len(file) > maxNVIDIABytes {
		return nil, nil, fmt.Errorf("parsing evidence: %d bytes, want at most %d", len(file), maxNVIDIABytes)
	}
	read := nvidiaArray
	if file[0] == '{' {
		read = nvidiaCollection
	}
	if devices, nonce, err = read(file); err != nil {
		return nil, nil, fmt.Errorf("parsing evidence: %w", err)
	}
	if len(devices) == 0 || len(devices) > maxCMWItems {
		return nil, nil, fmt.Errorf("parsing evidence: %d devices, want 1 to %d", len(devices), maxCMWItems)
	}
	return devices, nonce, nil
}

func nvidiaArray(file []byte) (devices []nvidia.Device, nonce []byte, err error) {
	var all []struct {
		Arch        string `json:"arch"`
		Nonce       string `json:"nonce"`
		Evidence    []byte `json:"evidence"`
		Certificate []byte `json:"certificate"`
	}
	if err := json.Unmarshal(file, &all); err != nil {
		return nil, nil, err
	}
	for i, d := range all {
		own, err := hex.DecodeString(d.Nonce)
		if err != nil || i > 0 && !slices.Equal(own, nonce) {
			return nil, nil, fmt.Errorf("device %d: nonce is %.80q, want one in hexadecimal, and the others'", i, d.Nonce)
		}
		nonce = own
		devices = append(devices, nvidia.Device{Report: d.Evidence, Chain: d.Certificate})
	}
	return devices, nonce, nil
}

func nvidiaCollection(file []byte) (devices []nvidia.Device, nonce []byte, err error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(file, &members); err != nil {
		return nil, nil, err
	}
	if kind := textOf(members["__cmwc_t"]); kind != cmwCollection {
		return nil, nil, fmt.Errorf("collection is of type %.80q, want %q", kind, cmwCollection)
	}
	delete(members, "__cmwc_t")
	if value, ok := members["nonce"]; ok {
		if nonce, err = record(value, mediaBytes); err != nil {
			return nil, nil, fmt.Errorf("nonce: %w", err)
		}
	}
	delete(members, "nonce")
	delete(members, "appraisal-settings") // somebody's wishes to a verifier of theirs
	labels := make([]string, 0, len(members))
	for label := range members {
		labels = append(labels, label)
	}
	slices.Sort(labels)
	for _, label := range labels {
		device, own, err := nvidiaItem(members[label])
		if err == nil && own != nil && nonce != nil && !slices.Equal(own, nonce) {
			err = errors.New("its nonce is not the collection's")
		}
		if err != nil {
			return nil, nil, fmt.Errorf("item %.40q: %w", label, err)
		}
		if nonce == nil {
			nonce = own
		}
		devices = append(devices, device)
	}
	return devices, nonce, nil
}

func nvidiaItem(value jsontext.Value) (d nvidia.Device, nonce []byte, err error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(value, &members); err != nil {
		return d, nil, err
	}
	for name := range members {
		if !slices.Contains([]string{"__cmwc_t", "evidence", "certificate", "nonce", "hints"}, name) {
			return d, nil, fmt.Errorf("member %.40q is unknown", name)
		}
	}
	if kind := textOf(members["__cmwc_t"]); kind != cmwItem {
		return d, nil, fmt.Errorf("item is of type %.80q, want %q", kind, cmwItem)
	}
	if d.Report, err = record(members["evidence"], mediaReport); err != nil {
		return d, nil, fmt.Errorf("evidence: %w", err)
	}
	if d.Chain, err = record(members["certificate"], mediaChain); err != nil {
		return d, nil, fmt.Errorf("certificate: %w", err)
	}
	if value, ok := members["nonce"]; ok {
		nonce, err = record(value, mediaBytes)
	}
	return d, nonce, err
}

// textOf returns a text, or "" for anything else.
func textOf(value jsontext.Value) (text string) {
	if value == nil || json.Unmarshal(value, &text) != nil {
		return ""
	}
	return text
}

// record reads a wrapper of that media type.
func record(value jsontext.Value, media string) ([]byte, error) {
	var pair []string
	if value == nil {
		return nil, errors.New("none")
	}
	if err := json.Unmarshal(value, &pair); err != nil {
		return nil, err
	}
	if len(pair) != 2 || pair[0] != media {
		return nil, fmt.Errorf("wrapper is %.100q, want %q and a value", pair, media)
	}
	return base64.RawURLEncoding.Strict().DecodeString(pair[1])
}

// RIM returns the document of reference values in an answer of NVIDIA's service. It reports whether the file may be one.
func RIM(file []byte) (document []byte, ok bool) {
	var said struct {
		RIM []byte `json:"rim"`
	}
	if len(file) == 0 || file[0] != '{' || len(file) > maxNVIDIABytes || json.Unmarshal(file, &said) != nil || said.RIM == nil {
		return nil, false
	}
	return said.RIM, true
}

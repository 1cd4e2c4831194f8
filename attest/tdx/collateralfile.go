package tdx

import (
	"encoding/hex"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/attest/check"
	"chrysalis/measure/fault"
)

// collateralFile is collateral in JSON.
type collateralFile struct {
	PCKCRL                text `json:"pck_crl"`
	RootCACRL             text `json:"root_ca_crl"`
	PCKCRLIssuerChain     text `json:"pck_crl_issuer_chain"`
	TCBInfoIssuerChain    text `json:"tcb_info_issuer_chain"`
	QEIdentityIssuerChain text `json:"qe_identity_issuer_chain"`
	TCBInfo               text `json:"tcb_info"`
	QEIdentity            text `json:"qe_identity"`
	TCBInfoSignature      text `json:"tcb_info_signature"`
	QEIdentitySignature   text `json:"qe_identity_signature"`
	PCKChain              text `json:"pck_certificate_chain,omitzero"`
}

// ParseCollateral reads collateral in JSON: CRLs and signatures in hexadecimal, chains in PEM, the signed documents as
// strings with their exact bytes. A chain of the PCK may be there for a quote that carries none. No other member may be there; without one
// of them check.ErrUnavailable is returned.
func ParseCollateral(b []byte) (*Collateral, error) {
	if len(b) > MaxCollateralBytes {
		return nil, fmt.Errorf("parsing collateral: %d bytes, want at most %d", len(b), MaxCollateralBytes)
	}
	var f collateralFile
	if err := json.Unmarshal(b, &f, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("parsing collateral: %w", fault.JSON(err))
	}
	c := &Collateral{
		PCKCRLIssuerChain: f.PCKCRLIssuerChain, TCBInfoIssuerChain: f.TCBInfoIssuerChain, QEIdentityIssuerChain: f.QEIdentityIssuerChain,
		TCBInfo: f.TCBInfo, QEIdentity: f.QEIdentity,
	}
	if len(f.PCKChain) > 0 {
		c.PCKChain = f.PCKChain
	}
	for _, member := range []struct {
		name  string
		value text
	}{
		{"pck_crl", f.PCKCRL}, {"root_ca_crl", f.RootCACRL}, {"pck_crl_issuer_chain", f.PCKCRLIssuerChain},
		{"tcb_info_issuer_chain", f.TCBInfoIssuerChain}, {"qe_identity_issuer_chain", f.QEIdentityIssuerChain},
		{"tcb_info", f.TCBInfo}, {"qe_identity", f.QEIdentity}, {"tcb_info_signature", f.TCBInfoSignature},
		{"qe_identity_signature", f.QEIdentitySignature},
	} {
		if len(member.value) == 0 {
			return nil, fmt.Errorf("parsing collateral: %s is missing or empty: %w", member.name, check.ErrUnavailable)
		}
	}
	var err error
	if c.PCKCRL, err = hex.AppendDecode(nil, f.PCKCRL); err != nil {
		return nil, fmt.Errorf("parsing collateral: pck_crl: %w", err)
	}
	if c.RootCACRL, err = hex.AppendDecode(nil, f.RootCACRL); err != nil {
		return nil, fmt.Errorf("parsing collateral: root_ca_crl: %w", err)
	}
	if err := hexInto(c.TCBInfoSignature[:], f.TCBInfoSignature); err != nil {
		return nil, fmt.Errorf("parsing collateral: tcb_info_signature: %w", err)
	}
	if err := hexInto(c.QEIdentitySignature[:], f.QEIdentitySignature); err != nil {
		return nil, fmt.Errorf("parsing collateral: qe_identity_signature: %w", err)
	}
	return c, nil
}

// Encode returns the collateral in the JSON that ParseCollateral reads.
func (c *Collateral) Encode() ([]byte, error) {
	return json.Marshal(collateralFile{
		PCKCRL: hex.AppendEncode(nil, c.PCKCRL), RootCACRL: hex.AppendEncode(nil, c.RootCACRL), PCKCRLIssuerChain: c.PCKCRLIssuerChain,
		TCBInfoIssuerChain: c.TCBInfoIssuerChain, QEIdentityIssuerChain: c.QEIdentityIssuerChain, TCBInfo: c.TCBInfo, QEIdentity: c.QEIdentity,
		TCBInfoSignature: hex.AppendEncode(nil, c.TCBInfoSignature[:]), QEIdentitySignature: hex.AppendEncode(nil, c.QEIdentitySignature[:]),
		PCKChain: c.PCKChain,
	}, json.Deterministic(true))
}

func hexInto[T ~string | ~[]byte](into []byte, text T) error {
	b, err := hex.DecodeString(string(text))
	if err != nil {
		return err
	}
	if len(b) != len(into) {
		return fmt.Errorf("%d bytes, want %d", len(b), len(into))
	}
	copy(into, b)
	return nil
}

// text is a string in JSON, kept as the bytes that it stands for: most of collateral is long texts, which a string would copy twice.
type text []byte

// IsZero makes an empty text one that is left out.
func (t text) IsZero() bool { return len(t) == 0 }

// MarshalJSONTo writes the text as a string.
func (t text) MarshalJSONTo(enc *jsontext.Encoder) error {
	return enc.WriteToken(jsontext.String(string(t)))
}

// UnmarshalJSONFrom reads a string. What is none is refused in the words of the decoder.
func (t *text) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() != '"' {
		var plain string
		err := json.UnmarshalDecode(dec, &plain)
		*t = text(plain)
		return err
	}
	value, err := dec.ReadValue()
	if err == nil {
		*t, err = jsontext.AppendUnquote(make([]byte, 0, len(value)), value)
	}
	return err
}

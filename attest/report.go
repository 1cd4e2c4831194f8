package attest

import (
	"encoding/hex"
	"time"

	"chrysalis/attest/check"
	"chrysalis/measure/config"
	"chrysalis/measure/eventlog"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

// Report is a verdict about a guest in JSON. What is true of the guest stands in it on acceptance alone.
type Report struct {
	check.Report
	Platform        string           `json:"platform,omitzero"`
	Machine         string           `json:"machine,omitzero"` // in hexadecimal, as Result.Machine
	TCB             string           `json:"tcb,omitzero"`
	Release         string           `json:"release,omitzero"`
	SecurityVersion uint32           `json:"security_version,omitzero"`
	Identity        *config.Identity `json:"identity,omitzero"`
	Service         *config.Service  `json:"service,omitzero"`
	TLSKey          register.Digest  `json:"tls_key,omitzero"`
	ReceiptKey      pubkey.Ed25519   `json:"receipt_key,omitzero"`
	ClaimKey        pubkey.Ed25519   `json:"claim_key,omitzero"`
	SecretHash      register.Digest  `json:"secret_hash,omitzero"`
	// Held are the images that have held the secret before, as in a policy's held_by.
	Held []register.Digest `json:"held,omitzero"`
	// Loan is which loan of a custodian's the secret is, and by which machine it was lent.
	Loan     eventlog.Loan `json:"loan,omitzero"`
	NotAfter time.Time     `json:"not_after,omitzero"`
	// ImageHash is the hash by which COCOON's root contract lists images; a vtpm has none.
	ImageHash register.Digest `json:"image_hash,omitzero"`
	// GPUs are the verified devices; left out where the config asks for none.
	GPUs []GPU `json:"gpus,omitzero"`
}

// ReportOf returns the report of what Verify returned.
func ReportOf(result *Result, err error) Report {
	if err != nil {
		return Report{Report: check.Refuse(err)}
	}
	m := result.Config()
	return Report{
		Report: check.Accept(result.Checks(), result.weaknesses), Platform: result.platform.String(), Machine: hex.EncodeToString(result.machine),
		TCB: result.tcb, Release: result.release, SecurityVersion: result.securityVersion, Identity: &m.Identity, Service: &m.Service,
		TLSKey: result.statement.TLSKey, ReceiptKey: result.statement.ReceiptKey, ClaimKey: result.statement.ClaimKey,
		SecretHash: result.statement.SecretHash, Held: result.held, Loan: result.loan, NotAfter: result.NotAfter().UTC(),
		ImageHash: result.image, GPUs: result.GPUs(),
	}
}

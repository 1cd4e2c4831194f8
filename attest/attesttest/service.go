package attesttest

import (
	"fmt"
	"net/http"
	"net/url"

	"chrysalis/attest/tdx"
)

// IntelService answers as Intel's provisioning certification service does with this collateral, and reports
// whether the path was one of its.
func IntelService(w http.ResponseWriter, r *http.Request, c *tdx.Collateral) bool {
	switch r.URL.Path {
	case "/tdx/certification/v4/tcb":
		w.Header().Set("TCB-Info-Issuer-Chain", url.PathEscape(string(c.TCBInfoIssuerChain)))
		fmt.Fprintf(w, `{"tcbInfo":%s,"signature":"%x"}`, c.TCBInfo, c.TCBInfoSignature)
	case "/tdx/certification/v4/qe/identity":
		w.Header().Set("SGX-Enclave-Identity-Issuer-Chain", url.PathEscape(string(c.QEIdentityIssuerChain)))
		fmt.Fprintf(w, `{"enclaveIdentity":%s,"signature":"%x"}`, c.QEIdentity, c.QEIdentitySignature)
	case "/sgx/certification/v4/pckcrl":
		w.Header().Set("SGX-PCK-CRL-Issuer-Chain", url.PathEscape(string(c.PCKCRLIssuerChain)))
		_, _ = w.Write(c.PCKCRL)
	case "/IntelSGXRootCA.der":
		_, _ = w.Write(c.RootCACRL)
	default:
		return false
	}
	return true
}

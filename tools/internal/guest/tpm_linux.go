package guest

import (
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// openTPM connects to a TPM that serves commands.
func openTPM(socket string) (transport.TPMCloser, error) { return linuxudstpm.Open(socket) }

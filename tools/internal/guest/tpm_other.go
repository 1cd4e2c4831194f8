//go:build !linux

package guest

import (
	"fmt"
	"runtime"

	"github.com/google/go-tpm/tpm2/transport"
)

func openTPM(string) (transport.TPMCloser, error) {
	return nil, fmt.Errorf("a software TPM needs Linux, and this is %s", runtime.GOOS)
}

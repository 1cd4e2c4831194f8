// Command init is the guest's first process, twice: in the initrd it opens the verified root, and on the root it is
// PID 1, measures what the guest is about to do, takes the sealed secret, starts the services and watches them.
//
// It believes the host in nothing that it can derive. What it reads from outside is the initrd (measured by the
// platform), the config disk (hashed before it is parsed), the volumes (checked on every read) and the TPM.
package main

import (
	"errors"
	"fmt"
	"os"

	"chrysalis/init/internal/boot"
	"chrysalis/init/status"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: runs as process 1 of a guest, and nowhere else")
		os.Exit(2)
	}
	stage := guestMain
	if _, err := os.Lstat(rootFile); err == nil {
		stage = initrdMain
	}
	defer func() {
		if broken := recover(); broken != nil {
			boot.NewEnder(nil, nil).End(status.Broken, fmt.Errorf("panic: %v", broken))
		}
	}()
	stage()
	boot.NewEnder(nil, nil).End(status.Broken, errors.New("process 1 returned"))
}

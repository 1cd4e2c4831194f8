// Package e2e boots real guests under QEMU and looks at them as a client, and as an attacker. Its tests take minutes; they
// run when CHRYSALIS_E2E is set, over the release folder and volumes that `chrysalis image build` has made.
// As many guests run at once as -parallel says, each with 640 MiB of memory or three gigabytes.
package e2e

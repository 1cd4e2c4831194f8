// Package image builds the guest image, the engine volume and the model volume from the locks in image/ and from this source
// tree. Building twice, anywhere, gives equal bytes.
package image

import (
	"os"

	"chrysalis/tools/internal/lock"
	"chrysalis/tools/internal/progress"
)

// Builder builds images. Its methods must not run concurrently.
type Builder struct {
	Source   string      // root of the source tree
	Profile  Profile     // what kind of guest is built
	Work     string      // folder for what a later run may reuse: tools tree, caches, fresh locks
	Places   lock.Places // where packages may come from
	Relock   Relock
	Tests    bool               // what tests need is built too, beside the release
	Progress *progress.Reporter // nil is silent

	relocked  []string             // names of the locks that are not the source tree's
	decided   map[string]lock.Lock // locks whose packages are in the cache
	owned     *os.File             // holds the work folder
	toolsLock lock.Lock
}

// Steps is how many steps Fetch and Build tell, and BuildVolumes with them: packages and tree, QEMU beside it, kernel, programs, base, root, initrd, list of
// files, manifest; two volumes; and for tests two trees and an engine. A lock that is resolved anew makes more.
func (b *Builder) Steps(volumes bool) int {
	n := len(b.needed()) + 1 + 1 + 1 + len(programs) + 1 + 1 + 1 + 1 + 1
	if volumes {
		n += 2
	}
	if b.Tests {
		n += 3
	}
	return n
}

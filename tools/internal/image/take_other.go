//go:build !linux

package image

import "os"

// Images are built on Linux alone, and the verbs that build them say so before they come here.

func take(*os.File) error { return nil }

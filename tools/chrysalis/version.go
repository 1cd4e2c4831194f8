package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// version is that of the packages, as make packages sets it.
var version = "unreleased"

// facts are how this program was built, for --version.
func facts() string {
	var b strings.Builder
	fmt.Fprintf(&b, "chrysalis %s, %s %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b.String()
	}
	for _, name := range []string{"CGO_ENABLED", "-trimpath"} {
		if i := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == name }); i >= 0 {
			fmt.Fprintf(&b, "built    %s=%s\n", name, info.Settings[i].Value)
		}
	}
	fmt.Fprintf(&b, "modules  %d (go version -m lists them)\n", len(info.Deps))
	return b.String()
}

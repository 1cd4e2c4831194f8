package pagetest

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"chrysalis/tools/internal/toolstree"
)

// Browser is one of Debian's, without a screen, as launch.mjs takes it.
type Browser struct {
	DevTools string // where Chromium is driven from
	Firefox  string // a program that is Firefox: who drives it starts it, in folders of its own below Temp
	Temp     string
}

// Tree is the tree with the browsers, below the sources' root.
func Tree(t testing.TB, root string) toolstree.Tree {
	t.Helper()
	tree, err := toolstree.Open(filepath.Join(root, "build", "tools-tree"))
	if err == nil {
		tree, err = tree.WithBrowser()
	}
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no browser here: make beside unpacks it: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can enter the tree with the browsers")
	}
	return tree
}

var listening = regexp.MustCompile(`DevTools listening on (ws://\S+)`)

// Chromium starts Chromium, which has the folder files as /mnt/page, and ends it with the test.
func Chromium(t testing.TB, root, files string) Browser {
	t.Helper()
	// Its own sandbox wants to be started by somebody else than root; what it is shown are the pages of this test.
	c := Tree(t, root).Enter(t.Context(), toolstree.Entry{Binds: map[string]string{"page": files}}, "/usr/lib/chromium/chromium-headless-shell", "--no-sandbox", "--disable-gpu",
		"--disable-dev-shm-usage", "--remote-debugging-port=0", "--user-data-dir=/tmp/profile", "--disable-background-networking", "--force-color-profile=srgb", "about:blank")
	said, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	lines, all := bufio.NewScanner(said), ""
	for lines.Scan() {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			go io.Copy(io.Discard, said)
			return Browser{DevTools: m[1]}
		}
		all += lines.Text() + "\n"
	}
	t.Fatalf("the browser does not start:\n%s", all)
	return Browser{}
}

// filesVariable tells a process of a test that it is to become Firefox, with the folder that it names as /mnt/page.
const filesVariable = "CHRYSALIS_PAGE_FILES"

// Firefox writes the program that is Firefox, which has the folder files as /mnt/page: the test's own, whose TestBecomeFirefox calls BecomeFirefox.
func Firefox(t testing.TB, root, files string) Browser {
	t.Helper()
	Tree(t, root)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "firefox")
	script := fmt.Sprintf("#!/bin/sh\ncd '%s' && %s='%s' exec '%s' -test.run='^TestBecomeFirefox$' -- \"$@\"\n", here, filesVariable, files, self)
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return Browser{Firefox: program, Temp: t.TempDir()}
}

// BecomeFirefox runs Firefox until it ends, or whoever started it does. In a process that nobody started for that it skips.
func BecomeFirefox(t *testing.T, root string) {
	files := os.Getenv(filesVariable)
	if files == "" {
		t.Skip("a program for tests that show pages")
	}
	runtime.LockOSThread() // which the two must not outlive
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	args, binds := slices.Clone(flag.Args()), map[string]string{"page": files}
	if i := slices.Index(args, "--profile"); i >= 0 && i+1 < len(args) {
		binds["profile"], args[i+1] = args[i+1], "/mnt/profile"
	}
	c := Tree(t, root).Enter(t.Context(), toolstree.Entry{Binds: binds}, append([]string{"/usr/lib/firefox-esr/firefox-esr"}, args...)...)
	c.SysProcAttr.Pdeathsig = unix.SIGKILL
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
}

// Save puts a page where the browsers find it, and returns its address there.
func Save(t testing.TB, files, name string, html []byte) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(files, name), html, 0o644); err != nil {
		t.Fatal(err)
	}
	return "file:///mnt/page/" + name
}

package lock

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	fetchers = 8
	tries    = 3 // of a place that does not answer
	// An attempt may last as long as the package takes at this rate, and this much more.
	slowestBytesPerSecond = 50 << 10
	attemptGrace          = 30 * time.Second
)

// Attempt is one place that had no good bytes, and why.
type Attempt struct {
	Place string
	Err   error
}

// Missing is a package whose bytes are nowhere.
type Missing struct {
	Package  Package
	Attempts []Attempt
}

// MissingError lists the packages that no place has, with the places asked.
type MissingError struct{ Missing []Missing }

func (e *MissingError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "locked packages are nowhere: %d", len(e.Missing))
	for _, m := range e.Missing {
		fmt.Fprintf(&b, "\n  %s %s sha256 %x", m.Package.Name, m.Package.Version, m.Package.SHA256)
		for _, a := range m.Attempts {
			fmt.Fprintf(&b, "\n    %s: %v", a.Place, a.Err)
		}
	}
	return b.String()
}

// Cached returns the path of the package's file in the cache.
func (p Places) Cached(pkg Package) string {
	return filepath.Join(p.Cache, fmt.Sprintf("%x", pkg.SHA256))
}

// Fetch brings every package of the lock into the cache and checks it there by size and SHA-256. It calls progress, from
// one goroutine at a time, with the bytes of each package that is done. If packages are nowhere the error is a *MissingError
// that names all of them.
func (p Places) Fetch(ctx context.Context, client *http.Client, l Lock, progress func(bytes int64)) error {
	if err := os.MkdirAll(p.Cache, 0o755); err != nil {
		return fmt.Errorf("fetching packages: %w", err)
	}
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		missing MissingError
		failed  error
	)
	queue := make(chan Package)
	for range fetchers {
		wg.Go(func() {
			for pkg := range queue {
				attempts, err := p.fetch(ctx, client, pkg, l.asOf(pkg.Archive))
				mu.Lock()
				switch {
				case err != nil:
					failed = cmp.Or(failed, err)
				case attempts != nil:
					missing.Missing = append(missing.Missing, Missing{pkg, attempts})
				default:
					progress(pkg.Size)
				}
				mu.Unlock()
			}
		})
	}
	for _, pkg := range l.Packages {
		queue <- pkg
	}
	close(queue)
	wg.Wait()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("fetching packages: %w", ctx.Err())
	case failed != nil:
		return fmt.Errorf("fetching packages: %w", failed)
	case len(missing.Missing) > 0:
		return &missing
	}
	return nil
}

// fetch tries each place in turn. It returns the attempts if all of them failed, and an error if this machine did.
func (p Places) fetch(ctx context.Context, client *http.Client, pkg Package, asOf time.Time) ([]Attempt, error) {
	cached := p.Cached(pkg)
	err := checkFile(cached, pkg)
	if err == nil {
		return nil, nil
	}
	attempts := []Attempt{{cached, err}}
	if p.Store != "" && !isHTTP(p.Store) { // a folder is as near as the cache
		file := filepath.Join(p.Store, fmt.Sprintf("%x", pkg.SHA256))
		data, err := readChecked(file, pkg)
		if err == nil {
			return nil, keep(cached, data)
		}
		attempts = append(attempts, Attempt{file, err})
	}
	urls := p.urls(pkg, asOf)
	for _, url := range urls {
		data, err := downloadPatiently(ctx, client, url, pkg)
		if err == nil {
			return nil, keep(cached, data)
		}
		attempts = append(attempts, Attempt{url, err})
	}
	if p.Store == "" && len(urls) == 0 {
		return nil, ErrNoMirror
	}
	return attempts, nil
}

// asOf returns the newest time at which the lock saw the archive, the instant to ask a snapshot service for.
func (l Lock) asOf(archive string) time.Time {
	var newest time.Time
	for _, r := range l.Releases {
		if r.Archive == archive && r.Date.After(newest) {
			newest = r.Date
		}
	}
	return newest
}

// urls lists where the package may be: its own archive's mirrors first, then the other's, then a store on the network, then
// the snapshot service.
func (p Places) urls(pkg Package, asOf time.Time) []string {
	var urls []string
	other := Debian
	if pkg.Archive == Debian {
		other = Security
	}
	for _, archive := range []string{pkg.Archive, other} {
		for _, base := range p.Mirrors[archive] {
			urls = append(urls, base+"/"+pkg.Filename)
		}
	}
	if isHTTP(p.Store) {
		urls = append(urls, fmt.Sprintf("%s/%x", strings.TrimSuffix(p.Store, "/"), pkg.SHA256))
	}
	if p.Snapshot != "" {
		urls = append(urls, fmt.Sprintf("%s/archive/%s/%s/%s", strings.TrimSuffix(p.Snapshot, "/"), pkg.Archive,
			asOf.UTC().Format("20060102T150405Z"), pkg.Filename))
	}
	return urls
}

// errOther is the error of a place that answers, but not with the package: asking again would not help.
var errOther = errors.New("not the package")

// downloadPatiently repeats a download that the network broke, so that a passing fault never looks like a package that is
// nowhere.
func downloadPatiently(ctx context.Context, client *http.Client, url string, pkg Package) (data []byte, err error) {
	for try := 1; ; try++ {
		if data, err = download(ctx, client, url, pkg); err == nil || errors.Is(err, errOther) || try == tries {
			return data, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(try) * 300 * time.Millisecond):
		}
	}
}

func download(ctx context.Context, client *http.Client, url string, pkg Package) ([]byte, error) {
	limit := attemptGrace + time.Duration(pkg.Size/slowestBytesPerSecond)*time.Second
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		err := fmt.Errorf("status %d, want 200", resp.StatusCode)
		if resp.StatusCode < 500 {
			err = fmt.Errorf("%w: %w", errOther, err)
		}
		return nil, err
	}
	return read(resp.Body, pkg)
}

// read reads exactly the package: neither its size nor its hash may differ.
func read(r io.Reader, pkg Package) ([]byte, error) {
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(r, pkg.Size+1))
	if err != nil {
		return nil, err
	}
	if n > pkg.Size {
		return nil, fmt.Errorf("%w: more than %d bytes", errOther, pkg.Size)
	}
	if n < pkg.Size {
		return nil, fmt.Errorf("%w: %d bytes, want %d", errOther, n, pkg.Size)
	}
	if got := sha256.Sum256(b.Bytes()); got != pkg.SHA256 {
		return nil, fmt.Errorf("%w: sha256 %x, want %x", errOther, got, pkg.SHA256)
	}
	return b.Bytes(), nil
}

func readChecked(file string, pkg Package) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(f, pkg)
}

func checkFile(file string, pkg Package) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, pkg.Size+1))
	if err != nil {
		return err
	}
	if n != pkg.Size || [32]byte(h.Sum(nil)) != pkg.SHA256 {
		return fmt.Errorf("%s is not the package", file)
	}
	return nil
}

// keep writes a checked package into the cache; a reader sees all of it or nothing.
func keep(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".fetch-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	// apt reads the file as another user.
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Export copies the packages of the lock from the cache into a content-addressed folder, which serves as CHRYSALIS_STORE.
func (p Places) Export(l Lock, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("exporting lock %s: %w", l.Name, err)
	}
	for _, pkg := range l.Packages {
		path := filepath.Join(dir, fmt.Sprintf("%x", pkg.SHA256))
		if checkFile(path, pkg) == nil {
			continue
		}
		data, err := readChecked(p.Cached(pkg), pkg)
		if err == nil {
			err = keep(path, data)
		}
		if err != nil {
			return fmt.Errorf("exporting lock %s: %s: %w", l.Name, pkg.Name, err)
		}
	}
	return nil
}

package tsm_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"chrysalis/init/internal/platform/tsm"
	"chrysalis/init/internal/platform/tsm/tsmtest"
)

const dir = "/sys/kernel/config/tsm/report"

// echo answers with the report data.
func echo(data [64]byte) (out, aux []byte, err error) { return data[:], nil, nil }

func reports(k *tsmtest.Kernel) tsm.Reports {
	return tsm.Reports{Dir: dir, Provider: "tdx_guest", Files: k}
}

func TestAsk(t *testing.T) {
	k := &tsmtest.Kernel{Provider: "tdx_guest", Answer: func(data [64]byte) ([]byte, []byte, error) { return data[:], []byte("certificates"), nil }}
	got, err := reports(k).Ask([64]byte{7})
	if err != nil || !bytes.Equal(got.Out, append([]byte{7}, make([]byte, 63)...)) || string(got.Aux) != "certificates" {
		t.Errorf("got %x, %q and error %v, want the report data and the certificates", got.Out, got.Aux, err)
	}
	if now, ever := k.Entries(); now != 0 || ever != 1 {
		t.Errorf("%d entries of %d are left, want none of one", now, ever)
	}
}

// TestAskRefuses has the kernel, the host behind it and somebody beside us do what they should not.
func TestAskRefuses(t *testing.T) {
	fails := func(errno unix.Errno) func([64]byte) ([]byte, []byte, error) {
		return func([64]byte) ([]byte, []byte, error) { return nil, nil, errno }
	}
	long := bytes.Repeat([]byte{1}, 128<<10+1)
	once := func(file string) func(*tsmtest.Kernel, string) {
		var done sync.Once
		return func(k *tsmtest.Kernel, read string) {
			if read == file {
				done.Do(func() { k.Write([64]byte{0xee}) })
			}
		}
	}
	twice := func(file string) func(*tsmtest.Kernel, string) {
		n := 0
		return func(k *tsmtest.Kernel, read string) {
			if read == file {
				if n++; n == 2 {
					k.Write([64]byte{0xee})
				}
			}
		}
	}
	for _, tt := range []struct {
		name, says string
		is         error
		kernel     *tsmtest.Kernel
	}{
		{"no provider", "making an entry", unix.ENXIO, &tsmtest.Kernel{}},
		{"another provider", `provider is "sev_guest"`, nil, &tsmtest.Kernel{Provider: "sev_guest", Answer: echo}},
		{"late", "", tsm.ErrTimeout, &tsmtest.Kernel{Answer: fails(unix.ETIMEDOUT)}},
		{"busy", "", tsm.ErrBusy, &tsmtest.Kernel{Answer: fails(unix.EBUSY)}},
		{"interrupted", "", tsm.ErrBusy, &tsmtest.Kernel{Answer: fails(unix.EINTR)}},
		{"refused", "", tsm.ErrRefused, &tsmtest.Kernel{Answer: fails(unix.EIO)}},
		{"closed for good", "", tsm.ErrEnded, &tsmtest.Kernel{Answer: fails(unix.ENOTTY)}},
		{"an error without a word", "outblob", unix.EINVAL, &tsmtest.Kernel{Answer: fails(unix.EINVAL)}},
		{"empty", "is empty", nil, &tsmtest.Kernel{Answer: func([64]byte) ([]byte, []byte, error) { return []byte{}, nil, nil }}},
		{"too long", "more than", nil, &tsmtest.Kernel{Answer: func([64]byte) ([]byte, []byte, error) { return long, nil, nil }}},
		{"too many certificates", "more than", nil, &tsmtest.Kernel{Answer: func([64]byte) ([]byte, []byte, error) { return []byte{1}, long, nil }}},
		// generation is read before the write, after it, and after the answer.
		{"a write of another's after ours", "generation is 2, want 1", nil, &tsmtest.Kernel{Answer: echo, Between: twice("generation")}},
		{"a write of another's while the answer comes", "generation is 2, want 1", nil, &tsmtest.Kernel{Answer: echo, Between: once("outblob")}},
		{"a write of another's before its certificates are read", "generation is 2, want 1", nil, &tsmtest.Kernel{Answer: echo, Between: once("auxblob")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := tt.kernel
			if k.Answer != nil && k.Provider == "" {
				k.Provider = "tdx_guest"
			}
			got, err := reports(k).Ask([64]byte{7})
			if err == nil || got.Out != nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %d bytes and error %v, want %v and %q", len(got.Out), err, tt.is, tt.says)
			}
			if now, _ := k.Entries(); now != 0 {
				t.Errorf("%d entries are left, want none", now)
			}
		})
	}
}

// TestBusy: a request is made again while the host holds an earlier one, and no longer than it was told to.
func TestBusy(t *testing.T) {
	for _, tt := range []struct {
		name string
		free int // how many times the host is busy first
		want error
	}{
		{"the host gives it back", 3, nil},
		{"the host keeps it", 1 << 30, tsm.ErrBusy},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked := 0
				k := &tsmtest.Kernel{Provider: "tdx_guest", Answer: func(data [64]byte) ([]byte, []byte, error) {
					if asked++; asked <= tt.free {
						return nil, nil, unix.EBUSY
					}
					return echo(data)
				}}
				r := reports(k)
				r.BusyFor = 10 * time.Second
				began := time.Now()
				_, err := r.Ask([64]byte{7})
				if !errors.Is(err, tt.want) || asked < 2 || time.Since(began) > 11*time.Second {
					t.Errorf("got error %v after %d requests and %s, want %v within 11 s", err, asked, time.Since(began), tt.want)
				}
			})
		})
	}
}

// TestKept: a host that keeps a request for as long as the kernel waits is late, whatever the kernel calls it; a sooner no is a refusal.
func TestKept(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration
		late  bool
	}{{30 * time.Second, true}, {29 * time.Second, false}} {
		synctest.Test(t, func(t *testing.T) {
			k := &tsmtest.Kernel{Provider: "tdx_guest", Answer: func([64]byte) ([]byte, []byte, error) {
				time.Sleep(tt.after)
				return nil, nil, unix.EIO
			}}
			if _, err := reports(k).Ask([64]byte{7}); errors.Is(err, tsm.ErrTimeout) != tt.late || !errors.Is(err, unix.EIO) {
				t.Errorf("after %s: got error %v, want it late: %t", tt.after, err, tt.late)
			}
		})
	}
}

// TestManyAsk: requests at the same time each get their own answer.
func TestManyAsk(t *testing.T) {
	k := &tsmtest.Kernel{Provider: "tdx_guest", Answer: echo}
	var all sync.WaitGroup
	for i := range byte(50) {
		all.Go(func() {
			got, err := reports(k).Ask([64]byte{i, 1})
			if err != nil || got.Out[0] != i {
				t.Errorf("request %d: got %x and error %v, want its own data", i, got.Out, err)
			}
		})
	}
	all.Wait()
	if now, ever := k.Entries(); now != 0 || ever != 50 {
		t.Errorf("%d entries of %d are left, want none of 50", now, ever)
	}
}

// TestRealFiles: on a file system that is none of the kernel's, the files' names and bytes are those that a request has.
func TestRealFiles(t *testing.T) {
	root := t.TempDir()
	_, err := tsm.Reports{Dir: root, Provider: "tdx_guest"}.Ask([64]byte{7})
	if err == nil || !strings.Contains(err.Error(), "provider") {
		t.Errorf("got error %v, want one of the provider's file, which is not there", err)
	}
	if left, err := filepath.Glob(filepath.Join(root, "*")); err != nil || len(left) != 0 {
		t.Errorf("got %q left and error %v, want nothing", left, err)
	}
	if _, err := (tsm.Reports{Dir: filepath.Join(root, "none")}).Ask([64]byte{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no folder of reports: got error %v, want %v", err, os.ErrNotExist)
	}
}

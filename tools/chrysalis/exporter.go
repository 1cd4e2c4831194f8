package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"chrysalis/tools/internal/earned"
	"chrysalis/tools/internal/guest"
	"chrysalis/tools/internal/metrics"
)

func newExporter() *cobra.Command { return newExporterOf(processes) }

func newExporterOf(proc string) *cobra.Command {
	var listen string
	var board, once, asJSON bool
	cmd := &cobra.Command{
		Use: "exporter", Short: "Numbers of this machine's guests, for Prometheus", Args: cobra.NoArgs,
		Long: "Serves what is known of all guests of this machine at /metrics, in Prometheus' text format: state, requests, refusals, tokens, queue, keys,\n" +
			"journal, and what was earned. Guests are found as status finds them, anew at each scrape, and each is greeted. A scrape takes five\n" +
			"seconds at most. Guests of units belong to users of their own, so their exporter runs as root. --board prints a board of Grafana's.",
		Example: "  chrysalis exporter\n  chrysalis exporter --once   # print what a scrape would get\n  chrysalis exporter --board > chrysalis.json   # Grafana: Dashboards, Import",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if board {
				text, err := metrics.Board()
				if err != nil {
					return unavailable(err)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
				return err
			}
			e := &exporter{proc: proc}
			if once {
				text, err := e.scrape(cmd.Context())
				if err != nil {
					return unavailable(err)
				}
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return unavailable(fmt.Errorf("listening: %w", err))
			}
			if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
				fmt.Fprintf(cmd.ErrOrStderr(), "chrysalis: note: whoever reaches %s reads names, states, models and counts of this machine's guests, without a password\n", l.Addr())
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), map[string]any{"url": "http://" + l.Addr().String() + metricsPath}); err != nil {
					return err
				}
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "listening on http://%s%s\n", l.Addr(), metricsPath)
			}
			if err := e.serve(cmd.Context(), l); err != nil {
				return unavailable(err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:9477", "address to listen on")
	cmd.Flags().BoolVar(&board, "board", false, "print a board of Grafana's as JSON, and end")
	cmd.Flags().BoolVar(&once, "once", false, "print what a scrape would get, and end")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagsMutuallyExclusive("board", "once")
	return cmd
}

const (
	metricsPath = "/metrics"
	// fresh is how long one look at the guests serves several who ask.
	fresh = 2 * time.Second
)

// exporter looks at guests when somebody asks.
type exporter struct {
	proc string
	mu   sync.Mutex // one looks, the others wait for that
	text []byte
	at   time.Time
	once claimsCache
}

// scrape returns the metrics of all guests, at most two seconds old.
func (e *exporter) scrape(ctx context.Context) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.text != nil && time.Since(e.at) < fresh {
		return e.text, nil
	}
	dirs, err := guest.Folders(e.proc, guestPlaces...)
	if err != nil {
		return nil, err
	}
	guests, _ := look(ctx, dirs) // one of which nothing is known is not up
	var all []metrics.Guest
	for _, g := range guests {
		all = append(all, g.metrics(&e.once))
	}
	e.text, e.at = metrics.Text(all), time.Now()
	return e.text, nil
}

// serve answers until ctx ends.
func (e *exporter) serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+metricsPath, func(w http.ResponseWriter, r *http.Request) {
		text, err := e.scrape(context.WithoutCancel(r.Context())) // the next one gets it
		if err != nil {
			http.Error(w, "the guests could not be found", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", metrics.ContentType)
		_, _ = w.Write(text) // whoever asked may be gone
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// claimsCache remembers what the folders' proofs add up to, until their files change: signatures are checked once.
type claimsCache struct {
	mu   sync.Mutex
	kept map[string]keptClaims
}

type keptClaims struct {
	proofs, signers fileState
	sum             *metrics.Earned
}

type fileState struct {
	size int64
	at   time.Time
}

// of returns what the guests of a folder have earned, or nil where it can't be told.
func (c *claimsCache) of(dir string) *metrics.Earned {
	c.mu.Lock()
	defer c.mu.Unlock()
	state := func(name string) (s fileState) {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
			s = fileState{info.Size(), info.ModTime()}
		}
		return s
	}
	now := keptClaims{proofs: state(guest.ProofsFile), signers: state(guest.SignersFile)}
	if old, ok := c.kept[dir]; ok && old.proofs == now.proofs && old.signers == now.signers {
		return old.sum
	}
	now.sum = sumOfClaims(dir)
	if c.kept == nil {
		c.kept = map[string]keptClaims{}
	}
	c.kept[dir] = now
	return now.sum
}

// sumOfClaims reads a folder's claims and adds up those that are proved.
func sumOfClaims(dir string) *metrics.Earned {
	log, _, err := claimsOf(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &metrics.Earned{}
	}
	if err != nil {
		return nil
	}
	e := metrics.Earned{Claims: len(log.Entries)}
	var proved []earned.Entry
	for _, entry := range log.Entries {
		if !entry.Proved {
			e.Unproved++
			continue
		}
		proved = append(proved, entry)
		e.Tokens += entry.Tokens
	}
	if e.Nanoton, err = earned.Sum(proved); err != nil {
		return nil
	}
	return &e
}

package collateral

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"chrysalis/attest/attesttest"
	"chrysalis/attest/check"
	"chrysalis/attest/evidence"
	"chrysalis/attest/nvidia"
)

// services are NVIDIA's services for a board.
type services struct {
	*Fetcher
	board    *attesttest.Board
	requests []string
	edit     func(path string, body []byte) []byte
}

func newServices(t *testing.T) *services {
	t.Helper()
	s := &services{board: attesttest.NewPPCIeBoard(2, 2, start)}
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(server.Close)
	s.Fetcher = &Fetcher{Sources: Sources{NVIDIARIM: server.URL, NVIDIAOCSP: server.URL + "/ocsp"},
		Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
		Now:  func() time.Time { return start }, NVIDIARoots: s.board.Roots(), Attempts: 2}
	return s
}

func (s *services) serve(w http.ResponseWriter, r *http.Request) {
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	body := s.answer(r)
	if s.edit != nil {
		body = s.edit(r.URL.Path, body)
	}
	if body == nil {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(body)
}

func (s *services) answer(r *http.Request) []byte {
	if name, ok := strings.CutPrefix(r.URL.Path, "/v1/rim/"); ok {
		names := map[string]int{"NV_GPU_DRIVER_GH100_570.124.06": 0, "NV_GPU_VBIOS_1010_0200_882_96009F0001": 1,
			"NV_SWITCH_BIOS_5612_0002_890_96106D0001": 2}
		at, ok := names[name]
		if !ok {
			return nil
		}
		body, _ := json.Marshal(map[string]any{"id": name, "rim": s.board.RIMs[at].Document(), "request_id": "1", "rim_format": "SWID"})
		return body
	}
	asked, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	request, wrong := ocsp.ParseRequest(asked)
	if errors.Join(err, wrong) != nil || r.Header.Get("Content-Type") != "application/ocsp-request" {
		return nil
	}
	var all []*attesttest.BoardCertificate
	for _, d := range append(s.board.GPUs, s.board.Switches...) {
		all = append(all, d.Chain...)
	}
	for _, d := range s.board.RIMs {
		all = append(all, d.Signers...)
	}
	for _, c := range all {
		if c.Answer != nil && c.Template.SerialNumber.Cmp(request.SerialNumber) == 0 {
			return c.Answered()
		}
	}
	return nil
}

// judge fetches for the board's bare reports, and judges them with what came.
func (s *services) judge(t *testing.T) error {
	t.Helper()
	e := s.board.Evidence()
	e.RIMs, e.OCSP = nil, nil
	got, err := s.NVIDIA(t.Context(), append(append([]nvidia.Device{}, e.GPUs...), e.Switches...))
	if err != nil {
		return err
	}
	e.RIMs, e.OCSP = got.RIMs, got.OCSP
	_, err = nvidia.Verify(e, s.board.Options(), start, s.board.Roots())
	return err
}

func TestNVIDIA(t *testing.T) {
	s := newServices(t)
	s.Cache = t.TempDir()
	if err := s.judge(t); err != nil {
		t.Fatal(err)
	}
	first := len(s.requests)
	if first != 3+11 { // documents; seven certificates of the devices and their authorities, four of the signers and theirs
		t.Errorf("got %d requests: %q", first, s.requests)
	}
	if err := s.judge(t); err != nil || len(s.requests) != first {
		t.Errorf("again: %v, %d requests more, want none", err, len(s.requests)-first)
	}
	s.Now = func() time.Time { return start.Add(2 * time.Hour) } // the answers have ended, the documents have not
	if _, err := s.NVIDIA(t.Context(), s.board.Evidence().GPUs); err != nil || len(s.requests) == first {
		t.Errorf("after the answers' end: %v, %d requests more, want some", err, len(s.requests)-first)
	}
	for _, r := range s.requests[first:] {
		if !strings.HasPrefix(r, "POST ") {
			t.Errorf("asked for %s again", r)
		}
	}
}

// TestNVIDIARefuses keeps nothing that is not what was asked for.
func TestNVIDIARefuses(t *testing.T) {
	for name, edit := range map[string]func(string, []byte) []byte{
		"nothing":  func(string, []byte) []byte { return nil },
		"a portal": func(string, []byte) []byte { return []byte("<html>log in</html>") },
		"another document": func(p string, b []byte) []byte {
			return bytes.Replace(b, []byte(`"id":"NV_GPU_DRIVER`),
				[]byte(`"id":"NV_GPU_DRIVEN`), 1)
		},
		"a document changed": editing("/v1/rim/", func(d []byte) []byte {
			return bytes.Replace(d, []byte(`revision="r1"`),
				[]byte(`revision="r2"`), 1)
		}),
		"a document of others": editing("/v1/rim/",
			func([]byte) []byte { return attesttest.NewBoard(start.Add(time.Second)).RIMs[0].Document() }),
		"an answer cut short": func(p string, b []byte) []byte {
			if p == "/ocsp" && b != nil {
				return b[:len(b)-1]
			}
			return b
		},
		"an answer about another": func(p string, b []byte) []byte {
			if p == "/ocsp" {
				return attesttest.NewBoard(start).GPUs[0].Chain[1].Answered()
			}
			return b
		},
	} {
		s := newServices(t)
		s.Cache, s.edit = t.TempDir(), edit
		if err := s.judge(t); !errors.Is(err, check.ErrUnavailable) {
			t.Errorf("%s: got %v, want it unavailable", name, err)
		}
		s.edit = nil
		if err := s.judge(t); err != nil {
			t.Errorf("%s, and then what was asked for: %v", name, err)
		}
	}
}

// editing changes the document in an answer of the service of reference values.
func editing(prefix string, change func([]byte) []byte) func(string, []byte) []byte {
	return func(path string, body []byte) []byte {
		if !strings.HasPrefix(path, prefix) || body == nil {
			return body
		}
		var said struct {
			ID  string `json:"id"`
			RIM []byte `json:"rim"`
		}
		if err := json.Unmarshal(body, &said); err != nil {
			panic(err)
		}
		said.RIM = change(said.RIM)
		out, err := json.Marshal(said)
		if err != nil {
			panic(err)
		}
		return out
	}
}

// TestNVIDIAFolder reads documents, answers of the service and answers of responders out of a folder, and leaves out what is none.
func TestNVIDIAFolder(t *testing.T) {
	s := newServices(t)
	s.Folder = t.TempDir()
	if err := s.judge(t); !errors.Is(err, check.ErrUnavailable) {
		t.Errorf("an empty folder: got %v, want it unavailable", err)
	}
	e := s.board.Evidence()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(s.Folder, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	wrapped, err := json.Marshal(map[string]any{"id": "x", "rim": e.RIMs[0]})
	if err != nil {
		t.Fatal(err)
	}
	write("driver.json", wrapped)
	write("vbios.xml", e.RIMs[1])
	write("switch.xml", e.RIMs[2])
	write("others.pem", []byte("-----BEGIN CERTIFICATE-----\n"))
	for i, answer := range e.OCSP {
		write("ocsp-"+string(rune('a'+i)), answer)
	}
	if err := s.judge(t); err != nil || len(s.requests) != 0 {
		t.Errorf("got %v, and %d requests", err, len(s.requests))
	}
}

// TestCompleteGPUs: evidence of a guest with GPUs gets what NVIDIA's services have now; where they have nothing the staple stays, and
// without one it could not be checked.
func TestCompleteGPUs(t *testing.T) {
	s := newServices(t)
	s.Cache = t.TempDir()
	stapled := s.board.Answer([32]byte{1})
	bare := &evidence.Evidence{Platform: evidence.VTPM, GPUs: evidence.GPUs{Devices: stapled.Devices}}
	if err := s.Complete(t.Context(), bare); err != nil || len(bare.GPUs.RIMs) != 3 || len(bare.GPUs.OCSP) != 11 {
		t.Fatalf("got %d documents, %d answers and error %v, want 3 and 11", len(bare.GPUs.RIMs), len(bare.GPUs.OCSP), err)
	}
	old := &evidence.Evidence{Platform: evidence.VTPM, GPUs: evidence.GPUs{Devices: stapled.Devices, RIMs: stapled.RIMs, OCSP: [][]byte{{1}}}}
	if err := s.Complete(t.Context(), old); err != nil || len(old.GPUs.OCSP) != 11 {
		t.Errorf("over a staple: got %d answers and error %v, want the service's", len(old.GPUs.OCSP), err)
	}
	if again, err := s.Again(t.Context(), old); err != nil || again {
		t.Errorf("just now: asked again: %t (%v), want it left", again, err)
	}
	first := len(s.requests)
	s.Now = func() time.Time { return start.Add(2 * againAfter) }
	if again, err := s.Again(t.Context(), old); err != nil || !again || len(s.requests) != 2*first {
		t.Errorf("later: asked again: %t (%v), %d requests, want all %d again", again, err, len(s.requests)-first, first)
	}
	s.Cache, s.edit = "", func(string, []byte) []byte { return nil }
	staple := evidence.Evidence{Platform: evidence.VTPM, GPUs: stapled}
	if err := s.Complete(t.Context(), &staple); err != nil || len(staple.GPUs.OCSP) != len(stapled.OCSP) {
		t.Errorf("without a service: got error %v, want the staple", err)
	}
	if err := s.Complete(t.Context(), &evidence.Evidence{Platform: evidence.VTPM, GPUs: evidence.GPUs{Devices: stapled.Devices}}); !errors.Is(err,
		check.ErrUnavailable) {
		t.Errorf("without either: got %v, want check.ErrUnavailable", err)
	}
	broken := &evidence.Evidence{GPUs: evidence.GPUs{Devices: []evidence.Device{{Kind: evidence.KindGPU, Report: []byte{1}, Chain: []byte{1}}}}}
	if err := s.Complete(t.Context(), broken); err != nil {
		t.Errorf("what does not parse: got %v, want it left for Verify", err)
	}
}

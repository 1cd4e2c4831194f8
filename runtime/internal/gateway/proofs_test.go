package gateway

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"chrysalis/attest/evidence"
	"chrysalis/measure/pubkey"
	"chrysalis/runtime/api"
	"chrysalis/runtime/envelope"
	"chrysalis/runtime/receipt"
)

// get asks for something without a body.
func (b *bench) get(t testing.TB, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return b.do(t, r)
}

// idOf returns the id of an answer, the first that stands in it.
func idOf(t testing.TB, answer string) string {
	t.Helper()
	_, rest, ok := strings.Cut(answer, `"id":"`)
	id, _, found := strings.Cut(rest, `"`)
	if !ok || !found {
		t.Fatalf("no id in %s", answer)
	}
	return id
}

// TestProofs: whoever has an answer's id gets its receipt, and a signature over the bodies as they travelled, in each dialect, streamed
// and whole.
func TestProofs(t *testing.T) {
	b := startBench(t, nil)
	asked := 0
	for path, request := range requests {
		if path == api.Embeddings {
			continue // TestEmbeddings
		}
		for _, body := range []string{request + "}", request + `,"stream":true}`} {
			status, answer := postTo(t, b, path, body)
			id := idOf(t, answer)
			if status != 200 || !strings.HasPrefix(id, dialects[path].ids) {
				t.Fatalf("%s: status %d, id %q", path, status, id)
			}
			status, text := b.get(t, api.Receipts+id)
			var kept struct {
				Object, ID string
				Receipt    []byte
			}
			if err := json.Unmarshal([]byte(text), &kept); err != nil || status != 200 || kept.ID != id || kept.Object != "chrysalis.receipt" {
				t.Fatalf("%s: status %d: %s", path, status, text)
			}
			r, err := receipt.Verify(kept.Receipt, pubkey.Of(signer))
			if err != nil || r.Request != sha256.Sum256([]byte(body)) {
				t.Errorf("%s: the receipt is of request %x (%v)", path, r.Request, err)
			}
			if !strings.Contains(answer, base64.StdEncoding.EncodeToString(kept.Receipt)) {
				t.Errorf("%s: the receipt is another than the answer's", path)
			}
			for range 2 { // signed once
				status, text = b.get(t, api.Signatures+id+"?model=tiny&signing_algo=ed25519")
				var s struct {
					Text, Signature string
					Address         string `json:"signing_address"`
					Algo            string `json:"signing_algo"`
				}
				if err := json.Unmarshal([]byte(text), &s); err != nil || status != 200 || s.Algo != "ed25519" {
					t.Fatalf("%s: status %d: %s", path, status, text)
				}
				want := fmt.Sprintf("%x:%x", sha256.Sum256([]byte(body)), sha256.Sum256([]byte(answer)))
				signature, err := hex.DecodeString(s.Signature)
				if err != nil || s.Text != want || !pubkey.Of(signer).Verify([]byte(want), signature) || s.Address != pubkey.Of(signer).String() {
					t.Errorf("%s: got %s\nwant a signature over %s", path, text, want)
				}
			}
			asked++
		}
	}
	if b.keeper.vouched != asked {
		t.Errorf("the keeper has signed %d times, want %d", b.keeper.vouched, asked)
	}
}

func TestProofsRefused(t *testing.T) {
	b := startBench(t, nil)
	_, answer := b.post(t, ask(""))
	id := idOf(t, answer)
	b.engine.set(func(w *engineWriter) { w.begin(1); w.text("half"); w.conn() })
	_, cut := b.post(t, ask(`,"stream":true`))
	_, events, _ := strings.Cut(cut, "data: ")
	broken := idOf(t, events)
	if status, text := b.get(t, api.Receipts+broken); status != 200 {
		t.Errorf("the receipt of a cut answer: status %d: %s", status, text)
	}
	nonce := strings.Repeat("5a", 32)
	for _, tt := range []struct {
		path   string
		status int
		code   string
	}{
		{api.Signatures + broken, 404, "not_whole"},
		{api.Receipts, 404, "no_such_answer"},
		{api.Receipts + id[:len(id)-1], 404, "no_such_answer"},
		{api.Receipts + strings.TrimPrefix(id, "chatcmpl-"), 404, "no_such_answer"},
		{api.Receipts + id + "/", 404, "no_such_path"},
		{api.Receipts + "x/" + id, 404, "no_such_path"},
		{api.Receipts + id + "?x=1", 400, ""},
		{api.Signatures + "chatcmpl-" + strings.Repeat("0", 32), 404, "no_such_answer"},
		{api.Signatures + id + "?signing_algo=ecdsa", 400, ""},
		{api.Signatures + id + "?signing_algo=ed25519&signing_algo=ed25519", 400, ""},
		{api.Signatures + id + "?model=huge", 404, "model_not_found"},
		{api.Signatures + id + "?key=1", 400, ""},
		{api.Signatures + id + "?" + strings.Repeat("x", 2000), 400, ""},
		{api.Report, 400, ""},
		{api.Report + "?nonce=" + nonce[1:], 400, ""},
		{api.Report + "?nonce=" + strings.ToUpper(nonce), 400, ""},
		{api.Report + "?nonce=" + strings.Repeat("0", 64), 400, ""},
		{api.Report + "?nonce=" + nonce + "&nonce=" + nonce, 400, ""},
		{api.Report + "/" + id, 404, "no_such_path"},
	} {
		status, text := b.get(t, tt.path)
		if r := parseReply(t, text); status != tt.status || r.Error == nil || tt.code != "" && *r.Error.Code != tt.code {
			t.Errorf("%s: status %d: %s, want %d %s", tt.path, status, text, tt.status, tt.code)
		}
	}
	b.keeper.mu.Lock()
	b.keeper.onRecord = errTest
	b.keeper.mu.Unlock()
	if status, text := b.get(t, api.Signatures+id); status != 503 || *parseReply(t, text).Error.Code != "not_signed" {
		t.Errorf("a keeper that does not sign: status %d: %s", status, text)
	}
	b.keeper.mu.Lock()
	b.keeper.onRecord = nil
	b.keeper.mu.Unlock()
	if status, _ := b.get(t, api.Signatures+id); status != 200 {
		t.Errorf("a keeper that signs again: status %d", status)
	}
	b.quoter.err = errTest
	if status, text := b.get(t, api.Report+"?nonce="+nonce); status != 503 || *parseReply(t, text).Error.Code != "no_evidence" {
		t.Errorf("no quote: status %d: %s", status, text)
	}
	post := b.request(t, t.Context(), ask(""))
	post.URL.Path = api.Receipts + id
	if status, _ := b.do(t, post); status != 405 {
		t.Errorf("posted to a receipt: status %d, want 405", status)
	}
}

// TestProofsAreBounded: the newest answers are remembered, and no others.
func TestProofsAreBounded(t *testing.T) {
	var p proofs
	for i := range rememberedAnswers + 10 {
		p.keep(fmt.Sprint(i), &proven{})
	}
	if len(p.of) != rememberedAnswers || len(p.order) != rememberedAnswers || p.of["9"] != nil || p.of["10"] == nil {
		t.Errorf("%d answers are remembered in an order of %d, want the newest %d", len(p.of), len(p.order), rememberedAnswers)
	}
}

// TestReport: what a report says is what its evidence says, and the evidence answers the nonce.
func TestReport(t *testing.T) {
	b := startBench(t, nil)
	nonce := [32]byte(bytes.Repeat([]byte{0x5a}, 32))
	status, text := b.get(t, fmt.Sprintf("%s?model=tiny&nonce=%x", api.Report, nonce))
	var r struct {
		Address   string `json:"signing_address"`
		Algo      string `json:"signing_algo"`
		Nonce     string `json:"request_nonce"`
		Quote     string `json:"intel_quote"`
		Chrysalis struct {
			Platform, Statement string
			ReportData          string `json:"report_data"`
			Evidence            []byte
		}
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil || status != 200 {
		t.Fatalf("status %d: %s", status, text)
	}
	e, err := evidence.Decode(r.Chrysalis.Evidence)
	if err != nil {
		t.Fatal(err)
	}
	report := evidence.ReportData(e.Statement)
	if r.Address != pubkey.Of(signer).String() || r.Algo != "ed25519" || r.Nonce != fmt.Sprintf("%x", nonce) || r.Quote != "" || r.Chrysalis.Platform != "vtpm" ||
		r.Chrysalis.Statement != fmt.Sprintf("%x", e.Statement.Encode()) || r.Chrysalis.ReportData != fmt.Sprintf("%x", report) {
		t.Errorf("report: %s", text)
	}
	if root, err := e.Path.Root(evidence.DetachedLeaf(nonce)); err != nil || root != e.Statement.NonceRoot {
		t.Errorf("the path leads to %x (%v), want %x", root, err, e.Statement.NonceRoot)
	}
}

// TestReportOfTDX has the quote where others' clients look for it.
func TestReportOfTDX(t *testing.T) {
	b := startBench(t, func(c *Config) {
		quote := c.Quote
		c.Quote = func(r evidence.Request) (*evidence.Evidence, error) {
			e, err := quote(r)
			if err == nil {
				e.Platform, e.Quote = evidence.TDX, []byte{4, 0, 0xab}
			}
			return e, err
		}
	})
	if status, text := b.get(t, api.Report+"?nonce="+strings.Repeat("5a", 32)); status != 200 || !strings.Contains(text, `"intel_quote":"0400ab"`) {
		t.Errorf("status %d: %s", status, text)
	}
}

// TestSealedProofs: receipt and signature are for what was in the envelope, and may be asked for in one.
func TestSealedProofs(t *testing.T) {
	b := startSealed(t, nil)
	body := ask("")
	_, answer, err := b.exchange(t, b.seal(t, body))
	if err != nil {
		t.Fatal(err)
	}
	id := idOf(t, answer)
	want := fmt.Sprintf("%x:%x", sha256.Sum256([]byte(body)), sha256.Sum256([]byte(answer)))
	nonce := [32]byte(bytes.Repeat([]byte{0x5a}, 32))
	for _, tt := range []struct {
		path, query string
		status      int
		want        string
	}{
		{api.Signatures + id, "", 200, want},
		{api.Signatures + id, "model=tiny&signing_algo=ed25519", 200, want},
		{api.Signatures + id, "model=huge", 404, "model_not_found"},
		{api.Report, fmt.Sprintf("nonce=%x", nonce), 200, fmt.Sprintf(`"request_nonce":"%x"`, nonce)},
		{api.Report, "nonce=5a", 400, "64 lower-case"},
	} {
		asked := b.sealAs(t, envelope.Request{Method: http.MethodGet, Path: tt.path, Query: tt.query})
		if tt.query != "" && bytes.Contains(asked.body, []byte(tt.query)) {
			t.Errorf("%s: the query can be read", tt.query)
		}
		opened, text, err := b.exchange(t, asked)
		if err != nil || opened.Status != tt.status || !strings.Contains(text, tt.want) {
			t.Errorf("%s?%s: got %d %s (%v), want %d and %s in it", tt.path, tt.query, opened.Status, text, err, tt.status, tt.want)
		}
	}
}

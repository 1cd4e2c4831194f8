package envelope_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"chrysalis/attest/evidence"
	"chrysalis/runtime/envelope"
	"chrysalis/runtime/envelope/guest"
)

// second is the second hand of ENVELOPE.md, under node.
type second struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

func newSecond(t *testing.T) second {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node here to run the JavaScript reference")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, node, "reference/lines.mjs")
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "NODE_NO_WARNINGS=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	s := second{t, in, bufio.NewScanner(out)}
	s.out.Buffer(nil, 1<<20)
	return s
}

type fields map[string]any

// ask decodes what the second hand answers; what it refuses comes back.
func (s second) ask(what string, with fields, into any) (refused string) {
	s.t.Helper()
	with["ask"] = what
	line, err := json.Marshal(with)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		s.t.Fatal(err)
	}
	if !s.out.Scan() {
		s.t.Fatalf("%s: no answer: %v", what, s.out.Err())
	}
	var failed struct{ Error string }
	if err := json.Unmarshal(s.out.Bytes(), &failed); err != nil {
		s.t.Fatal(err)
	}
	if failed.Error == "" {
		if err := json.Unmarshal(s.out.Bytes(), into); err != nil {
			s.t.Fatal(err)
		}
	}
	return failed.Error
}

func (s second) must(what string, with fields, into any) {
	s.t.Helper()
	if refused := s.ask(what, with, into); refused != "" {
		s.t.Fatalf("%s: refused: %s", what, refused)
	}
}

type field struct{ Name, Value string }

// TestSecondHandVectors: the JavaScript reference reads the vectors as they are meant.
func TestSecondHandVectors(t *testing.T) {
	for _, name := range []string{"envelope", "query"} {
		t.Run(name, func(t *testing.T) { readByOther(t, "testdata/vectors/"+name+".json") })
	}
}

func readByOther(t *testing.T, vector string) {
	js := newSecond(t)
	file, err := os.ReadFile(vector)
	if err != nil {
		t.Fatal(err)
	}
	type message struct {
		Method, Path, Query, Body string
		Header                    []field
	}
	var v struct {
		Seed, PublicKey, OuterPath, Sealed string
		Header                             struct {
			KeyID, Instance, ID        string
			Epoch, NotBefore, NotAfter uint64
		}
		Request message
		Answer  struct {
			Status          int
			Header          []field
			Content, Sealed string
		}
	}
	if err := json.Unmarshal(file, &v); err != nil {
		t.Fatal(err)
	}
	want := v
	got := v
	got.PublicKey, got.Header, got.Request, got.Answer.Status, got.Answer.Header, got.Answer.Content = "", struct {
		KeyID, Instance, ID        string
		Epoch, NotBefore, NotAfter uint64
	}{}, message{}, 0, nil, ""
	js.must("keys", fields{"seed": v.Seed}, &got)
	js.must("openRequest", fields{"seed": v.Seed, "sealed": v.Sealed, "path": v.OuterPath}, &got)
	js.must("openAnswer", fields{"sealed": v.Answer.Sealed}, &got.Answer)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}

	// Each bit counts: one flipped at places all over both, and each prefix at steps.
	sealed, answer := unhex(t, v.Sealed), unhex(t, v.Answer.Sealed)
	for at := 0; at < len(sealed); at += 37 {
		if js.ask("openRequest", fields{"seed": v.Seed, "sealed": flipped(sealed, at), "path": v.OuterPath}, &got) == "" {
			t.Errorf("request with byte %d changed: opened", at)
		}
	}
	if js.ask("openRequest", fields{"seed": v.Seed, "sealed": v.Sealed, "path": "/v1/models"}, &got) == "" {
		t.Error("request on another path: opened")
	}
	if js.ask("openRequest", fields{"seed": v.Seed, "sealed": v.Sealed, "path": v.OuterPath + "?" + v.Request.Query}, &got) == "" {
		t.Error("request on its path with a query: opened")
	}
	js.must("openRequest", fields{"seed": v.Seed, "sealed": v.Sealed, "path": v.OuterPath}, &got)
	for at := 0; at < len(answer); at += 29 {
		if js.ask("openAnswer", fields{"sealed": flipped(answer, at)}, &got.Answer) == "" {
			t.Errorf("answer with byte %d changed: opened", at)
		}
		if js.ask("openAnswer", fields{"sealed": hex.EncodeToString(answer[:at])}, &got.Answer) == "" {
			t.Errorf("answer cut after %d bytes: opened", at)
		}
	}
	if js.ask("openAnswer", fields{"sealed": v.Answer.Sealed + "00"}, &got.Answer) == "" {
		t.Error("answer with a byte more: opened")
	}
}

func flipped(b []byte, at int) string {
	b = bytes.Clone(b)
	b[at] ^= 1 << (at % 8)
	return hex.EncodeToString(b)
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSecondHandTalks: each hand seals what the other opens, requests and answers.
func TestSecondHandTalks(t *testing.T) {
	js := newSecond(t)
	private, result := verified(t, true)
	seed, err := private.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	opener := guest.NewOpener(func(evidence.KeyID) (guest.Key, bool) {
		return guest.Key{PrivateKey: private, Epoch: result.Epoch(), Instance: result.SecretHash()}, true
	}, nil)
	id := evidence.HPKEKeyID(sha256.Sum256(result.HPKEKey()))
	header := []field{{"authorization", "Bearer x"}, {"content-type", "application/json"}}
	for _, size := range []int{0, 1, 100, 5000, 70000} {
		query := strings.Repeat("a=1&?", size%2)
		body := strings.Repeat("é", size/2) + strings.Repeat("x", size%2)

		// JavaScript asks, Go answers.
		var sealed struct{ Sealed, KeyID string }
		js.must("sealRequest", fields{"publicKey": hex.EncodeToString(result.HPKEKey()), "epoch": result.Epoch(),
			"instance": fmt.Sprintf("%x", result.SecretHash()),
			"request": fields{"method": "POST", "path": "/v1/chat/completions", "query": query, "body": body,
				"header": []fields{{"name": "authorization", "value": "Bearer x"}}}}, &sealed)
		if want := fmt.Sprintf("%x", id); sealed.KeyID != want {
			t.Errorf("key id: got %s, want %s", sealed.KeyID, want)
		}
		request, secret, err := opener.Open(unhex(t, sealed.Sealed), id, envelope.Method, "/v1/chat/completions")
		if err != nil {
			t.Fatalf("what JavaScript sealed: %v", err)
		}
		if string(request.Body) != body || request.Path != "/v1/chat/completions" || request.Query != query || fmt.Sprint(request.Header) != "[{authorization Bearer x}]" {
			t.Errorf("request of %d bytes: got %d with %v", size, len(request.Body), request.Header)
		}
		var out bytes.Buffer
		w, err := secret.Seal(&out)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Begin(429, []envelope.Field{{Name: "retry-after", Value: "3"}}); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, body)
		w.Flush()
		io.WriteString(w, "end")
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Status  int
			Header  []field
			Content string
		}
		js.must("openAnswer", fields{"sealed": hex.EncodeToString(out.Bytes())}, &answer)
		if answer.Status != 429 || answer.Content != body+"end" || fmt.Sprint(answer.Header) != "[{retry-after 3}]" {
			t.Errorf("answer of %d bytes: got %d with %v and %d bytes", size, answer.Status, answer.Header, len(answer.Content))
		}

		// Go asks, JavaScript answers.
		key, err := envelope.KeyOf(result)
		if err != nil {
			t.Fatal(err)
		}
		asked := envelope.Request{Method: "POST", Path: "/v1/responses", Query: query, Body: []byte(body)}
		for _, f := range header {
			asked.Header = append(asked.Header, envelope.Field(f))
		}
		wire, back, err := key.Seal(asked, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var opened struct {
			Request struct {
				Method, Path, Query, Body string
				Header                    []field
			}
		}
		js.must("openRequest", fields{"seed": hex.EncodeToString(seed), "sealed": hex.EncodeToString(wire), "path": "/v1/responses"}, &opened)
		if opened.Request.Body != body || opened.Request.Query != query || opened.Request.Method != "POST" || fmt.Sprint(opened.Request.Header) != fmt.Sprint(header) {
			t.Errorf("what Go sealed: got %s with %v and %d bytes", opened.Request.Method, opened.Request.Header, len(opened.Request.Body))
		}
		js.must("sealAnswer", fields{"status": 200, "header": []fields{{"name": "content-type", "value": "text/plain"}},
			"pieces": []string{"one ", "two"}}, &sealed)
		response, err := back.Open(bytes.NewReader(unhex(t, sealed.Sealed)))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response)
		if err != nil || string(text) != "one two" || response.Status != 200 || fmt.Sprint(response.Header) != "[{content-type text/plain}]" {
			t.Errorf("what JavaScript answers: got %d, %v, %q, error %v", response.Status, response.Header, text, err)
		}
	}
}

// TestSecondHandMLKEM: the reference's ML-KEM against Go's, ciphertexts that nobody made included.
func TestSecondHandMLKEM(t *testing.T) {
	js := newSecond(t)
	for i := range 20 {
		key, err := mlkem.GenerateKey768()
		if err != nil {
			t.Fatal(err)
		}
		seed := hex.EncodeToString(key.Bytes())
		secret, ciphertext := key.EncapsulationKey().Encapsulate()
		var got struct{ Secret, Ciphertext string }
		js.must("decapsulate", fields{"seed": seed, "ciphertext": hex.EncodeToString(ciphertext)}, &got)
		if want := hex.EncodeToString(secret); got.Secret != want {
			t.Fatalf("secret %d: got %s, want %s", i, got.Secret, want)
		}
		random := make([]byte, 32)
		rand.Read(random)
		js.must("encapsulate", fields{"publicKey": hex.EncodeToString(key.EncapsulationKey().Bytes()), "random": hex.EncodeToString(random)}, &got)
		secret, err = key.Decapsulate(unhex(t, got.Ciphertext))
		if want := hex.EncodeToString(secret); err != nil || got.Secret != want {
			t.Fatalf("encapsulated %d: got %s, want %s (error %v)", i, got.Secret, want, err)
		}
		foreign := bytes.Clone(ciphertext)
		foreign[i*50] ^= 4
		secret, err = key.Decapsulate(foreign)
		js.must("decapsulate", fields{"seed": seed, "ciphertext": hex.EncodeToString(foreign)}, &got)
		if want := hex.EncodeToString(secret); err != nil || got.Secret != want {
			t.Fatalf("a ciphertext that nobody made, %d: got %s, want %s (error %v)", i, got.Secret, want, err)
		}
	}
	var got struct{ Secret string }
	unreduced := strings.Repeat("ff", 1184)
	if js.ask("encapsulate", fields{"publicKey": unreduced, "random": strings.Repeat("00", 32)}, &got) == "" {
		t.Error("a key that is not reduced: encapsulated to")
	}
}

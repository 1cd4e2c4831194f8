package release_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/check"
	"chrysalis/attest/release"
	"chrysalis/measure/pubkey"
	"chrysalis/measure/register"
)

// listKey returns the private key whose seed is 32 times b.
func listKey(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func publicKeys(seeds ...byte) (keys []pubkey.Ed25519) {
	for _, b := range seeds {
		keys = append(keys, pubkey.Of(listKey(b)))
	}
	return keys
}

var listIssued = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

const listLasts = 30 * 24 * time.Hour

// exampleReleases lists two releases, of which the second was rebuilt by the keys 11 and 12, and revokes one.
func exampleReleases(t testing.TB) release.Document {
	t.Helper()
	d := release.NewDocument(listIssued, listLasts)
	d.Releases = []release.Listed{
		{Manifest: register.Digest{1}, Values: release.Release{Name: "cpu 1", SecurityVersion: 1,
			VTPM: []register.PCRs{{4: {4}, 9: {9}}}}, Rebuilds: []release.Envelope{}},
		{Manifest: register.Digest{2}, Values: release.Release{Name: "cpu 2", SecurityVersion: 2,
			VTPM: []register.PCRs{{4: {5}, 9: {10}}}, SEVSNP: []register.Digest384{{6}}}, Rebuilds: []release.Envelope{}},
	}
	d.Revoked = []release.Revoked{{Name: "cpu 0", Manifest: register.Digest{9}, Reason: "the gateway logged prompts"}}
	for _, b := range []byte{12, 11} {
		statement, err := release.SignRebuild(register.Digest{2}, "rebuilder", listIssued, listKey(b))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.AddRebuild(statement); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func signedList(t testing.TB, d release.Document, seeds ...byte) []byte {
	t.Helper()
	signed, err := release.EncodeList(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range seeds {
		if signed, err = release.SignList(signed, listKey(b)); err != nil {
			t.Fatal(err)
		}
	}
	return signed
}

// TestReleaseListVector keeps the format: readers of other programs have only the vector and the specification.
func TestReleaseListVector(t *testing.T) {
	got := signedList(t, exampleReleases(t), 1, 2)
	file := filepath.Join("testdata", "vectors", "releases.json")
	if os.Getenv("UPDATE_VECTORS") != "" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := vectorFile(t, "releases.json"); !bytes.Equal(got, want) {
		t.Fatalf("got %s, want %s", got, want)
	}
	l, err := release.ParseList(got, publicKeys(1, 2, 3), 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Signers()) != 2 || !l.Issued().Equal(listIssued) {
		t.Errorf("got %d signers, issued %v, want 2, %v", len(l.Signers()), l.Issued(), listIssued)
	}
	r, err := l.Release("cpu 2")
	if err != nil || r.Manifest != (register.Digest{2}) || r.Values.SecurityVersion != 2 ||
		r.Values.VTPM[0][9] != (register.Digest{10}) || r.Values.SEVSNP[0] != (register.Digest384{6}) {
		t.Errorf("release: got %+v, error %v", r, err)
	}
}

func TestReleaseListSigners(t *testing.T) {
	d := exampleReleases(t)
	for _, tt := range []struct {
		name      string
		signed    []byte
		signers   []pubkey.Ed25519
		threshold int
		want      string // "" is accepted
	}{
		{"two of three", signedList(t, d, 1, 3), publicKeys(1, 2, 3), 2, ""},
		{"three where two are enough", signedList(t, d, 1, 2, 3), publicKeys(1, 2, 3), 2, ""},
		{"one of one, and somebody else", signedList(t, d, 1, 9), publicKeys(1), 1, ""},
		{"one of three, want two", signedList(t, d, 2), publicKeys(1, 2, 3), 2, "want at least 2"},
		{"nobody", signedList(t, d), publicKeys(1), 1, "0 of its 0 signatures"},
		{"somebody else", signedList(t, d, 9), publicKeys(1), 1, "want at least 1"},
		{"a signer who is passed twice counts once", signedList(t, d, 1), publicKeys(1, 1), 2, "want at least 2"},
		{"threshold zero", signedList(t, d, 1), publicKeys(1), 0, "threshold is 0"},
		{"threshold below zero", signedList(t, d, 1), publicKeys(1), -1, "threshold is -1"},
		{"threshold above the signers", signedList(t, d, 1, 2), publicKeys(1), 2, "threshold is 2 of 1"},
		{"no signers", signedList(t, d, 1), nil, 0, "threshold is 0"},
		{"no key", signedList(t, d, 1), []pubkey.Ed25519{{}}, 1, "key is zero"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := release.ParseList(tt.signed, tt.signers, tt.threshold)
			if tt.want == "" {
				if err != nil || l == nil {
					t.Errorf("got error %v, want the list", err)
				}
				return
			}
			if err == nil || l != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, error %v, want one with %q", l, err, tt.want)
			}
		})
	}
	if _, err := release.SignList(signedList(t, d, 1), listKey(1)); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("signing twice: got error %v", err)
	}
}

// TestEveryByteOfReleaseList: no byte of a list can change without it being refused.
func TestEveryByteOfReleaseList(t *testing.T) {
	good := signedList(t, exampleReleases(t), 1, 2)
	signers := publicKeys(1, 2)
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		if l, err := release.ParseList(bad, signers, 2); err == nil || l != nil {
			t.Errorf("byte %d (%q) changed: got no error, want a refusal", i, good[i])
		}
	}
	for n := range good {
		if _, err := release.ParseList(good[:n], signers, 2); err == nil {
			t.Errorf("cut to %d bytes: got no error, want a refusal", n)
		}
	}
}

// payloadOf replaces text of the payload and leaves the envelope's form alone.
func payloadOf(t *testing.T, signed []byte, old, new string) []byte {
	t.Helper()
	var e release.Envelope
	if err := json.Unmarshal(signed, &e); err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(e.Payload, []byte(old), []byte(new), 1)
	if bytes.Equal(changed, e.Payload) {
		t.Fatalf("the change does nothing: no %q in %s", old, e.Payload)
	}
	// A change of the payload breaks the signatures, so the twins are unsigned and must be refused before signatures are asked for.
	return []byte(`{"payloadType":"` + e.PayloadType + `","payload":"` + base64.StdEncoding.EncodeToString(changed) + `","signatures":[]}` + "\n")
}

func TestReleaseListRefuses(t *testing.T) {
	good := signedList(t, exampleReleases(t))
	if _, _, err := release.DecodeList(good); err != nil {
		t.Fatalf("the list that is changed below: %v", err)
	}
	for _, tt := range []struct{ name, old, new, want string }{
		{"unknown member", `"format":`, `"extra":1,"format":`, "extra"},
		{"member twice", `"format":"chrysalis release list v1",`,
			`"format":"chrysalis release list v1","format":"chrysalis release list v1",`, "duplicate"},
		{"member absent", `"revoked":[{"name":"cpu 0",`, `"revoked":[{`, ""},
		{"other format", "release list v1", "release list v2", "format"},
		{"spacing", `"format":`, `"format": `, "one encoding"},
		{"order of members", `{"format":"chrysalis release list v1","issued":"2026-11-20T12:00:00Z",`,
			`{"issued":"2026-11-20T12:00:00Z","format":"chrysalis release list v1",`, "one encoding"},
		{"issued with an offset", `"issued":"2026-11-20T12:00:00Z"`, `"issued":"2026-11-20T12:00:00+00:00"`, ""},
		{"issued with a fraction", `"issued":"2026-11-20T12:00:00Z"`, `"issued":"2026-11-20T12:00:00.5Z"`, "whole seconds"},
		{"issued at zero", `"issued":"2026-11-20T12:00:00Z"`, `"issued":"0001-01-01T00:00:00Z"`, "whole seconds"},
		{"expires before issued", `"expires":"2026-12-20T12:00:00Z"`, `"expires":"2026-11-20T11:59:59Z"`, "later than issued"},
		{"expires when issued", `"expires":"2026-12-20T12:00:00Z"`, `"expires":"2026-11-20T12:00:00Z"`, "later than issued"},
		{"release without name", `"name":"cpu 1"`, `"name":""`, "name is 0 bytes"},
		{"release with a long name", `"name":"cpu 1"`, `"name":"` + strings.Repeat("x", 129) + `"`, "name is 129 bytes"},
		{"release twice", `"name":"cpu 1"`, `"name":"cpu 2"`, "each once and sorted"},
		{"releases out of order", `"name":"cpu 1"`, `"name":"cpu 3"`, "each once and sorted"},
		{"release without manifest", "01" + strings.Repeat("00", 31), strings.Repeat("00", 32), "names no manifest"},
		{"short manifest", "01" + strings.Repeat("00", 31), "01" + strings.Repeat("00", 30), ""},
		{"security version zero", `"security_version":1`, `"security_version":0`, "security version is 0"},
		{"revoked and listed by name", `"name":"cpu 0"`, `"name":"cpu 1"`, "yet listed"},
		{"revoked and listed by manifest", "09" + strings.Repeat("00", 31) + `","reason"`,
			"01" + strings.Repeat("00", 31) + `","reason"`, "yet listed"},
		{"no reason", "the gateway logged prompts", "", "reason is 0 bytes"},
		{"a long reason", "the gateway logged prompts", strings.Repeat("x", 513), "reason is 513 bytes"},
		{"rebuilds absent", `"rebuilds":[]`, `"rebuilds":null`, ""},
		{"rebuild of another type", "chrysalis.rebuild+json", "chrysalis.claim+json", "payload type"},
		{"trailing bytes", `"reason":"the gateway logged prompts"}]}`, `"reason":"the gateway logged prompts"}]} `, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := release.DecodeList(payloadOf(t, good, tt.old, tt.new)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
	signed := string(signedList(t, exampleReleases(t), 1, 2))
	ids := []string{publicKeys(1)[0].String(), publicKeys(2)[0].String()}
	slices.Sort(ids)
	for _, tt := range []struct{ name, old, new, want string }{
		{"unknown member of the envelope", `{"payloadType"`, `{"extra":1,"payloadType"`, "extra"},
		{"another payload type", "release-list+json", "rebuild+json", "payload type"},
		{"key id in upper case", ids[0], strings.ToUpper(ids[0]), "lower case"},
		{"one key twice", ids[1], ids[0], "each once and sorted"},
		{"short signature", `"sig":"`, `"sig":"AAAA","sig":"`, ""},
		{"trailing bytes", "]}\n", "]}\n\n", "one encoding"},
		{"spacing", `"payload":`, `"payload": `, "one encoding"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := strings.Replace(signed, tt.old, tt.new, 1)
			if bad == signed {
				t.Fatal("the change does nothing")
			}
			if _, err := release.ParseList([]byte(bad), publicKeys(1, 2), 1); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
	if _, err := release.ParseList(make([]byte, 4<<20+1), publicKeys(1), 1); err == nil || !strings.Contains(err.Error(), "want at most") {
		t.Errorf("too long: got error %v", err)
	}
}

func TestReleaseListJudge(t *testing.T) {
	l, err := release.ParseList(signedList(t, exampleReleases(t), 1), publicKeys(1), 1)
	if err != nil {
		t.Fatal(err)
	}
	const week = 7 * 24 * time.Hour
	for _, tt := range []struct {
		name    string
		list    *release.List
		release string
		now     time.Time
		maxAge  time.Duration
		want    string // "" is accepted
	}{
		{"listed", l, "cpu 1", listIssued.Add(time.Hour), week, ""},
		{"in the second of issue", l, "cpu 1", listIssued, week, ""},
		{"before", l, "cpu 1", listIssued.Add(-time.Second), week, "not yet issued"},
		{"as old as may be", l, "cpu 1", listIssued.Add(week), week, ""},
		{"a second older", l, "cpu 1", listIssued.Add(week + time.Second), week, "too old"},
		{"the last second", l, "cpu 1", listIssued.Add(listLasts - time.Second), 2 * listLasts, ""},
		{"expired", l, "cpu 1", listIssued.Add(listLasts), 2 * listLasts, "has expired"},
		{"revoked", l, "cpu 0", listIssued, week, "revoked: the gateway logged prompts"},
		{"unknown", l, "cpu 7", listIssued, week, "not listed"},
		{"no maximum age", l, "cpu 1", listIssued, 0, "maximum age is 0s"},
		{"the zero list", &release.List{}, "cpu 1", listIssued, week, "has expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.list.Judge(tt.release, tt.now, tt.maxAge)
			if tt.want == "" {
				if err != nil {
					t.Errorf("got error %v, want none", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, check.ErrRejected) == (tt.maxAge == 0) {
				t.Errorf("got error %v, want a rejection with %q", err, tt.want)
			}
		})
	}
}

func TestReleaseListRebuilt(t *testing.T) {
	l, err := release.ParseList(signedList(t, exampleReleases(t), 1), publicKeys(1), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, release string
		rebuilders    []pubkey.Ed25519
		threshold     int
		want          string
	}{
		{"two of two", "cpu 2", publicKeys(11, 12), 2, ""},
		{"two of three", "cpu 2", publicKeys(11, 12, 13), 2, ""},
		{"two, want three", "cpu 2", publicKeys(11, 12, 13), 3, "by 2 of 3 rebuilders, want at least 3"},
		{"one rebuilder named twice counts once", "cpu 2", publicKeys(11, 11), 2, "want at least 2"},
		{"by others", "cpu 2", publicKeys(13), 1, "by 0 of 1"},
		{"by nobody", "cpu 1", publicKeys(11), 1, "by 0 of 1"},
		{"revoked", "cpu 0", publicKeys(11), 1, "revoked"},
		{"threshold zero", "cpu 2", publicKeys(11), 0, "threshold is 0"},
		{"no rebuilders", "cpu 2", nil, 1, "threshold is 1 of 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := l.Rebuilt(tt.release, tt.rebuilders, tt.threshold)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestForgedRebuild: a statement in a list that its rebuilder never signed refuses, even where others would be enough.
func TestForgedRebuild(t *testing.T) {
	d := exampleReleases(t)
	d.Releases[1].Rebuilds[0].Signatures[0].Sig[5] ^= 1
	l, err := release.ParseList(signedList(t, d, 1), publicKeys(1), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Rebuilt("cpu 2", publicKeys(11, 12), 1); !errors.Is(err, check.ErrRejected) ||
		!strings.Contains(err.Error(), "does not hold") {
		t.Errorf("got error %v, want a rejection of the signature", err)
	}
	moved := exampleReleases(t)
	moved.Releases[0].Rebuilds = moved.Releases[1].Rebuilds
	if _, err := release.EncodeList(moved); err == nil || !strings.Contains(err.Error(), "is of manifest") {
		t.Errorf("another release's statement: got error %v", err)
	}
}

func TestRebuild(t *testing.T) {
	signed, err := release.SignRebuild(register.Digest{2}, "auditor.example", listIssued.Add(500*time.Millisecond), listKey(11))
	if err != nil {
		t.Fatal(err)
	}
	r, key, err := release.VerifyRebuild(signed, publicKeys(12, 11))
	if err != nil || key != publicKeys(11)[0] || r.Manifest != (register.Digest{2}) || r.Rebuilder != "auditor.example" ||
		!r.Time.Equal(listIssued) {
		t.Errorf("got %+v by %s, error %v", r, key, err)
	}
	for i := range signed {
		bad := slices.Clone(signed)
		bad[i] ^= 1
		if _, _, err := release.VerifyRebuild(bad, publicKeys(11)); !errors.Is(err, check.ErrRejected) {
			t.Errorf("byte %d changed: got error %v, want a rejection", i, err)
		}
	}
	if _, _, err := release.VerifyRebuild(signed, publicKeys(12)); err == nil || !strings.Contains(err.Error(), "none of the 1 rebuilders") {
		t.Errorf("by somebody else: got error %v", err)
	}
	for name, sign := range map[string]func() ([]byte, error){
		"no name":     func() ([]byte, error) { return release.SignRebuild(register.Digest{2}, "", listIssued, listKey(11)) },
		"no manifest": func() ([]byte, error) { return release.SignRebuild(register.Digest{}, "a", listIssued, listKey(11)) },
		"no time":     func() ([]byte, error) { return release.SignRebuild(register.Digest{2}, "a", time.Time{}, listKey(11)) },
		"no key":      func() ([]byte, error) { return release.SignRebuild(register.Digest{2}, "a", listIssued, nil) },
	} {
		if _, err := sign(); err == nil {
			t.Errorf("%s: got no error, want a refusal", name)
		}
	}
}

func FuzzParseReleaseList(f *testing.F) {
	for _, seed := range [][]byte{signedList(f, exampleReleases(f), 1, 2), signedList(f, release.NewDocument(listIssued, listLasts))} {
		if _, _, err := release.DecodeList(seed); err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		document, signatures, err := release.DecodeList(data)
		if err != nil {
			return
		}
		again, err := release.EncodeList(document)
		if err != nil {
			t.Fatalf("encoding again: %v", err)
		}
		if len(signatures) == 0 && !bytes.Equal(again, data) {
			t.Errorf("encoding again: got %q, want %q", again, data)
		}
	})
}

func FuzzVerifyRebuild(f *testing.F) {
	seed, err := release.SignRebuild(register.Digest{2}, "auditor.example", listIssued, listKey(11))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _, err := release.VerifyRebuild(data, publicKeys(11))
		if err != nil {
			return
		}
		again, err := release.SignRebuild(r.Manifest, r.Rebuilder, r.Time, listKey(11))
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("signing again: got %q, error %v, want %q", again, err, data)
		}
	})
}

func vectorFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

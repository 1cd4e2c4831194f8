package collateral

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"chrysalis/attest/check"
	"chrysalis/attest/dialect"
	"chrysalis/attest/nvidia"
	"chrysalis/attest/pki"
)

// NVIDIA is what NVIDIA's services have for devices.
type NVIDIA struct {
	Names []string // of the documents
	RIMs  [][]byte
	OCSP  [][]byte // answers about the certificates of devices and of who signed the documents
}

// NVIDIA fetches the reference values of devices and the answers of responders about all certificates that need one.
func (f *Fetcher) NVIDIA(ctx context.Context, devices []nvidia.Device) (*NVIDIA, error) {
	if f.Folder != "" {
		return f.folderNVIDIA()
	}
	got := &NVIDIA{}
	asked := map[string]bool{}
	var questions []nvidia.Question
	ask := func(all []nvidia.Question) {
		for _, q := range all {
			if key := string(q.Certificate.Raw) + string(q.Issuer.Raw); !asked[key] {
				asked[key] = true
				questions = append(questions, q)
			}
		}
	}
	for i, d := range devices {
		needs, err := d.Needs()
		if err != nil {
			return nil, fmt.Errorf("device %d: %w", i, err)
		}
		ask(needs.Questions)
		for _, name := range needs.RIMs {
			if asked[name] {
				continue
			}
			asked[name] = true
			document, rim, err := f.rim(ctx, name)
			if err != nil {
				return nil, err
			}
			got.Names, got.RIMs = append(got.Names, name), append(got.RIMs, document)
			ask(rim.Questions())
		}
	}
	for _, q := range questions {
		answer, err := f.ocsp(ctx, q)
		if err != nil {
			return nil, err
		}
		got.OCSP = append(got.OCSP, answer)
	}
	return got, nil
}

// rimAnswer is what NVIDIA's service says: API of the RIM service, version 1. It may say more.
type rimAnswer struct {
	ID  string `json:"id"`
	RIM []byte `json:"rim"`
}

// rim fetches one document by its name.
func (f *Fetcher) rim(ctx context.Context, name string) (document []byte, rim *nvidia.RIM, err error) {
	_, err = f.get(ctx, f.rimAddress(name), "", func(a answer) (until time.Time, err error) {
		var said rimAnswer
		if err := json.Unmarshal(a.Body, &said); err != nil {
			return until, err
		}
		if said.ID != name {
			return until, fmt.Errorf("the answer is of %.80q", said.ID)
		}
		document = said.RIM
		rim, until, err = nvidia.ProveRIM(document, f.nvidiaRoots().RIM)
		return until, err
	})
	return document, rim, err
}

// ocsp asks NVIDIA's responder about one certificate. Where a certificate itself says that a responder is, is somebody else's word.
func (f *Fetcher) ocsp(ctx context.Context, q nvidia.Question) ([]byte, error) {
	asked, err := f.ocspQuestion(q)
	if err != nil {
		return nil, err
	}
	a, err := f.ask(ctx, asked,
		func(a answer) (time.Time, error) { return q.Prove(a.Body) })
	return a.Body, err
}

func (f *Fetcher) rimAddress(name string) string { return f.Sources.NVIDIARIM + "/v1/rim/" + name }

func (f *Fetcher) ocspQuestion(q nvidia.Question) (question, error) {
	request, err := q.Request()
	return question{address: f.Sources.NVIDIAOCSP, body: request, contentType: "application/ocsp-request"}, err
}

func (f *Fetcher) nvidiaRoots() nvidia.Roots {
	if f.NVIDIARoots.RIM != nil {
		return f.NVIDIARoots
	}
	return nvidia.NVIDIARoots()
}

// folderNVIDIA returns the folder's documents and answers, whoever they are of: which are needed, the verifier finds out. Files of other
// vendors are left out.
func (f *Fetcher) folderNVIDIA() (*NVIDIA, error) {
	files, err := f.files()
	if err != nil {
		return nil, fmt.Errorf("reading folder %s: %w: %w", f.Folder, check.ErrUnavailable, err)
	}
	got := &NVIDIA{}
	for _, file := range files {
		if document, ok := dialect.RIM(file); ok {
			file = document
		}
		if rim, _, err := nvidia.ProveRIM(file, f.nvidiaRoots().RIM); err == nil {
			got.Names, got.RIMs = append(got.Names, rim.String()), append(got.RIMs, file)
		} else if _, err := pki.ParseOCSP(file, maxBodyBytes); err == nil {
			got.OCSP = append(got.OCSP, file)
		}
	}
	if len(got.RIMs) == 0 && len(got.OCSP) == 0 {
		return nil, fmt.Errorf("reading folder %s: %w: %w", f.Folder, check.ErrUnavailable,
			errors.New("no reference values and no answers of responders"))
	}
	return got, nil
}

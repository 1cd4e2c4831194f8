package proof

import (
	"bytes"
	"io"
	"mime/multipart"

	"github.com/go-json-experiment/json"

	"chrysalis/measure/config"
	"chrysalis/runtime/receipt"
)

// answered returns which of a config's models a receipt is of, and reports whether it is one of them. No two have the same root hash.
func answered(r *receipt.Receipt, s config.Service) (config.Served, bool) {
	for _, m := range s.Served() {
		if m.Model.Volume.Root == r.Model {
			return m, true
		}
	}
	return config.Served{}, false
}

// asksFor reports whether a request asks for the model that a receipt is of. Where the guest has one there is no other that could have answered.
func asksFor(request []byte, r *receipt.Receipt, s config.Service) bool {
	if len(s.Models) == 0 {
		return true
	}
	m, ok := answered(r, s)
	name, named := askedModel(request)
	return ok && named && name == m.Model.Name
}

// maxModelName bounds the name that a form has.
const maxModelName = 1024

// askedModel returns the name of the model that a request is for: the member model of its object, or the part model of its form.
func askedModel(request []byte) (name string, ok bool) {
	if bytes.HasPrefix(request, []byte("--")) {
		line, _, _ := bytes.Cut(request, []byte("\r\n"))
		form := multipart.NewReader(bytes.NewReader(request), string(line[2:]))
		for {
			part, err := form.NextRawPart()
			if err != nil {
				return name, ok
			}
			if part.FormName() != "model" {
				continue
			}
			value, err := io.ReadAll(io.LimitReader(part, maxModelName+1))
			if ok || err != nil || len(value) > maxModelName { // a name that is there twice is none
				return "", false
			}
			name, ok = string(value), true
		}
	}
	var object struct {
		Model *string `json:"model"`
	}
	if json.Unmarshal(request, &object) != nil || object.Model == nil {
		return "", false
	}
	return *object.Model, true
}

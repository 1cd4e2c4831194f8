package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"

	"chrysalis/measure/config"
	"chrysalis/measure/engines"
)

// Model is what answers to a name, and within which bounds. Every field must be set.
type Model struct {
	Name         string
	Engine       engines.Dialect // by which it is asked
	Volume       config.Volume   // of the model
	RequestBytes uint32          // largest body
	AnswerTokens uint32          // most tokens of one answer
	// ContextTokens are the most tokens of a prompt and its answer together.
	ContextTokens uint32
	Concurrent    uint32 // requests computed at a time; four times as many may wait
	DialEngine    func(ctx context.Context) (net.Conn, error)
	// AskWipe has another process take over from the one that serves; its channel is closed once that is so. It is not called where the gateway's Wipe has
	// no process end.
	AskWipe func() (done <-chan struct{}, err error)
}

// model is a Model with what its requests wait for: no model's wait for another's.
type model struct {
	Model
	at     uint8   // its place in the config, by which the keeper knows it
	places *places // to compute in
	counts *places // of prompts whose tokens are counted, before they get a place
	turns  *turns
}

func newModel(at int, m Model, wipe config.Wipe, log *slog.Logger) *model {
	n := int(m.Concurrent)
	return &model{Model: m, at: uint8(at), places: newPlaces(n, 4*n), counts: newPlaces(n, 4*n), turns: newTurns(wipe, m.AskWipe, log)}
}

// served are the models, in the config's order.
type served []*model

// named returns the model of a name, or the refusal that says which there are.
func (s served) named(name string) (*model, error) {
	for _, m := range s {
		if m.Name == name {
			return m, nil
		}
	}
	return nil, &refusal{status: http.StatusNotFound, code: "model_not_found", param: "model", message: s.says()}
}

// says tells a client the names.
func (s served) says() string {
	var names []string
	for _, m := range s {
		names = append(names, strconv.Quote(m.Name))
	}
	if len(names) == 1 {
		return "the model here is " + names[0]
	}
	return "the models here are " + strings.Join(names, ", ")
}

// requestBytes is the largest body that any of them takes: which it is for stands in the body.
func (s served) requestBytes() (most int) {
	for _, m := range s {
		most = max(most, int(m.RequestBytes))
	}
	return most
}

// paths are those of the API at which the model answers, as far as its engine's dialect says: embeddings are the model's own.
func (m *model) paths() (paths []string) {
	for path, d := range dialects {
		if m.serves(d) == nil && d.engine != engineEmbeddings {
			paths = append(paths, path)
		}
	}
	return paths
}

// serves refuses what the model's engine has no means for.
func (m *model) serves(d *dialect) error {
	switch e := &m.Engine; {
	case d.engine == engineSpeech && e.Speech == "":
		return errNoSpeech
	case d.engine != engineSpeech && e.Stream == "":
		return errNoText
	}
	return nil
}

// takes refuses a body that is larger than the model's limit.
func (m *model) takes(body []byte) error {
	if len(body) > int(m.RequestBytes) {
		return tooLarge(int64(len(body)), int(m.RequestBytes))
	}
	return nil
}

func tooLarge(got int64, most int) *refusal {
	return &refusal{status: http.StatusRequestEntityTooLarge, code: "too_large", message: fmt.Sprintf("body has %d bytes, want at most %d", got, most)}
}

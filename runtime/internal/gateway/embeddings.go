package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// maxInputs bounds how many texts one request may bring.
const maxInputs = 256

// embeddingsFields are those of /v1/embeddings, for an engine that makes them.
var embeddingsFields = []field{
	{"model", taken, text(256), "the model's name, as /v1/models tells it"},
	{"input", taken, either(text(maxTextBytes), listed(maxInputs, text(maxTextBytes))), "a text, or 1 to 256 of them"},
	{"encoding_format", taken, oneOf("float", "base64"), `"float" or "base64"`},
	{"stream", taken, isFalse, "false: embeddings come in one piece"},
	{"dimensions", refused, nil, "the model has its own"},
	{"user", ignored, nil, ""},
}

// buildEmbeddings is /v1/embeddings.
func buildEmbeddings(p *parsing, r *request) error {
	input := p.of("input")
	b := append(r.ask, `{"input":[`...)
	add := func(v jsontext.Value) {
		r.inputs++
		if !isText(v) {
			r.inputs = -maxInputs
		}
		b = append(comma(b), v...)
	}
	if input.Kind() == '[' {
		array(input, add)
	} else {
		add(input)
	}
	if r.inputs <= 0 {
		return refuse("input", "the input is missing or empty, want a text, or 1 to %d of them", maxInputs)
	}
	format := p.of("encoding_format")
	if format == nil {
		format = jsontext.Value(`"float"`)
	}
	r.ask = append(appendMember(append(b, ']'), "encoding_format", format), '}')
	return nil
}

// maxEmbeddingBytes bounds what is read of the engine for one text.
const maxEmbeddingBytes = 256 << 10

// errEmbeddings says that the engine's answer is none for what it was asked.
var errEmbeddings = errors.New("reading the engine's embeddings: they are none for these inputs")

// embed reads the engine's embeddings, and counts. What is kept of them is their JSON, a line each, which the receipt is over.
func (a *answering) embed(upstream io.Reader, inputs int) error {
	a.record.Outcome = receipt.Cut
	b, err := readWhole(upstream, (inputs+1)*maxEmbeddingBytes)
	defer clear(b[:cap(b)])
	if err != nil {
		return err
	}
	var document struct {
		Data  jsontext.Value `json:"data"`
		Usage struct {
			Prompt uint32 `json:"prompt_tokens"`
		} `json:"usage"`
	}
	if json.Unmarshal(b, &document) != nil {
		return errEmbeddings
	}
	defer clear(document.Data)
	n, ok := 0, true
	array(document.Data, func(v jsontext.Value) {
		vector := at(v, "embedding")
		ok = ok && string(at(v, "index")) == fmt.Sprint(n) && (vector.Kind() == '[' || isText(vector)) && !bytes.ContainsRune(vector, '\n')
		n++
		if ok {
			a.said.content = append(append(room(a.said.content, len(vector)+1), vector...), '\n')
		}
	})
	if !ok || n != inputs {
		return errEmbeddings
	}
	a.response.Content(a.said.content)
	a.record.Usage, a.record.Outcome = receipt.Usage{Prompt: document.Usage.Prompt}, receipt.Complete
	return nil
}

// readWhole reads all there is, of at most so many bytes. It grows by hand: what append leaves behind would not be wiped.
func readWhole(r io.Reader, most int) (b []byte, err error) {
	for len(b) <= most {
		b = room(b, 4096)
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, fmt.Errorf("reading the engine's answer: %w", err)
		}
	}
	return b, fmt.Errorf("reading the engine's answer: it has more than %d bytes", most)
}

// embeddingsAnswer writes embeddings. There is no stream of them.
type embeddingsAnswer struct{ chatAnswer }

func newEmbeddingsAnswer(id string, _ time.Time, model string, _ *said) answerWriter {
	return &embeddingsAnswer{chatAnswer{names: quote([]byte(`"id":"`+id+`","model":`), model)}}
}

func (j *embeddingsAnswer) whole(s *said, u receipt.Usage, p receipt.Proof) []byte {
	b := append(make([]byte, 0, eventHead+len(s.content)+64*maxInputs), `{"object":"list","data":[`...)
	n := 0
	for line := range bytes.Lines(s.content) {
		b = fmt.Appendf(comma(b), `{"object":"embedding","index":%d,"embedding":`, n)
		b = append(append(b, bytes.TrimSuffix(line, []byte("\n"))...), '}')
		n++
	}
	b = append(append(b, "],"...), j.names...)
	b = fmt.Appendf(b, `,"usage":{"prompt_tokens":%d,"total_tokens":%d}`, u.Prompt, u.Total())
	return append(appendProof(b, p), "}\n"...)
}

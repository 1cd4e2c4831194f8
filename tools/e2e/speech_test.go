package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chrysalis/measure/engines"
	"chrysalis/tools/internal/guest"
)

// TestSpeech boots a guest whose engine hears: whisper.cpp's server over a model that tells a low tone from a high one. A client sends it sounds through
// `chrysalis proxy`, as any program of OpenAI's SDK would, and what comes back is proven and charged.
func TestSpeech(t *testing.T) {
	needsGuests(t)
	dir := t.TempDir()
	spec := demoSpec(t)
	spec.Shape.MemoryMiB = 1024
	spec.Engine, spec.Model = filepath.Join(built, "speech/engine.img"), filepath.Join(dir, "model.img")
	if _, err := os.Stat(spec.Engine); err != nil {
		t.Fatalf("%v (make beside packs it)", err)
	}
	weights := filepath.Join(dir, "tones.bin")
	if err := os.WriteFile(weights, hearingModel(t), 0o644); err != nil {
		t.Fatal(err)
	}
	chrysalis(t, 0, "volume", "pack", "model", weights, "-o", spec.Model)
	service := &spec.Config.Service
	var err error
	if service.Engine.Volume, err = guest.VolumeRef(spec.Engine); err != nil {
		t.Fatal(err)
	}
	if service.Model.Volume, err = guest.VolumeRef(spec.Model); err != nil {
		t.Fatal(err)
	}
	service.Model.Name = "tones"
	service.Engine.Dialect = "whisper-server"
	service.Engine.Argv = []string{"/usr/bin/whisper-server", "-m", engines.Model + "/tones.bin", "--host", "127.0.0.1", "--port", "8080", "-nlp", "-ng", "-nf", "-t", "1", "-ac", "128"}
	service.Engine.MemoryBytes = 512 << 20 // most of it buffers that it never uses, which its C library writes through before it hands them out
	service.Limits.RequestBytes = 1 << 20
	g := newGuest(t)
	start(t, g, spec)
	c := newClient(t, g, spec)
	c.t.Run("heard", func(t *testing.T) { c.throughSpeech(t) })
}

// throughSpeech asks what is said in two sounds, and for a text, which the guest has no means for.
func (c client) throughSpeech(t *testing.T) {
	receipts := filepath.Join(t.TempDir(), "receipts")
	proxy := exec.CommandContext(t.Context(), filepath.Join(built, "bin/chrysalis"), c.remote("proxy", "--listen", "127.0.0.1:0", "--receipts", receipts)...)
	proxy.Stderr = os.Stderr
	out, err := proxy.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	defer proxy.Wait()
	defer proxy.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	base, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("chrysalis proxy said %q (%v)", line, err)
	}
	for _, tt := range []struct {
		hz     float64
		format string
		want   string
	}{{440, "json", "low"}, {2500, "verbose_json", "high"}} {
		var body bytes.Buffer
		form := multipart.NewWriter(&body)
		file, err := form.CreateFormFile("file", "voice.wav")
		if err != nil {
			t.Fatal(err)
		}
		file.Write(tone(tt.hz))
		form.WriteField("model", "tones")
		form.WriteField("response_format", tt.format)
		form.Close()
		response, err := http.Post(base+"/audio/transcriptions", form.FormDataContentType(), &body)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		var heard struct {
			Text     string
			Duration float64
			Segments []struct{ Text string }
			Usage    struct {
				Type   string
				Input  int `json:"input_tokens"`
				Output int `json:"output_tokens"`
			}
			Chrysalis struct{ Receipt, Charge []byte }
		}
		if err != nil || response.StatusCode != 200 || json.Unmarshal(text, &heard) != nil || heard.Text != tt.want || heard.Usage.Type != "tokens" || heard.Usage.Input != 50 ||
			heard.Usage.Output != 1 || len(heard.Chrysalis.Charge) == 0 || tt.format == "verbose_json" && (heard.Duration != 1 || len(heard.Segments) != 1) {
			t.Errorf("%.0f Hz: got %d %s (%v), want %q heard, in 50 tokens", tt.hz, response.StatusCode, text, err, tt.want)
		}
		t.Logf("%.0f Hz: %s", tt.hz, text)
	}
	response, err := http.Post(base+"/chat/completions", "application/json", strings.NewReader(`{"model":"tones","messages":[{"role":"user","content":"x"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if response.StatusCode != 404 || !strings.Contains(string(text), "no_text") {
		t.Errorf("a chat: got %d %s, want that there is no text", response.StatusCode, text)
	}
	chrysalis(t, 0, append([]string{"receipt", "verify", receipts, "--policy", c.policy}, c.trust()...)...)
}

// hearingModel is a model for whisper.cpp that was not trained but written: it tells a low tone from a high one. It has whisper's parts, each as small as it
// may be: two bands of frequencies, an encoder that passes on in which of them a frame sounds, a decoder that attends to all frames alike and says " low" or
// " high" for their mean, and then its end. The format is that of whisper.cpp's models/convert-pt-to-ggml.py; names of tensors are those of OpenAI's model.
func hearingModel(t testing.TB) []byte {
	const (
		state, heads, layers  = 16, 1, 1
		bands, bins           = 2, 201 // of 40 Hz
		vocabulary            = 51864  // of a model for English alone
		audioFrames, textRoom = 1500, 64
		endOfText             = 50256
		low, high, blank      = 0, 1, 2
	)
	var b bytes.Buffer
	write := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	write([]int32{0x67676d6c, vocabulary, audioFrames, state, heads, layers, textRoom, state, heads, layers, bands, 0})
	filters := make([]float32, bands*bins)
	for bin := range bins {
		switch hz := bin * 40; {
		case hz >= 200 && hz <= 1000:
			filters[bin] = 1
		case hz >= 1600 && hz <= 4000:
			filters[bins+bin] = 1
		}
	}
	write([]int32{bands, bins})
	write(filters)
	words := []string{low: " low", high: " high", blank: " "}
	write(int32(len(words)))
	for _, w := range words {
		write(int32(len(w)))
		b.WriteString(w)
	}
	// tensor writes one whose dimensions are given as ggml has them, the innermost first. set fills it.
	tensor := func(name string, set func(w []float32), dimensions ...int32) {
		n := int32(1)
		for _, d := range dimensions {
			n *= d
		}
		w := make([]float32, n)
		if set != nil {
			set(w)
		}
		write([]int32{int32(len(dimensions)), int32(len(name)), 0})
		write(dimensions)
		b.WriteString(name)
		write(w)
	}
	all := func(v float32) func([]float32) {
		return func(w []float32) {
			for i := range w {
				w[i] = v
			}
		}
	}
	at := func(values map[int]float32) func([]float32) {
		return func(w []float32) {
			for i, v := range values {
				w[i] = v
			}
		}
	}
	norm := func(name string) {
		tensor(name+".weight", all(1), state)
		tensor(name+".bias", nil, state)
	}
	linear := func(name string, set func([]float32), in, out int32, bias bool) {
		tensor(name+".weight", set, in, out)
		if bias {
			tensor(name+".bias", nil, out)
		}
	}
	attention := func(name string, value, out func([]float32)) {
		norm(name + "_ln")
		linear(name+".query", nil, state, state, true) // asks for nothing: every frame counts alike
		linear(name+".key", nil, state, state, false)
		linear(name+".value", value, state, state, true)
		linear(name+".out", out, state, state, true)
	}
	perceptron := func(name string) {
		norm(name + ".mlp_ln")
		linear(name+".mlp.0", nil, state, 4*state, true)
		linear(name+".mlp.2", nil, 4*state, state, true)
	}
	// A kernel has three frames; its middle one passes a band on. The bias keeps values where GELU leaves them nearly as they are.
	tensor("encoder.conv1.weight", at(map[int]float32{1: 1, 3*bands + 3 + 1: 1}), 3, bands, state)
	tensor("encoder.conv1.bias", at(map[int]float32{0: 1, 1: 1}), 1, state)
	tensor("encoder.conv2.weight", at(map[int]float32{1: 1, 3*state + 3 + 1: 1}), 3, state, state)
	tensor("encoder.conv2.bias", nil, 1, state)
	tensor("encoder.positional_embedding", nil, state, audioFrames)
	attention("encoder.blocks.0.attn", nil, nil)
	perceptron("encoder.blocks.0")
	norm("encoder.ln_post")

	tensor("decoder.positional_embedding", func(w []float32) {
		for p := 1; p < textRoom; p++ {
			w[p*state+1] = 300 // after the first word comes the end
		}
	}, state, textRoom)
	tensor("decoder.token_embedding.weight", at(map[int]float32{low * state: 4, low*state + 1: 1, high * state: -4, high*state + 1: 1, endOfText*state + 1: 20}), state, vocabulary)
	attention("decoder.blocks.0.attn", nil, nil)
	attention("decoder.blocks.0.cross_attn", at(map[int]float32{0: 1, 1: -1}), at(map[int]float32{0: 10}))
	perceptron("decoder.blocks.0")
	norm("decoder.ln")
	return b.Bytes()
}

// tone is a second of sound as a WAV: 16 kHz, one channel, 16 bits.
func tone(hz float64) []byte {
	const rate = 16000
	samples := make([]int16, rate)
	for i := range samples {
		samples[i] = int16(12000 * math.Sin(2*math.Pi*hz*float64(i)/rate))
	}
	var b bytes.Buffer
	b.WriteString("RIFF")
	binary.Write(&b, binary.LittleEndian, uint32(36+2*len(samples)))
	b.WriteString("WAVEfmt ")
	binary.Write(&b, binary.LittleEndian, struct {
		Size           uint32
		Format, Number uint16
		Rate, Bytes    uint32
		Block, Bits    uint16
	}{16, 1, 1, rate, 2 * rate, 2, 16})
	b.WriteString("data")
	binary.Write(&b, binary.LittleEndian, uint32(2*len(samples)))
	binary.Write(&b, binary.LittleEndian, samples)
	return b.Bytes()
}

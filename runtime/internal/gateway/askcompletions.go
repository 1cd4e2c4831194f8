package gateway

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// completionsFields are those of /v1/completions, OpenAI's older form: the engine goes on with a text, and no template is around it.
var completionsFields = slices.Concat([]field{
	{"model", taken, text(256), "the model's name, as /v1/models tells it"},
	{"prompt", taken, either(text(maxTextBytes), listed(1, text(maxTextBytes))), "a text, or a list of one"},
	{"max_tokens", taken, whole(1, 1<<32-1), "a whole number from 1, cut to the measured limit, which it is where there is none"},
	{"stream", taken, boolean, "true or false: an answer in events"},
	{"stream_options", taken, streamOptions, "with stream alone; include_usage, include_obfuscation: the last event carries usage in any case"},
	{"n", taken, whole(1, 1), "1: one answer a request"},
	{"best_of", taken, whole(1, 1), "1: one answer a request"},
	{"echo", taken, isFalse, "false: the client has the prompt"},
}, sampling, []field{
	{"logprobs", refused, nil, "use /v1/chat/completions"},
	{"suffix", refused, nil, "this model goes on from the end of a text alone"},
}, engineOwn, []field{
	{"user", ignored, nil, ""},
})

// buildCompletions is /v1/completions.
func buildCompletions(p *parsing, r *request) error {
	if p.of("stream_options") != nil && !r.stream {
		return refuse("stream_options", "stream_options is given without stream")
	}
	prompt := p.of("prompt")
	if prompt.Kind() == '[' {
		var only jsontext.Value
		array(prompt, func(v jsontext.Value) { only = v })
		prompt = only
	}
	if !isText(prompt) {
		return refuse("prompt", "the prompt is missing or empty, want a text, or a list of one")
	}
	b := appendMember(append(r.ask, '{'), "prompt", prompt)
	r.ask = p.settings(b, p.of("max_tokens"))
	return nil
}

package gateway

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"chrysalis/runtime/receipt"
)

// responsesAnswer writes an answer as the Responses API has it: items, each opened, filled and closed.
type responsesAnswer struct {
	events
	id    string // of the response without its beginning, which its items have too
	head  []byte // members that every response object begins with
	said  *said
	n     int // the events' sequence number
	items []responseItem
}

// responseItem is an item of the output.
type responseItem struct {
	kind       string // reasoning, message, function_call
	call       int    // which call
	start, end int    // of its text in what was said
}

// itemIDs are what the ids of items begin with.
var itemIDs = map[string]string{"reasoning": "rs", "message": "msg", "function_call": "fc"}

// goesOn reports whether a piece says nothing but more of an item.
func (it responseItem) goesOn(p piece) bool {
	for _, c := range p.calls {
		if it.kind != "function_call" || it.call != int(c.Index) {
			return false
		}
	}
	return (!isText(p.thought) || it.kind == "reasoning") && (!isText(p.text) || it.kind == "message")
}

func newResponsesAnswer(id string, began time.Time, model string, said *said) answerWriter {
	_, name, _ := strings.Cut(id, "_")
	head := `"id":"` + id + `","object":"response","created_at":` + strconv.FormatInt(began.Unix(), 10) + `,"model":`
	return &responsesAnswer{id: name, head: quote([]byte(head), model), said: said}
}

// begin begins an event.
func (j *responsesAnswer) begin(b []byte, kind string) []byte {
	b = strconv.AppendInt(append(typed(b, kind), `,"sequence_number":`...), int64(j.n), 10)
	j.n++
	return b
}

// started is the first two events.
func (j *responsesAnswer) started(b []byte) []byte {
	if j.n > 0 {
		return b
	}
	for _, kind := range []string{"response.created", "response.in_progress"} {
		b = append(append(j.begin(b, kind), `,"response":{`...), j.head...)
		b = append(b, `,"status":"in_progress","output":[]}}`+"\n\n"...)
	}
	return b
}

// ofText begins an event of the item that is filled, up to a member with some of its text.
func (j *responsesAnswer) ofText(b []byte, kind, name string) []byte {
	i := len(j.items) - 1
	b = j.itemID(append(j.begin(b, kind), `,"item_id":`...), i)
	b = fmt.Appendf(b, `,"output_index":%d`, i)
	switch j.items[i].kind {
	case "reasoning":
		b = append(b, `,"content_index":0`...)
	case "message":
		if b = append(b, `,"content_index":0`...); name == "delta" || name == "text" {
			b = append(b, `,"logprobs":[]`...)
		}
	}
	return append(append(append(b, `,"`...), name...), `":`...)
}

// ofItem adds an event with the item that is filled.
func (j *responsesAnswer) ofItem(b []byte, kind string, whole bool) []byte {
	i := len(j.items) - 1
	b = fmt.Appendf(j.begin(b, kind), `,"output_index":%d,"item":`, i)
	return append(j.item(b, i, whole), "}\n\n"...)
}

func (j *responsesAnswer) itemID(b []byte, i int) []byte {
	return fmt.Appendf(b, `"%s_%s_%d"`, itemIDs[j.items[i].kind], j.id, i)
}

// text returns what an item says: nothing yet, where it is opened.
func (j *responsesAnswer) text(i int, whole bool) []byte {
	switch it := j.items[i]; {
	case !whole:
		return nil
	case it.kind == "reasoning":
		return j.said.thoughts[it.start:it.end]
	case it.kind == "message":
		return j.said.content[it.start:it.end]
	default:
		return j.said.calls[it.call].arguments
	}
}

// item appends an item as an object: as it is opened, or whole.
func (j *responsesAnswer) item(b []byte, i int, whole bool) []byte {
	it, status := j.items[i], "in_progress"
	if whole {
		status = "completed"
	}
	b = j.itemID(append(append(append(b, `{"type":"`...), it.kind...), `","id":`...), i)
	b = append(append(append(b, `,"status":"`...), status...), '"')
	switch it.kind {
	case "reasoning":
		b = append(b, `,"summary":[],"content":[`...)
		if whole {
			b = append(quote(append(b, `{"type":"reasoning_text","text":`...), j.text(i, true)), '}')
		}
		b = append(b, ']')
	case "message":
		b = append(b, `,"role":"assistant","content":[`...)
		if whole {
			b = j.part(b, i, true)
		}
		b = append(b, ']')
	case "function_call":
		call := j.said.calls[it.call]
		b = appendMember(appendMember(b, "call_id", call.id), "name", call.name)
		b = quote(append(b, `,"arguments":`...), j.text(i, whole))
	}
	return append(b, '}')
}

func (j *responsesAnswer) part(b []byte, i int, whole bool) []byte {
	return append(quote(append(b, `{"type":"output_text","annotations":[],"logprobs":[],"text":`...), j.text(i, whole)), '}')
}

// enter makes an item the one that is filled. What was said holds the piece that comes already: an item ends where the next of its kind
// would begin.
func (j *responsesAnswer) enter(b []byte, kind string, call int, said []byte) []byte {
	if last := len(j.items) - 1; last < 0 || j.items[last].kind != kind || j.items[last].call != call {
		b = j.leave(b)
		start := 0
		for _, it := range j.items {
			if it.kind == kind {
				start = it.end
			}
		}
		j.items = append(j.items, responseItem{kind: kind, call: call, start: start})
		b = j.ofItem(b, "response.output_item.added", false)
		if kind == "message" {
			b = append(j.part(j.ofText(b, "response.content_part.added", "part"), len(j.items)-1, false), "}\n\n"...)
		}
	}
	j.items[len(j.items)-1].end = len(said)
	return b
}

// leave closes the item that is filled.
func (j *responsesAnswer) leave(b []byte) []byte {
	i := len(j.items) - 1
	if i < 0 {
		return b
	}
	done := func(kind, name string) { b = append(quote(j.ofText(b, kind, name), j.text(i, true)), "}\n\n"...) }
	switch j.items[i].kind {
	case "reasoning":
		done("response.reasoning_text.done", "text")
	case "message":
		done("response.output_text.done", "text")
		b = append(j.part(j.ofText(b, "response.content_part.done", "part"), i, true), "}\n\n"...)
	case "function_call":
		done("response.function_call_arguments.done", "arguments")
	}
	return j.ofItem(b, "response.output_item.done", true)
}

func (j *responsesAnswer) chunk(p piece) []byte {
	size := 2*p.size + 4096*len(p.calls)
	if last := len(j.items) - 1; last >= 0 && !j.items[last].goesOn(p) {
		size += 3 * 6 * len(j.text(last, true)) // an item that ends is written three times
	}
	b := j.started(j.room(size))
	delta := func(kind string, v jsontext.Value) {
		if isText(v) {
			b = append(append(j.ofText(b, kind, "delta"), v...), "}\n\n"...)
		}
	}
	if isText(p.thought) {
		b = j.enter(b, "reasoning", 0, j.said.thoughts)
		delta("response.reasoning_text.delta", p.thought)
	}
	if isText(p.text) {
		b = j.enter(b, "message", 0, j.said.content)
		delta("response.output_text.delta", p.text)
	}
	for _, c := range p.calls {
		b = j.enter(b, "function_call", int(c.Index), nil)
		delta("response.function_call_arguments.delta", c.Function.Arguments)
	}
	return j.built(b)
}

func (j *responsesAnswer) end(u receipt.Usage, p receipt.Proof) []byte {
	b := j.leave(j.started(j.room(4*j.said.size() + 512*len(j.items))))
	kind := "response.completed"
	if j.said.finish == "length" {
		kind = "response.incomplete"
	}
	b = j.response(append(j.begin(b, kind), `,"response":{`...), u)
	return j.built(append(appendProof(append(b, '}'), p), "}\n\n"...))
}

// response appends the members of the response object, whole.
func (j *responsesAnswer) response(b []byte, u receipt.Usage) []byte {
	b = append(b, j.head...)
	if j.said.finish == "length" {
		b = append(b, `,"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}`...)
	} else {
		b = append(b, `,"status":"completed","incomplete_details":null`...)
	}
	b = append(b, `,"error":null,"output":[`...)
	for i := range j.items {
		b = j.item(comma(b), i, true)
	}
	return appendResponsesUsage(append(b, ']'), u)
}

func appendResponsesUsage(b []byte, u receipt.Usage) []byte {
	return fmt.Appendf(b, `,"usage":{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d},`+
		`"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":%d},"total_tokens":%d}`,
		u.Prompt, u.Cached, u.Completion, u.Reasoning, u.Total())
}

func (j *responsesAnswer) failure(why *refusal, id string, u receipt.Usage, p *receipt.Proof) []byte {
	b := j.begin(j.room(0), "error")
	b = quote(append(b, `,"code":`...), why.code)
	b = quote(append(b, `,"message":`...), why.message)
	b = quote(append(b, `,"param":null,"request_id":`...), id)
	if p != nil {
		b = appendProof(appendResponsesUsage(b, u), *p)
	}
	return j.built(append(b, "}\n\n"...))
}

func (j *responsesAnswer) whole(s *said, u receipt.Usage, p receipt.Proof) []byte {
	if len(s.thoughts) > 0 {
		j.items = append(j.items, responseItem{kind: "reasoning", end: len(s.thoughts)})
	}
	if len(s.content) > 0 || len(s.calls) == 0 {
		j.items = append(j.items, responseItem{kind: "message", end: len(s.content)})
	}
	for i := range s.calls {
		j.items = append(j.items, responseItem{kind: "function_call", call: i})
	}
	b := j.response(append(make([]byte, 0, eventHead+s.size()+512*len(j.items)), '{'), u)
	return append(appendProof(b, p), "}\n"...)
}

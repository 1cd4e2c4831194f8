// The official OpenAI SDK, with its own default bodies.
import OpenAI from "openai";
import assert from "node:assert/strict";

const client = new OpenAI({ apiKey: "anything", maxRetries: 0 }); // OPENAI_BASE_URL says where
const messages = [{ role: "user", content: "What is the capital of Norway?" }];
const tools = [{ type: "function", function: { name: "look", description: "look it up", parameters: { type: "object", properties: { a: { type: "integer" } } } } }];

const models = await client.models.list();
assert.equal(models.data[0].id, "tiny");

const whole = await client.chat.completions.create({ model: "tiny", messages });
assert.equal(whole.choices[0].message.content, "Oslo it is");
assert.equal(whole.usage.total_tokens, 18);
assert.ok(whole.chrysalis.receipt);

let text = "";
for await (const chunk of await client.chat.completions.create({ model: "tiny", messages, stream: true })) text += chunk.choices[0]?.delta?.content ?? "";
assert.equal(text, "Oslo it is");

// The helper sends back what it got, refusal: null included.
const helper = client.chat.completions.stream({ model: "tiny", messages });
const first = await helper.finalChatCompletion();
const second = await client.chat.completions.create({ model: "tiny", messages: [...messages, first.choices[0].message, { role: "user", content: "Sure?" }] });
assert.equal(second.choices[0].message.content, "Oslo it is");

const called = await client.chat.completions.create({ model: "tiny", messages, tools });
assert.equal(called.choices[0].finish_reason, "tool_calls");
assert.deepEqual(called.choices[0].message.tool_calls[0].function, { name: "look", arguments: '{"a":1}' });
let pieces = "";
for await (const chunk of await client.chat.completions.create({ model: "tiny", messages, tools, stream: true }))
  for (const c of chunk.choices[0]?.delta?.tool_calls ?? []) pieces += c.function.arguments ?? "";
assert.equal(pieces, '{"a":1}');

// The newer form, streamed and whole, with a call and its answer.
const response = await client.responses.create({ model: "tiny", input: "What is the capital of Norway?", instructions: "Be short." });
assert.equal(response.output_text, "Oslo it is");
assert.equal(response.usage.total_tokens, 18);
assert.ok(response.chrysalis.receipt);
const kinds = [];
const spoken = client.responses.stream({ model: "tiny", input: "What is the capital of Norway?" }).on("event", (e) => kinds.push(e.type));
assert.equal((await spoken.finalResponse()).output_text, "Oslo it is");
assert.equal(kinds[0], "response.created");
assert.equal(kinds.at(-1), "response.completed");
const flat = [{ type: "function", name: "look", parameters: tools[0].function.parameters, strict: false }];
const asked = await client.responses.create({ model: "tiny", input: "Look.", tools: flat });
const call = asked.output.find((item) => item.type === "function_call");
assert.equal(call.arguments, '{"a":1}');
const input = [{ role: "user", content: "Look." }, ...asked.output, { type: "function_call_output", call_id: call.call_id, output: "Oslo" }];
assert.equal((await client.responses.create({ model: "tiny", input })).output_text, "Oslo it is");
const kept = await client.responses.create({ model: "tiny", input: "x", previous_response_id: response.id }).catch((e) => e);
assert.equal(kept.status, 400);
assert.equal(kept.param, "previous_response_id");

// The older forms.
const rest = await client.completions.create({ model: "tiny", prompt: "The capital of Norway is" });
assert.equal(rest.choices[0].text, "Oslo it is");
let goesOn = "";
for await (const chunk of await client.completions.create({ model: "tiny", prompt: "The capital of Norway is", stream: true })) goesOn += chunk.choices[0]?.text ?? "";
assert.equal(goesOn, "Oslo it is");
const embedded = await client.embeddings.create({ model: "tiny", input: "Oslo" });
assert.deepEqual(Array.from(embedded.data[0].embedding), [0.25, -1]);

const refused = await client.chat.completions.create({ model: "another", messages }).catch((e) => e);
assert.equal(refused.status, 404);
assert.equal(refused.code, "model_not_found");

const abort = new AbortController();
const endless = await client.chat.completions.create({ model: "tiny", messages: [{ role: "user", content: "endless" }], stream: true }, { signal: abort.signal });
let seen = 0;
for await (const _ of endless) if (++seen === 3) { abort.abort(); break; }
assert.equal(seen, 3);
console.log("passed");

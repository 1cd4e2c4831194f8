// Anthropic's official SDK, with its own default bodies.
import Anthropic from "@anthropic-ai/sdk";
import assert from "node:assert/strict";

const baseURL = process.env.OPENAI_BASE_URL.replace(/\/v1$/, "");
const client = new Anthropic({ apiKey: "anything", baseURL, maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of Norway?" }];
const tools = [{ name: "look", description: "look it up", input_schema: { type: "object", properties: { a: { type: "integer" } } } }];

const whole = await client.messages.create({ model: "tiny", max_tokens: 50, messages });
assert.deepEqual(whole.content, [{ type: "text", text: "Oslo it is" }]);
assert.equal(whole.stop_reason, "end_turn");
assert.equal(whole.usage.input_tokens + whole.usage.output_tokens, 18);
assert.ok(whole.chrysalis.receipt);

let text = "";
const stream = client.messages.stream({ model: "tiny", max_tokens: 50, messages, system: "Be short." }).on("text", (piece) => (text += piece));
const first = await stream.finalMessage();
assert.equal(text, "Oslo it is");
assert.deepEqual(first.content, whole.content);

// What came is sent back as it came.
const second = await client.messages.create({ model: "tiny", max_tokens: 50, messages: [...messages, { role: first.role, content: first.content }, { role: "user", content: "Sure?" }] });
assert.equal(second.content[0].text, "Oslo it is");

for (const called of [
  await client.messages.create({ model: "tiny", max_tokens: 50, messages, tools }),
  await client.messages.stream({ model: "tiny", max_tokens: 50, messages, tools }).finalMessage(),
]) {
  assert.equal(called.stop_reason, "tool_use");
  const use = called.content.find((block) => block.type === "tool_use");
  assert.equal(use.name, "look");
  assert.deepEqual(use.input, { a: 1 });
  const answered = await client.messages.create({ model: "tiny", max_tokens: 50, messages: [...messages, { role: "assistant", content: called.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "Oslo" }] }] });
  assert.equal(answered.content[0].text, "Oslo it is");
}

const refused = await client.messages.create({ model: "another", max_tokens: 50, messages }).catch((e) => e);
assert.equal(refused.status, 404);

const abort = new AbortController();
let seen = 0;
for await (const event of await client.messages.create({ model: "tiny", max_tokens: 50, messages: [{ role: "user", content: "endless" }], stream: true }, { signal: abort.signal }))
  if (event.type === "content_block_delta" && ++seen === 3) { abort.abort(); break; }
assert.equal(seen, 3);
console.log("passed");

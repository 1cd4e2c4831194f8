// Vercel's SDK.
import { generateText, streamText, tool, jsonSchema } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import assert from "node:assert/strict";

const provider = createOpenAICompatible({ name: "chrysalis", baseURL: process.env.OPENAI_BASE_URL, apiKey: "anything", includeUsage: true });
const model = provider("tiny");
assert.equal((await generateText({ model, prompt: "What is the capital of Norway?", maxRetries: 0 })).text, "Oslo it is");
let text = "";
for await (const part of streamText({ model, prompt: "What is the capital of Norway?", maxRetries: 0 }).textStream) text += part;
assert.equal(text, "Oslo it is");
const called = await generateText({ model, prompt: "look", maxRetries: 0,
  tools: { look: tool({ description: "look it up", inputSchema: jsonSchema({ type: "object", properties: { a: { type: "integer" } } }) }) } });
assert.deepEqual(called.toolCalls[0].input, { a: 1 });
console.log("passed");

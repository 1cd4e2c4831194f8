import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";
import assert from "node:assert/strict";

const model = new ChatOpenAI({ model: "tiny", apiKey: "anything", maxRetries: 0, configuration: { baseURL: process.env.OPENAI_BASE_URL } });
assert.equal((await model.invoke("What is the capital of Norway?")).content, "Oslo it is");
let text = "";
for await (const chunk of await model.stream("What is the capital of Norway?")) text += chunk.content;
assert.equal(text, "Oslo it is");
const bound = model.bindTools([{ type: "function", function: { name: "look", description: "look it up", parameters: { type: "object", properties: { a: { type: "integer" } } } } }]);
assert.deepEqual((await bound.invoke("look")).tool_calls[0].args, { a: 1 });
const structured = model.withStructuredOutput(z.object({ city: z.string() }), { method: "jsonSchema", name: "answer" });
assert.deepEqual(await structured.invoke("structured"), { city: "Oslo" });
console.log("passed");

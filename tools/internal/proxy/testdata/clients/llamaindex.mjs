import { OpenAI } from "@llamaindex/openai";
import assert from "node:assert/strict";

const llm = new OpenAI({ model: "tiny", apiKey: "anything", baseURL: process.env.OPENAI_BASE_URL, maxRetries: 0 });
const messages = [{ role: "user", content: "What is the capital of Norway?" }];
assert.equal((await llm.chat({ messages })).message.content, "Oslo it is");
let text = "";
for await (const chunk of await llm.chat({ messages, stream: true })) text += chunk.delta;
assert.equal(text, "Oslo it is");
console.log("passed");

// The official OpenAI SDK, asking what is said in audio.
import OpenAI, { toFile } from "openai";
import assert from "node:assert/strict";

const client = new OpenAI({ apiKey: "anything", maxRetries: 0 }); // OPENAI_BASE_URL says where
const voice = () => toFile(Buffer.from("OggS and what follows"), "voice.ogg", { type: "audio/ogg" });

const plain = await client.audio.transcriptions.create({ model: "tiny", file: await voice() });
assert.equal(plain.text, "Oslo it is");
assert.equal(plain.usage.input_tokens, 125);
assert.ok(plain.chrysalis.receipt);

const whole = await client.audio.transcriptions.create({
	model: "tiny", file: await voice(), response_format: "verbose_json", language: "no", prompt: "Norway", temperature: 0, timestamp_granularities: ["word", "segment"],
});
assert.equal(whole.language, "norwegian");
assert.equal(whole.duration, 2.5);
assert.deepEqual(whole.words[0], { word: " Oslo", start: 0, end: 1 });
assert.equal(whole.segments[0].text, " Oslo it is");

for (const [given, status, says] of [[{ response_format: "srt" }, 400, "no place for"], [{ stream: true }, 400, "one piece"], [{ model: "another" }, 404, "model"]]) {
	const refused = await client.audio.transcriptions.create({ model: "tiny", file: await voice(), ...given }).catch((e) => e);
	assert.equal(refused.status, status);
	assert.ok(refused.message.includes(says), refused.message);
}
const text = await client.chat.completions.create({ model: "tiny", messages: [{ role: "user", content: "x" }] }).catch((e) => e);
assert.equal(text.code, "no_text");
console.log("passed");

// The SDK against guests that are good, and against networks that are not.
import { connect, GuestError } from "chrysalis-sdk";
import OpenAI from "openai";
import { generateText, streamText } from "ai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const { Good, Bad, Payer } = JSON.parse(readFileSync(0, "utf8"));
const body = JSON.stringify({ model: "tiny", messages: [{ role: "user", content: "What is the capital of Norway?" }], stream: true });
const whole = JSON.stringify({ model: "tiny", messages: [{ role: "user", content: "What is the capital of Norway?" }] });
const headers = { "content-type": "application/json", cookie: "a=b", "x-stainless-lang": "js" };
const listOf = (g) => g.List ? { releaseList: g.List, listAfter: g.ListAfter || undefined } : {};
const said = "The capital is \u001b[1mOslo.";

for (const g of Good) {
  const proofs = [];
  const guest = await connect(g.URL, { ...listOf(g), policy: g.Policy, roots: g.Roots, payer: g.Charges ? Payer : undefined, onProof: (p) => proofs.push(p) });
  assert.equal(guest.verdict.verdict, "accepted");
  assert.equal(guest.listIssued, g.ListAfter);
  assert.equal(guest.verdict.platform, g.Platform);
  assert.ok(guest.verdict.weaknesses.some((w) => w.startsWith("no connection is bound")));

  const response = await guest.fetch("/v1/chat/completions", { method: "POST", headers, body });
  assert.equal(response.status, 200);
  const text = await response.text();
  assert.ok(text.endsWith("data: [DONE]\n\n"));
  const proof = await guest.proof(response);
  assert.equal(proof.outcome, "complete");
  assert.deepEqual(proof.steps_back, []);
  assert.equal(Boolean(proof.charge), g.Charges);
  assert.equal(proof.bundle.object, "chrysalis.receipts");
  assert.equal(proofs.length, 1);

  const models = await guest.fetch(new Request(g.URL + "/v1/models"));
  assert.deepEqual(await models.json(), { data: [] });
  assert.equal(await guest.proof(models), null);
  for (const target of ["/v1/signature/x?model=a%20b&n=1", "/v1/receipts/x"]) assert.equal(await (await guest.fetch(target)).text(), target);

  const openai = new OpenAI({ baseURL: guest.baseURL, fetch: guest.fetch, apiKey: "k", maxRetries: 0 });
  const messages = [{ role: "user", content: "What is the capital of Norway?" }];
  assert.equal((await openai.chat.completions.create({ model: "tiny", messages })).choices[0].message.content, said);
  let streamed = "";
  for await (const chunk of await openai.chat.completions.create({ model: "tiny", messages, stream: true })) streamed += chunk.choices[0]?.delta?.content ?? "";
  assert.equal(streamed, said);

  const model = createOpenAICompatible({ name: "chrysalis", baseURL: guest.baseURL, fetch: guest.fetch, apiKey: "k" })("tiny");
  assert.equal((await generateText({ model, prompt: "What is the capital of Norway?", maxRetries: 0 })).text, said);
  streamed = "";
  for await (const part of streamText({ model, prompt: "What is the capital of Norway?", maxRetries: 0 }).textStream) streamed += part;
  assert.equal(streamed, said);
  assert.equal(proofs.length, 5);
  assert.ok(proofs.every((p, i) => p.sequence === proofs[0].sequence + i && p.steps_back.length === 0));

  for (const [name, ask] of Object.entries({
    "another origin": () => guest.fetch("https://example.org/v1/models"),
    "a query that no envelope takes": () => guest.fetch("/v1/models?" + "x".repeat(1024)),
    "two who pay": () => guest.fetch("/v1/chat/completions", { method: "POST", body, headers: [["chrysalis-client", Payer], ["chrysalis-client", Payer]] }),
  })) {
    await assert.rejects(ask(), (e) => e instanceof GuestError && e.verdict === "refused", name);
  }
  if (g.Charges) {
    const free = await connect(g.URL, { ...listOf(g), policy: JSON.parse(g.Policy), roots: g.Roots });
    await assert.rejects(free.fetch("/v1/chat/completions", { method: "POST", headers, body }), /no payment contract/);
  }
  const abort = new AbortController();
  const left = await guest.fetch("/v1/chat/completions", { method: "POST", headers, body, signal: abort.signal });
  abort.abort();
  await assert.rejects(left.text());
  await assert.rejects(guest.fetch("/v1/models", { signal: AbortSignal.abort() }), { name: "AbortError" });

  const later = await connect(g.URL, { ...listOf(g), policy: g.Policy, roots: g.Roots, payer: g.Charges ? Payer : undefined, seen: guest.seen().replace(/"sequence":\d+/, '"sequence":1000') });
  const back = await later.fetch("/v1/chat/completions", { method: "POST", headers, body: whole });
  await back.text();
  assert.match((await later.proof(back)).steps_back[0], /number 1000 was signed before/);
  guest.close();
}

for (const b of Bad) {
  const made = connect(b.URL, { ...listOf(b), policy: b.Policy, roots: b.Roots, payer: Payer });
  const verdict = (want) => (e) => {
    assert.ok(e instanceof GuestError, `${b.Name}: ${e}`);
    assert.ok(want.includes(e.verdict), `${b.Name}: ${e.verdict}, want ${want}: ${e.message}`);
    if (b.Name.startsWith("an unsealed")) assert.match(e.message, /in the clear/);
    return true;
  };
  if (!b.Connects) { await assert.rejects(made, verdict([b.Want]), b.Name); continue; }
  const guest = await made;
  for (const asked of [body, whole]) {
    let read = "";
    await assert.rejects(async () => {
      const response = await guest.fetch("/v1/chat/completions", { method: "POST", headers, body: asked });
      for await (const piece of response.body.pipeThrough(new TextDecoderStream())) read += piece;
    }, verdict(asked === body ? [b.Want] : [b.Want, "unavailable"]), b.Name); // an answer in one chunk that is not the guest's may as well have been cut
    assert.ok(!read.includes("Bergen"), b.Name);
    if (asked === whole) assert.equal(read, "", b.Name);
  }
}
await assert.rejects(connect("https://guest.example/path", { policy: Good[0].Policy }), /want https/);
await assert.rejects(connect("https://guest.example", {}), GuestError);
console.log("passed");
process.exit(0);

// The Worker: everything that is verified, sealed and opened, off the page's own thread. Go's support and the SDK's core stand before this.

let guest;
const stops = new Map();
const say = (message) => postMessage(message);
const wrong = (error) => ({ verdict: error.verdict ?? (error.name === "AbortError" ? "stopped" : "unavailable"), reason: error.message, report: error.report });

async function connectTo({ program, sha256, origin, settings }) {
  const began = performance.now();
  const same = JSON.stringify([origin, settings]);
  if (guest && same === asked) { // what was learned of its certificates stays
    await guest.verify(true);
    say({ op: "ready", took: performance.now() - began });
    return;
  }
  guest?.close();
  guest = undefined;
  asked = same;
  api ??= start(bytesOf(program), sha256);
  const made = new Guest(await api, origin, {
    ...settings,
    releaseList: settings.releaseList && new TextEncoder().encode(settings.releaseList),
    onVerdict: (report) => say({ op: "verdict", report, listIssued: made.listIssued, key: made.key }),
    onProof: (proof) => { last = proof; },
  });
  guest = made;
  await guest.verify();
  say({ op: "ready", took: performance.now() - began });
}
let api, last, asked;

// bytesOf reads base64, where the engine has no word for that in a loop: asking for each byte by a function takes a tenth of a second.
function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

// ask sends a streamed chat and tells of it piece by piece.
async function ask({ id, header, body }) {
  const stop = new AbortController();
  stops.set(id, stop);
  last = undefined;
  try {
    const response = await guest.fetch("/v1/chat/completions", { method: "POST", headers: { "content-type": "application/json", ...header }, body, signal: stop.signal });
    if (response.status !== 200) {
      const text = await response.text();
      let message = "";
      try { message = JSON.parse(text).error.message; } catch { /* it has none */ }
      say({ op: "declined", id, status: response.status, message });
      return;
    }
    await read(response.body.pipeThrough(new TextDecoderStream()), id);
    say({ op: "end", id, proof: await guest.proof(response) });
  } catch (error) {
    say({ op: "broken", id, error: wrong(error), proof: last });
  } finally {
    stops.delete(id);
  }
}

// read passes the text of events on. They were judged on their way.
async function read(stream, id) {
  let rest = "";
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    let content = "", reasoning = "";
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      content += event.choices?.[0]?.delta?.content ?? "";
      reasoning += event.choices?.[0]?.delta?.reasoning_content ?? "";
    }
    if (content || reasoning) say({ op: "piece", id, content, reasoning });
  }
}

onmessage = async ({ data }) => {
  try {
    if (data.op === "connect") await connectTo(data);
    if (data.op === "ask") await ask(data);
    if (data.op === "stop") stops.get(data.id)?.abort();
  } catch (error) {
    guest = undefined;
    say({ op: "failed", error: wrong(error) });
  }
};

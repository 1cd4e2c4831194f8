// Judges the recorded guest by the client's program for pages, and altered copies of what it answered. Arguments: the program, Go's wasm_exec.js,
// the folder of the recording.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [verifier, support, guest] = process.argv.slice(2);
createRequire(import.meta.url)(resolve(support));
const program = readFileSync(verifier);
const go = new Go();
const { instance } = await WebAssembly.instantiate(program, go.importObject);
go.run(instance);
const { verify } = globalThis.chrysalis;

const recorded = JSON.parse(readFileSync(`${guest}/challenge.json`, "utf8"));
const bytes = (hex) => new Uint8Array(Buffer.from(hex, "hex"));
const good = () => ({
  evidence: new Uint8Array(readFileSync(`${guest}/evidence.bin`)),
  policy: readFileSync(`${guest}/policy.json`, "utf8"),
  roots: { vtpm: readFileSync(`${guest}/tpm-maker.pem`, "utf8") },
  nonce: bytes(recorded.nonce),
  exporter: bytes(recorded.exporter),
  tlsKey: bytes(recorded.tls_key),
  time: Date.parse(recorded.time) / 1000,
});

let failed = 0;
function expect(name, change, want) {
  const input = good();
  change(input);
  const got = JSON.parse(verify(input));
  const said = [got.verdict, got.check].filter(Boolean).join(" ");
  if (said !== want || (got.verdict === "accepted") !== Boolean(got.claim_key)) {
    console.error(`${name}: got ${said} (${got.reason}), want ${want}`);
    failed++;
  }
}
expect("the recorded guest", () => {}, "accepted");
expect("two hours later", (i) => { i.time += 7200; }, "rejected not-after");
expect("another connection", (i) => { i.exporter[0] ^= 1; }, "rejected challenge");
expect("another key", (i) => { i.tlsKey[0] ^= 1; }, "rejected tls-key");
expect("a changed last byte", (i) => { i.evidence[i.evidence.length - 1] ^= 1; }, "rejected certificate");
expect("a byte more", (i) => { i.evidence = new Uint8Array([...i.evidence, 0]); }, "rejected");
expect("an empty policy", (i) => { i.policy = "{}"; }, "rejected");
expect("a short nonce", (i) => { i.nonce = i.nonce.slice(1); }, "unavailable");
expect("no roots", (i) => { i.roots = {}; }, "rejected certificate");
expect("roots that are none", (i) => { i.roots.vtpm = "root"; }, "unavailable");
expect("text for evidence", (i) => { i.evidence = "evidence"; }, "unavailable");

console.log(`chrysalis.wasm: ${program.length} bytes; judges the recorded guest as it should: ${failed === 0}`);
process.exit(failed === 0 ? 0 : 1);

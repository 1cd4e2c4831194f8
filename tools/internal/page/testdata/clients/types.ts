// What programs in TypeScript may write over the SDK, and what not. It is compiled, and never run.
import { connect, GuestError, type Proof } from "chrysalis-sdk";
import OpenAI from "openai";

const proofs: Proof[] = [];
const guest = await connect("https://guest.example", {
  policy: {}, roots: { vtpm: "" }, releaseList: new Uint8Array(), listAfter: "2026-01-01T00:00:00Z", payer: "0:00", seen: "[]",
  onProof: (p) => proofs.push(p), onVerdict: (v) => console.log(v.checks[0]?.got),
});
const openai = new OpenAI({ baseURL: guest.baseURL, fetch: guest.fetch, apiKey: "none" });
const response = await guest.fetch("/v1/models");
const proof: Proof | null = await guest.proof(response);
try {
  const verdict: "accepted" | "rejected" | "unavailable" = (await guest.verify(true)).verdict;
  console.log(verdict);
} catch (e) {
  if (e instanceof GuestError && e.verdict === "refused") console.log(e.report?.reason);
}
console.log(openai, proof?.charge?.nanoton, guest.seen(), guest.key, guest.listIssued);
guest.close();

// @ts-expect-error a guest has to be something
await connect("https://guest.example", {});
// @ts-expect-error what was proven is not to be changed by who reads it
guest.verdict = null;

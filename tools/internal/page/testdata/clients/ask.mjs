// A program over the SDK that asks a guest once, and is refused under a policy that accepts no price.
import { connect, GuestError } from "chrysalis-sdk";
import { readFileSync } from "node:fs";

const input = JSON.parse(readFileSync(0, "utf8"));
const rules = JSON.parse(input.Policy), trust = { roots: { vtpm: input.Roots }, payer: input.Payer };
const guest = await connect(input.URL, { policy: rules, ...trust });
const response = await guest.fetch("/v1/chat/completions", {
	method: "POST", headers: { "content-type": "application/json" },
	body: JSON.stringify({ model: "tiny", messages: [{ role: "user", content: input.Prompt }] }),
});
const answer = await response.json(), proof = await guest.proof(response);

const none = structuredClone(rules);
none.config.price.nanoton_per_token = { min: 0, max: 0 };
const refused = await connect(input.URL, { policy: none, ...trust }).then(() => undefined, (e) => e);
if (!(refused instanceof GuestError) || refused.verdict !== "rejected") throw new Error("under a policy of no price: " + refused);

console.log(JSON.stringify({
	Text: answer.choices[0].message.content, Outcome: proof.outcome, Platform: guest.verdict.platform, Back: proof.steps_back, Charged: proof.charge.nanoton,
}));
console.log("passed");

// Another hand's HPKE (X-Wing, which is ML-KEM-768 with X25519), both ways: it opens a request that was sealed here and the answer to it, and
// seals one that is opened here.
import { Aes256Gcm, CipherSuite, HkdfSha256 } from "@hpke/core";
import { XWing } from "@hpke/hybridkem-x-wing";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { hkdfSync, createDecipheriv } from "node:crypto";

const { Vector: v, ID, NotBefore, NotAfter } = JSON.parse(readFileSync(0, "utf8"));
const unhex = (s) => new Uint8Array(Buffer.from(s, "hex"));
const text = (s) => new Uint8Array(Buffer.from(s));
const join = (...parts) => new Uint8Array(Buffer.concat(parts));
const u16 = (n) => Uint8Array.of(n >> 8, n & 255);

const suite = new CipherSuite({ kem: new XWing(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
const outer = ["POST", v.OuterPath].flatMap((s) => [u16(s.length), text(s)]);

// Opens.
const sealed = unhex(v.Sealed), header = sealed.slice(0, 94), enc = sealed.slice(94, 1214), associated = join(header, ...outer);
const recipientKey = await suite.kem.importKey("raw", unhex(v.Seed), false);
const recipient = await suite.createRecipientContext({ recipientKey, enc, info: join(text("chrysalis sealed request v1\0"), header) });
const plain = new Uint8Array(await recipient.open(sealed.slice(1214), associated));
assert.ok(Buffer.from(plain).includes(v.Request.Body));

// The answer's key, out of what it exports, and the answer's chunks.
const secret = new Uint8Array(await recipient.export(join(text("chrysalis sealed response v1\0"), associated), 32));
const answer = unhex(v.Answer.Sealed), nonce = answer.slice(0, 32);
const expand = (name, n) => new Uint8Array(hkdfSync("sha256", secret, join(enc, nonce), name, n));
const key = expand("key", 32), base = expand("nonce", 12);
let at = 32, said = Buffer.alloc(0), last = false;
for (let i = 0; !last; i++) {
  let size = 1, n = answer[at] & 0x3f;
  if (answer[at] >> 6 === 1) { size = 2; n = n << 8 | answer[at + 1]; }
  at += size;
  last = n === 0;
  const chunk = last ? answer.slice(at) : answer.slice(at, at + n);
  at += n;
  const iv = base.slice();
  iv[11] ^= i;
  const d = createDecipheriv("aes-256-gcm", key, iv);
  d.setAAD(text(last ? "final" : ""));
  d.setAuthTag(chunk.slice(-16));
  const open = Buffer.concat([d.update(chunk.slice(0, -16)), d.final()]);
  const long = open[0] >> 6 === 1;
  said = Buffer.concat([said, open.subarray(long ? 2 : 1, (long ? 2 : 1) + (long ? (open[0] & 0x3f) << 8 | open[1] : open[0]))]);
}
assert.ok(v.Answer.Content.length > 100);
for (const line of v.Answer.Content.split("\n\n")) assert.ok(said.includes(line.slice(0, 100)), line.slice(0, 100));

// Seals.
const made = header.slice();
made.set(unhex(ID), 78);
new DataView(made.buffer).setBigUint64(62, BigInt(NotBefore));
new DataView(made.buffer).setBigUint64(70, BigInt(NotAfter));
const recipientPublicKey = await suite.kem.importKey("raw", unhex(v.PublicKey), true);
const sender = await suite.createSenderContext({ recipientPublicKey, info: join(text("chrysalis sealed request v1\0"), made) });
const ciphertext = new Uint8Array(await sender.seal(plain, join(made, ...outer)));
console.log(Buffer.from(join(made, new Uint8Array(sender.enc), ciphertext)).toString("hex"));
console.log("passed");

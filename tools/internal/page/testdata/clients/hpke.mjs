// Two other hands' HPKE (X-Wing, which is ML-KEM-768 with X25519), both ways: each opens a request that was sealed here and the answer to it, and
// seals one that is opened here.
import { AEAD_AES_256_GCM, CipherSuite as Suite, KDF_HKDF_SHA256 } from "hpke";
import { KEM_MLKEM768_X25519 } from "@panva/hpke-noble";
import { Aes256Gcm, CipherSuite, HkdfSha256 } from "@hpke/core";
import { XWing } from "@hpke/hybridkem-x-wing";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { hkdfSync, createDecipheriv } from "node:crypto";

const { Vector: v, IDs, NotBefore, NotAfter } = JSON.parse(readFileSync(0, "utf8"));
const unhex = (s) => new Uint8Array(Buffer.from(s, "hex"));
const text = (s) => new Uint8Array(Buffer.from(s));
const join = (...parts) => new Uint8Array(Buffer.concat(parts));
const u16 = (n) => Uint8Array.of(n >> 8, n & 255);

const first = new CipherSuite({ kem: new XWing(), kdf: new HkdfSha256(), aead: new Aes256Gcm() });
const second = new Suite(KEM_MLKEM768_X25519, KDF_HKDF_SHA256, AEAD_AES_256_GCM);
const hands = [{
  async recipient(seed, enc, info) {
    const c = await first.createRecipientContext({ recipientKey: await first.kem.importKey("raw", seed, false), enc, info });
    return { open: async (text, aad) => new Uint8Array(await c.open(text, aad)), export: async (context, n) => new Uint8Array(await c.export(context, n)) };
  },
  async seal(key, info, plain, aad) {
    const c = await first.createSenderContext({ recipientPublicKey: await first.kem.importKey("raw", key, true), info });
    return [new Uint8Array(c.enc), new Uint8Array(await c.seal(plain, aad))];
  },
}, {
  async recipient(seed, enc, info) {
    const c = await second.SetupRecipient(await second.DeserializePrivateKey(seed), enc, { info });
    return { open: (text, aad) => c.Open(text, aad), export: (context, n) => c.Export(context, n) };
  },
  async seal(key, info, plain, aad) {
    const { encapsulatedSecret, ctx } = await second.SetupSender(await second.DeserializePublicKey(key), { info });
    return [encapsulatedSecret, await ctx.Seal(plain, aad)];
  },
}];
const outer = ["POST", v.OuterPath].flatMap((s) => [u16(s.length), text(s)]);

for (const [which, hand] of hands.entries()) {
  // Opens.
  const sealed = unhex(v.Sealed), header = sealed.slice(0, 94), enc = sealed.slice(94, 1214), associated = join(header, ...outer);
  const recipient = await hand.recipient(unhex(v.Seed), enc, join(text("chrysalis sealed request v1\0"), header));
  const plain = await recipient.open(sealed.slice(1214), associated);
  assert.ok(Buffer.from(plain).includes(v.Request.Body));

  // The answer's key, out of what it exports, and the answer's chunks.
  const secret = await recipient.export(join(text("chrysalis sealed response v1\0"), associated), 32);
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
  made.set(unhex(IDs[which]), 78);
  new DataView(made.buffer).setBigUint64(62, BigInt(NotBefore));
  new DataView(made.buffer).setBigUint64(70, BigInt(NotAfter));
  const [encapsulated, ciphertext] = await hand.seal(unhex(v.PublicKey), join(text("chrysalis sealed request v1\0"), made), plain, join(made, ...outer));
  console.log(Buffer.from(join(made, encapsulated, ciphertext)).toString("hex"));
}
console.log("passed");

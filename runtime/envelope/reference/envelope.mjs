// The envelope of ENVELOPE.md a second time, in JavaScript with WebCrypto and ML-KEM beside it: both ends, for tests and for whoever
// writes a client of his own. It depends on nothing else. It judges no evidence: the key is the caller's to have verified.
import { CIPHERTEXT_BYTES, concat, decapsulate, encapsulate, hash, keyPair } from "./mlkem.mjs";

const { subtle } = globalThis.crypto;
const text = new TextEncoder(), words = new TextDecoder("utf-8", { fatal: true });
const random = (n) => globalThis.crypto.getRandomValues(new Uint8Array(n));
const uint = (value, bytes) => Uint8Array.from({ length: bytes }, (_, i) => Number((BigInt(value) >> BigInt(8 * (bytes - 1 - i))) & 0xffn));
const number = (bytes) => bytes.reduce((n, b) => n << 8n | BigInt(b), 0n);
const hex = (bytes) => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
const unhex = (s) => Uint8Array.from(s.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const fail = (what) => { throw new Error(`envelope: ${what}`); };
const same = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);

// --- HPKE (RFC 9180), base mode: ML-KEM-768 with X25519, HKDF-SHA256, AES-256-GCM.
const KEM = 0x647a, KDF = 1, AEAD = 2;
const SUITE = concat(text.encode("HPKE"), uint(KEM, 2), uint(KDF, 2), uint(AEAD, 2));
const COMBINER = Uint8Array.of(0x5c, 0x2e, 0x2f, 0x2f, 0x5e, 0x5c);
const PKCS8 = unhex("302e020100300506032b656e04220420");
const BASE_POINT = Uint8Array.from({ length: 32 }, (_, i) => i === 0 ? 9 : 0);

async function x25519(secret, point) {
  const key = await subtle.importKey("pkcs8", concat(PKCS8, secret), { name: "X25519" }, false, ["deriveBits"]);
  const peer = await subtle.importKey("raw", point, { name: "X25519" }, false, []);
  return new Uint8Array(await subtle.deriveBits({ name: "X25519", public: peer }, key, 256));
}

async function hmac(key, data) {
  const k = await subtle.importKey("raw", key.length ? key : new Uint8Array(32), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await subtle.sign("HMAC", k, data));
}
const extract = hmac;
async function expand(prk, info, bytes) {
  let out = new Uint8Array(), last = new Uint8Array();
  for (let i = 1; out.length < bytes; i++) { last = await hmac(prk, concat(last, info, [i])); out = concat(out, last); }
  return out.slice(0, bytes);
}
const labeledExtract = (salt, label, data) => extract(salt, concat(text.encode("HPKE-v1"), SUITE, text.encode(label), data));
const labeledExpand = (prk, label, info, bytes) =>
  expand(prk, concat(uint(bytes, 2), text.encode("HPKE-v1"), SUITE, text.encode(label), info), bytes);

const gcm = (key, use) => subtle.importKey("raw", key, "AES-GCM", false, [use]);
const seal = async (key, nonce, plain, associated) => new Uint8Array(await subtle.encrypt(
  { name: "AES-GCM", iv: nonce, additionalData: associated }, await gcm(key, "encrypt"), plain));
const open = async (key, nonce, sealed, associated) => {
  try {
    const how = { name: "AES-GCM", iv: nonce, additionalData: associated };
    return new Uint8Array(await subtle.decrypt(how, await gcm(key, "decrypt"), sealed));
  } catch { return fail("does not authenticate"); }
};

// keys makes a guest's HPKE key pair of its seed of 32 bytes.
export async function keys(seed) {
  const all = hash("shake256", seed, 96), lattice = keyPair(all.subarray(0, 64)), curve = all.slice(64);
  const point = await x25519(curve, BASE_POINT);
  return { lattice, curve, point, publicKey: concat(lattice.publicKey, point) };
}

const combine = (a, b, ciphertext, point) => hash("sha3_256", concat(a, b, ciphertext, point, COMBINER), 32);

async function encapsulated(publicKey) {
  if (publicKey.length !== 1216) fail(`the key has ${publicKey.length} bytes, want 1216`);
  const point = publicKey.subarray(1184), secret = random(32);
  const lattice = encapsulate(publicKey.subarray(0, 1184), random(32)), ephemeral = await x25519(secret, BASE_POINT);
  return { shared: combine(lattice.secret, await x25519(secret, point), ephemeral, point), enc: concat(lattice.ciphertext, ephemeral) };
}

async function decapsulated(pair, enc) {
  const ephemeral = enc.subarray(CIPHERTEXT_BYTES);
  return combine(decapsulate(pair.lattice, enc.subarray(0, CIPHERTEXT_BYTES)), await x25519(pair.curve, ephemeral), ephemeral, pair.point);
}

async function schedule(shared, info) {
  const none = new Uint8Array();
  const context = concat([0], await labeledExtract(none, "psk_id_hash", none), await labeledExtract(none, "info_hash", info));
  const secret = await labeledExtract(shared, "secret", none);
  return {
    key: await labeledExpand(secret, "key", context, 32), nonce: await labeledExpand(secret, "base_nonce", context, 12),
    exporter: await labeledExpand(secret, "exp", context, 32),
  };
}

// --- Binary HTTP (RFC 9292), in the one encoding that the envelope takes.
function varint(n) {
  if (n < 2 ** 6) return uint(n, 1);
  if (n < 2 ** 14) return uint(BigInt(n) | 1n << 14n, 2);
  if (n < 2 ** 30) return uint(BigInt(n) | 2n << 30n, 4);
  return fail(`a length of ${n}`);
}
const sized = (bytes) => concat(varint(bytes.length), bytes);
const fieldLines = (fields) => concat(...fields.flatMap(({ name, value }) => [sized(text.encode(name)), sized(text.encode(value))]));

class Reader {
  constructor(bytes) { this.bytes = bytes; this.at = 0; }
  get left() { return this.bytes.length - this.at; }
  take(n) {
    if (n > this.left) fail(`ends in the middle: ${this.left} bytes, want ${n}`);
    this.at += n;
    return this.bytes.subarray(this.at - n, this.at);
  }
  varint() {
    const bytes = 1 << (this.take(1)[0] >> 6);
    this.at--;
    if (bytes === 8) fail("a length of eight bytes");
    const n = Number(number(this.take(bytes)) & ((1n << BigInt(8 * bytes - 2)) - 1n));
    if (varint(n).length !== bytes) fail("a length that is not in its shortest form");
    return n;
  }
  sized() { return this.take(this.varint()); }
  fields(end) { // until end says so
    const fields = [];
    while (!end(this)) fields.push({ name: words.decode(this.sized()), value: words.decode(this.sized()) });
    return fields;
  }
  padding(what) { // zeros up to the bucket, and no further
    const text = this.at;
    if (this.take(this.left).some((b) => b !== 0)) fail(`${what} is followed by something other than zeros`);
    if (bucket(text) !== this.at) fail(`${what} of ${text} bytes is padded to ${this.at}, want ${bucket(text)}`);
  }
}

// --- Requests.
const MAGIC = text.encode("CHRYENV1"), HEADER_BYTES = 94, ENC_BYTES = 1120, TAG_BYTES = 16;

// bucket is the length that a plaintext of n bytes is padded to.
const LEAST = 256;
const bucket = (n) => {
  if (n > 65536) return Math.ceil(n / 65536) * 65536;
  let size = LEAST;
  while (size < n) size *= 2;
  return size;
};

const headerOf = (h) => concat(MAGIC, uint(KEM, 2), uint(KDF, 2), uint(AEAD, 2), unhex(h.keyID), uint(h.epoch, 8), unhex(h.instance),
  uint(h.notBefore, 8), uint(h.notAfter, 8), unhex(h.id));
const requestInfo = (header) => concat(text.encode("chrysalis sealed request v1\0"), header);
const associatedOf = (header, method, path) => concat(
  header, uint(method.length, 2), text.encode(method), uint(path.length, 2), text.encode(path));

async function answerOf(context, enc, associated) {
  const secret = await labeledExpand(context.exporter, "sec", concat(text.encode("chrysalis sealed response v1\0"), associated), 32);
  return { secret, enc };
}

// sealRequest seals {method, path, query, header, body} to a key: {publicKey, epoch, instance (hexadecimal)}. It returns the envelope, the
// value of Chrysalis-Key, and what openAnswer wants.
export async function sealRequest(key, request, now = Math.floor(Date.now() / 1000), seconds = 90) {
  const keyID = hex(new Uint8Array(await subtle.digest("SHA-256", key.publicKey))).slice(0, 16);
  const header = headerOf({
    keyID, epoch: key.epoch, instance: key.instance, notBefore: now - 60, notAfter: now + seconds, id: hex(random(16)),
  });
  const associated = associatedOf(header, "POST", request.path);
  const { shared, enc } = await encapsulated(key.publicKey), context = await schedule(shared, requestInfo(header));
  const message = concat([0], sized(text.encode(request.method)), sized(text.encode("https")), sized(new Uint8Array()),
    sized(text.encode(request.query ? `${request.path}?${request.query}` : request.path)), sized(fieldLines(request.header)), sized(request.body), [0]);
  const padded = new Uint8Array(bucket(message.length));
  padded.set(message);
  const sealed = await seal(context.key, context.nonce, padded, associated);
  return { envelope: concat(header, enc, sealed), keyID, answer: await answerOf(context, enc, associated) };
}

// openRequest opens an envelope that came to POST path, with a guest's keys.
export async function openRequest(pair, envelope, path) {
  const r = new Reader(envelope), header = r.take(HEADER_BYTES), h = new Reader(header);
  if (!same(h.take(8), MAGIC)) fail("begins with something other than CHRYENV1");
  if (!same(h.take(6), concat(uint(KEM, 2), uint(KDF, 2), uint(AEAD, 2)))) fail("is of another suite");
  const fields = { keyID: hex(h.take(8)), epoch: Number(number(h.take(8))), instance: hex(h.take(32)), notBefore: Number(number(h.take(8))),
    notAfter: Number(number(h.take(8))), id: hex(h.take(16)) };
  const enc = r.take(ENC_BYTES), sealed = r.take(r.left), associated = associatedOf(header, "POST", path);
  const context = await schedule(await decapsulated(pair, enc), requestInfo(header));
  const m = new Reader(await open(context.key, context.nonce, sealed, associated));
  if (m.varint() !== 0) fail("is no request of a known length");
  const method = words.decode(m.sized());
  if (words.decode(m.sized()) !== "https") fail("scheme is not https");
  if (m.sized().length !== 0) fail("an authority");
  const target = words.decode(m.sized()), query = target.slice(path.length + 1);
  if (target !== path && (!target.startsWith(`${path}?`) || !/^[!-"$-~]+$/.test(query))) fail("another path inside, or a query that is none");
  const lines = new Reader(m.sized()), header2 = lines.fields((l) => l.left === 0), body = m.sized();
  if (m.varint() !== 0) fail("a trailer");
  m.padding("the message");
  return { header: fields, request: { method, path, query, header: header2, body }, answer: await answerOf(context, enc, associated) };
}

// --- Answers.
const FINAL = text.encode("final"), NONCE_BYTES = 32, CHUNK_BYTES = 16384;

async function answerKeys({ secret, enc }, nonce) {
  const prk = await extract(concat(enc, nonce), secret);
  return { key: await expand(prk, text.encode("key"), 32), base: await expand(prk, text.encode("nonce"), 12) };
}
const chunkNonce = (base, i) => base.map((b, at) => at < 4 ? b : b ^ uint(i, 8)[at - 4]);

// openAnswer opens a whole sealed answer. One that was cut, changed, or goes on behind its end is refused.
export async function openAnswer(answer, sealed) {
  const r = new Reader(sealed), { key, base } = await answerKeys(answer, r.take(NONCE_BYTES)), pieces = [];
  for (let i = 0, last = false; !last; i++) {
    const length = r.varint();
    last = length === 0;
    if (length > CHUNK_BYTES + TAG_BYTES || !last && length < LEAST + TAG_BYTES) fail(`a chunk of ${length} bytes`);
    const chunk = new Reader(await open(key, chunkNonce(base, i), last ? r.take(r.left) : r.take(length), last ? FINAL : new Uint8Array()));
    const piece = chunk.sized();
    if (piece.length === 0) fail("a chunk without text");
    chunk.padding("a chunk's text");
    pieces.push(piece);
  }
  const m = new Reader(concat(...pieces)), zero = (r) => r.left > 0 && r.bytes[r.at] === 0 && r.take(1).length === 1;
  if (m.varint() !== 3) fail("is no response of an unknown length");
  const status = m.varint();
  if (status < 200 || status > 599) fail(`status is ${status}`);
  const header = m.fields(zero), content = [];
  while (!zero(m)) content.push(m.sized());
  if (m.varint() !== 0) fail("a trailer");
  if (m.left !== 0) fail("something behind the answer");
  return { status, header, content: concat(...content) };
}

// sealAnswer seals an answer in one chunk for each piece of its content, as a guest does.
export async function sealAnswer(answer, { status, header, pieces }, nonce = random(NONCE_BYTES)) {
  const { key, base } = await answerKeys(answer, nonce), texts = [concat(varint(3), varint(status), fieldLines(header), [0])];
  for (const piece of pieces) texts.push(sized(piece));
  texts.push(Uint8Array.of(0, 0));
  const out = [nonce];
  for (const [i, t] of texts.entries()) {
    const last = i === texts.length - 1, plain = new Uint8Array(bucket(sized(t).length));
    if (plain.length > CHUNK_BYTES) fail(`a piece of ${t.length} bytes`);
    plain.set(sized(t));
    const sealed = await seal(key, chunkNonce(base, i), plain, last ? FINAL : new Uint8Array());
    out.push(varint(last ? 0 : sealed.length), sealed);
  }
  return concat(...out);
}

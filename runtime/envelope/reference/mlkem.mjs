// ML-KEM-768 (FIPS 203) with what it needs of SHA-3 (FIPS 202). Nothing here runs in constant time: it is for tests and readers.

const RATES = { sha3_256: [136, 6], sha3_512: [72, 6], shake128: [168, 0x1f], shake256: [136, 0x1f] };
const ROUNDS = [];
const OFFSETS = []; // [from lane to lane by rho and pi, rotation]
{
  // The round constants of a linear feedback shift register (FIPS 202, 3.2.5), and rho and pi walked as they are defined.
  let lfsr = 1;
  for (let round = 0; round < 24; round++) {
    let constant = 0n;
    for (let j = 0; j < 7; j++) {
      if (lfsr & 1) constant |= 1n << BigInt((1 << j) - 1);
      lfsr = (lfsr << 1) ^ (lfsr & 0x80 ? 0x171 : 0);
    }
    ROUNDS.push(constant);
  }
  let x = 1, y = 0;
  for (let t = 0; t < 24; t++) {
    const next = [y, (2 * x + 3 * y) % 5];
    OFFSETS.push([x + 5 * y, next[0] + 5 * next[1], BigInt(((t + 1) * (t + 2) / 2) % 64)]);
    [x, y] = next;
  }
}
const MASK = (1n << 64n) - 1n;
const rotate = (lane, by) => by === 0n ? lane : ((lane << by) | (lane >> (64n - by))) & MASK;

function keccak(a) {
  for (const constant of ROUNDS) {
    const c = [0, 1, 2, 3, 4].map((x) => a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20]);
    for (let i = 0; i < 25; i++) a[i] ^= c[(i + 4) % 5] ^ rotate(c[(i + 1) % 5], 1n);
    const b = [a[0]];
    for (const [from, to, by] of OFFSETS) b[to] = rotate(a[from], by);
    for (let i = 0; i < 25; i++) {
      const row = i - i % 5;
      a[i] = b[i] ^ (~b[row + (i + 1) % 5] & MASK & b[row + (i + 2) % 5]);
    }
    a[0] ^= constant;
  }
}

// hash is a function of the family over the data, of that many bytes.
export function hash(name, data, bytes) {
  const [rate, suffix] = RATES[name];
  const padded = new Uint8Array(Math.ceil((data.length + 1) / rate) * rate);
  padded.set(data);
  padded[data.length] = suffix;
  padded[padded.length - 1] |= 0x80;
  const state = new Array(25).fill(0n), view = new DataView(padded.buffer);
  for (let at = 0; at < padded.length; at += rate) {
    for (let i = 0; i < rate / 8; i++) state[i] ^= view.getBigUint64(at + 8 * i, true);
    keccak(state);
  }
  const out = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at += rate) {
    if (at > 0) keccak(state);
    for (let i = 0; i < rate && at + i < bytes; i++) out[at + i] = Number((state[i >> 3] >> BigInt(8 * (i & 7))) & 0xffn);
  }
  return out;
}

export const concat = (...parts) => {
  const out = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) { out.set(p, at); at += p.length; }
  return out;
};

const Q = 3329, N = 256, K = 3, DU = 10, DV = 4;
export const PUBLIC_BYTES = 1184, CIPHERTEXT_BYTES = 1088;
const reversed = (i) => { let r = 0; for (let b = 0; b < 7; b++) r |= ((i >> b) & 1) << (6 - b); return r; };
const power = (e) => { let r = 1; for (let i = 0; i < e; i++) r = r * 17 % Q; return r; };
const ZETAS = Array.from({ length: 128 }, (_, i) => power(reversed(i)));
const GAMMAS = Array.from({ length: 128 }, (_, i) => power(2 * reversed(i) + 1));

function ntt(poly) {
  const f = Int32Array.from(poly);
  for (let len = 128, i = 1; len >= 2; len >>= 1) {
    for (let start = 0; start < N; start += 2 * len, i++) {
      for (let j = start; j < start + len; j++) {
        const t = ZETAS[i] * f[j + len] % Q;
        f[j + len] = (f[j] - t + Q) % Q;
        f[j] = (f[j] + t) % Q;
      }
    }
  }
  return f;
}

function inverseNTT(poly) {
  const f = Int32Array.from(poly);
  for (let len = 2, i = 127; len <= 128; len <<= 1) {
    for (let start = 0; start < N; start += 2 * len, i--) {
      for (let j = start; j < start + len; j++) {
        const t = f[j];
        f[j] = (t + f[j + len]) % Q;
        f[j + len] = ZETAS[i] * (f[j + len] - t + Q) % Q;
      }
    }
  }
  return f.map((c) => c * 3303 % Q);
}

const multiply = (a, b) => {
  const c = new Int32Array(N);
  for (let i = 0; i < 128; i++) {
    const [a0, a1, b0, b1] = [a[2 * i], a[2 * i + 1], b[2 * i], b[2 * i + 1]];
    c[2 * i] = (a0 * b0 + (a1 * b1 % Q) * GAMMAS[i]) % Q;
    c[2 * i + 1] = (a0 * b1 + a1 * b0) % Q;
  }
  return c;
};
const add = (a, b) => a.map((c, i) => (c + b[i]) % Q);
const subtract = (a, b) => a.map((c, i) => (c - b[i] + Q) % Q);
const dot = (a, b) => a.map((p, i) => multiply(p, b[i])).reduce(add);

const encode = (poly, bits) => {
  const out = new Uint8Array(32 * bits);
  poly.forEach((c, i) => { for (let b = 0; b < bits; b++) { const at = i * bits + b; out[at >> 3] |= ((c >> b) & 1) << (at & 7); } });
  return out;
};
const decode = (bytes, bits) => Int32Array.from({ length: N }, (_, i) => {
  let c = 0;
  for (let b = 0; b < bits; b++) { const at = i * bits + b; c |= ((bytes[at >> 3] >> (at & 7)) & 1) << b; }
  return c;
});
const compress = (poly, bits) => poly.map((c) => Math.floor((c * 2 ** bits + 1664) / Q) % 2 ** bits);
const decompress = (poly, bits) => poly.map((c) => (c * Q + 2 ** (bits - 1)) >> bits);
const vector = (bytes, bits) => [0, 1, 2].map((i) => decode(bytes.subarray(32 * bits * i), bits));

// uniform samples a polynomial in NTT form (SampleNTT).
function uniform(rho, column, row) {
  for (let blocks = 4; ; blocks++) {
    const stream = hash("shake128", concat(rho, [column, row]), 168 * blocks), out = new Int32Array(N);
    let n = 0;
    for (let i = 0; i + 3 <= stream.length && n < N; i += 3) {
      const low = stream[i] | (stream[i + 1] & 15) << 8, high = stream[i + 1] >> 4 | stream[i + 2] << 4;
      if (low < Q) out[n++] = low;
      if (high < Q && n < N) out[n++] = high;
    }
    if (n === N) return out;
  }
}

// small samples from the binomial distribution with eta 2.
function small(seed, nonce) {
  const stream = hash("shake256", concat(seed, [nonce]), 128), bit = (i) => (stream[i >> 3] >> (i & 7)) & 1;
  return Int32Array.from({ length: N }, (_, i) => (bit(4 * i) + bit(4 * i + 1) - bit(4 * i + 2) - bit(4 * i + 3) + Q) % Q);
}
const smalls = (seed, from) => [0, 1, 2].map((i) => small(seed, from + i));
const matrix = (rho) => [0, 1, 2].map((row) => [0, 1, 2].map((column) => uniform(rho, column, row)));

// keyPair makes both keys of a seed of 64 bytes, d and z.
export function keyPair(seed) {
  const g = hash("sha3_512", concat(seed.subarray(0, 32), [K]), 64), rho = g.subarray(0, 32), sigma = g.subarray(32);
  const a = matrix(rho), s = smalls(sigma, 0).map(ntt), e = smalls(sigma, K).map(ntt);
  const t = a.map((row, i) => add(dot(row, s), e[i]));
  return { publicKey: concat(...t.map((p) => encode(p, 12)), rho), s, z: seed.subarray(32) };
}

function encrypt(publicKey, message, seed) {
  const t = vector(publicKey, 12), a = matrix(publicKey.subarray(384 * K));
  const y = smalls(seed, 0).map(ntt), e1 = smalls(seed, K), e2 = small(seed, 2 * K);
  const u = [0, 1, 2].map((i) => add(inverseNTT(dot(a.map((row) => row[i]), y)), e1[i]));
  const v = add(add(inverseNTT(dot(t, y)), e2), decompress(decode(message, 1), 1));
  return concat(...u.map((p) => encode(compress(p, DU), DU)), encode(compress(v, DV), DV));
}

// encapsulate makes a shared secret and its ciphertext of 32 random bytes. A public key that is not reduced is refused.
export function encapsulate(publicKey, random) {
  if (publicKey.length !== PUBLIC_BYTES) throw new Error(`ML-KEM key has ${publicKey.length} bytes, want ${PUBLIC_BYTES}`);
  if (vector(publicKey, 12).some((p) => p.some((c) => c >= Q))) throw new Error("ML-KEM key has a coefficient that is not reduced");
  const g = hash("sha3_512", concat(random, hash("sha3_256", publicKey, 32)), 64);
  return { secret: g.slice(0, 32), ciphertext: encrypt(publicKey, random, g.subarray(32)) };
}

// decapsulate returns the shared secret; of a ciphertext that nobody made for this key, one that nobody else knows.
export function decapsulate(key, ciphertext) {
  if (ciphertext.length !== CIPHERTEXT_BYTES) throw new Error(`ML-KEM ciphertext has ${ciphertext.length} bytes, want ${CIPHERTEXT_BYTES}`);
  const u = vector(ciphertext, DU).map((p) => decompress(p, DU)), v = decompress(decode(ciphertext.subarray(32 * DU * K), DV), DV);
  const message = encode(compress(subtract(v, inverseNTT(dot(key.s, u.map(ntt)))), 1), 1);
  const g = hash("sha3_512", concat(message, hash("sha3_256", key.publicKey, 32)), 64);
  const again = encrypt(key.publicKey, message, g.subarray(32));
  return again.every((b, i) => b === ciphertext[i]) ? g.slice(0, 32) : hash("shake256", concat(key.z, ciphertext), 32);
}

// What the SDK and the page share: the verifier's program, and a fetch over it. All that is secret or judged is in the program, which is Go
// (tools/wasm); here bytes are carried.

const maxEvidenceBytes = 4 << 20;
const maxClearBytes = 8 << 10;
const maxRekeys = 2;

/** What went wrong: verdict is rejected (the guest, or its answer, is not what it must be), unavailable (it could not be found out) or
 * refused (the request is none that may be sent). report is the whole verdict, where evidence was judged. */
export class GuestError extends Error {
  constructor(verdict, reason, report) {
    super(reason);
    this.name = "GuestError";
    this.verdict = verdict;
    this.report = report;
  }
}

const failure = (error) => new GuestError(error.verdict, error.reason);

/** Starts the program out of its packed bytes, if they have this SHA-256 (in hexadecimal) when they are unpacked. */
export async function start(packed, sha256) {
  if (!globalThis.crypto?.subtle) throw new GuestError("refused", "this page came over plain HTTP, so anybody between could have changed it");
  const program = unpack(packed);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", program));
  const got = Array.from(digest, (b) => b.toString(16).padStart(2, "0")).join("");
  if (got !== sha256) throw new GuestError("rejected", `the verifier's program has SHA-256 ${got}, want ${sha256}`);
  const go = new Go();
  const { instance } = await WebAssembly.instantiate(program, go.importObject);
  go.run(instance);
  const api = globalThis.chrysalis;
  delete globalThis.chrysalis;
  return api;
}

/** Unpacks LZMA as tools/internal/page writes it: lc 3, lp 0, pb 0, behind the length of what comes out. What is broken throws, or has another hash.
 * All probabilities are in one array, and the decoder's two registers in another, as 32 bits with a sign: that is what engines are quick with. */
function unpack(src) {
  const size = src[0] | src[1] << 8 | src[2] << 16 | src[3] << 24;
  const out = new Uint8Array(size);
  const isMatch = 0, isRep = 12, isRepG0 = 24, isRepG1 = 36, isRepG2 = 48, long = 60, slots = 72, spec = 328, align = 456, matchLen = 472, repLen = 746, literals = 1020;
  const p = new Uint16Array(literals + 8 * 0x300).fill(1024);
  const range = 0, code = 1, reg = Int32Array.of(-1, src[5] << 24 | src[6] << 16 | src[7] << 8 | src[8]);
  let pos = 9;
  const narrow = (to) => {
    if (!(to & 0xff000000)) { to <<= 8; reg[code] = reg[code] << 8 | src[pos++]; }
    reg[range] = to;
  };
  const bit = (i) => {
    const half = p[i], whole = reg[range], bound = Math.imul(whole >>> 11, half);
    if (reg[code] >>> 0 < bound >>> 0) { p[i] = half + ((2048 - half) >> 5); narrow(bound); return 0; }
    reg[code] -= bound;
    p[i] = half - (half >> 5);
    narrow(whole - bound | 0);
    return 1;
  };
  const tree = (at, n) => { let m = 1; for (let i = 0; i < n; i++) m = m << 1 | bit(at + m); return m - (1 << n); };
  const reverse = (at, n) => { let m = 1, v = 0; for (let i = 0; i < n; i++) { const b = bit(at + m); m = m << 1 | b; v |= b << i; } return v; };
  const length = (l) => 2 + (!bit(l) ? tree(l + 2, 3) : !bit(l + 1) ? 8 + tree(l + 10, 3) : 16 + tree(l + 18, 8));
  let state = 0, r0 = 1, r1 = 1, r2 = 1, r3 = 1;
  for (let at = 0; at < size;) {
    if (!bit(isMatch + state)) {
      const lit = literals + ((at ? out[at - 1] : 0) >> 5) * 0x300;
      let m = 1;
      if (state >= 7) {
        let matched = out[at - r0], offset = 0x100;
        while (m < 0x100) {
          matched <<= 1;
          const seen = matched & offset, b = bit(lit + offset + seen + m);
          m = m << 1 | b;
          offset &= b ? seen : ~seen;
        }
      } else while (m < 0x100) m = m << 1 | bit(lit + m);
      out[at++] = m;
      state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
      continue;
    }
    let n;
    if (!bit(isRep + state)) {
      [r3, r2, r1] = [r2, r1, r0];
      n = length(matchLen);
      state = state < 7 ? 7 : 10;
      const slot = tree(slots + Math.min(n - 2, 3) * 64, 6);
      let d = slot;
      if (slot >= 4) {
        const k = (slot >> 1) - 1;
        d = (2 | slot & 1) << k;
        if (slot < 14) d += reverse(spec + d - slot, k);
        else {
          let v = 0;
          for (let i = k - 4; i > 0; i--) {
            const half = reg[range] >>> 1, b = reg[code] >>> 0 >= half ? 1 : 0;
            if (b) reg[code] -= half;
            v = v << 1 | b;
            narrow(half);
          }
          d += v * 16 + reverse(align, 4);
        }
      }
      r0 = d + 1;
    } else {
      let short = false;
      if (!bit(isRepG0 + state)) short = !bit(long + state);
      else if (!bit(isRepG1 + state)) [r0, r1] = [r1, r0];
      else if (!bit(isRepG2 + state)) [r0, r1, r2] = [r2, r0, r1];
      else [r0, r1, r2, r3] = [r3, r0, r1, r2];
      if (short) { state = state < 7 ? 9 : 11; n = 1; }
      else { n = length(repLen); state = state < 7 ? 8 : 11; }
    }
    if (r0 > at || n > size - at) throw new Error("the packed program is broken");
    for (const end = at + n; at < end; at++) out[at] = out[at - r0];
  }
  return out;
}

/** A guest that was accepted, and is verified anew when its key is replaced. */
export class Guest {
  #origin; #outside; #client; #settings; #guest; #meeting;

  constructor(api, origin, settings) {
    const url = new URL(origin);
    if (url.href !== url.origin + "/" || !["https:", "http:"].includes(url.protocol))
      throw new GuestError("refused", `the guest is ${origin}, want https://HOST[:PORT]`);
    const opened = api.client({
      policy: settings.policy, roots: settings.roots, releaseList: settings.releaseList, listAfter: settings.listAfter,
      payer: settings.payer, seen: settings.seen,
    });
    if (opened.report) throw verdictOf(JSON.parse(opened.report));
    this.#origin = url.origin;
    this.#outside = settings.fetch ?? globalThis.fetch.bind(globalThis);
    this.#client = opened;
    this.#settings = settings;
    /** The verdict that counts now, as chrysalis verify --json prints it; null before the first. */
    this.verdict = null;
    /** When the release list was issued, or "". */
    this.listIssued = opened.issued;
    /** So that openai.baseURL can be guest.baseURL. */
    this.baseURL = this.#origin + "/v1";
    this.fetch = this.fetch.bind(this);
    this.proofs = new WeakMap();
  }

  /** The id of the key that is sealed to now, "" when there is none. */
  get key() { return this.#guest?.key ?? ""; }

  /** How far the guests have come that answered, for settings.seen of a later connection. */
  seen() { return this.#client.seen(); }

  /** Verifies the guest if its key's time is over soon, or anyway, and returns the verdict. Throws a GuestError when it is not accepted. */
  async verify(anyway = false) {
    await this.#current(anyway ? this.#guest : undefined);
    return this.verdict;
  }

  async #current(stale, signal) {
    if (this.#guest && this.#guest !== stale && this.#guest.fresh()) return this.#guest;
    this.#meeting ??= this.#meet().finally(() => { this.#meeting = undefined; });
    return await within(signal, this.#meeting);
  }

  async #meet() {
    const question = this.#client.ask();
    let raw;
    try {
      const response = await this.#send(question.target, { method: "GET" });
      if (response.status !== 200) throw new GuestError("unavailable", `asking for evidence: somebody on the way says ${response.status}`);
      raw = await bounded(response, maxEvidenceBytes);
    } catch (error) {
      throw unavailable("asking for evidence", error);
    }
    const { report, guest } = question.judge(raw);
    const verdict = JSON.parse(report);
    if (!guest) {
      this.#leave();
      this.#settings.onVerdict?.(verdict);
      throw verdictOf(verdict);
    }
    this.#leave();
    this.#guest = guest;
    this.verdict = verdict;
    this.#settings.onVerdict?.(verdict);
    return guest;
  }

  #leave() {
    this.#guest?.close();
    this.#guest = undefined;
    this.verdict = null;
  }

  /** Goes to the guest's origin alone, with no credential, and follows no redirect. */
  async #send(target, init) {
    const response = await this.#outside(this.#origin + target, {
      ...init, redirect: "manual", credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer",
    });
    if (response.type === "opaqueredirect" || response.status >= 300 && response.status < 400)
      throw new GuestError("unavailable", "asking guest: somebody on the way redirects, which is not followed");
    return response;
  }

  /** fetch, sealed to the guest: of the URL, which must be the guest's, path and query count, the query inside the envelope alone; of the header what a guest needs. The body ends
   * without an error when the answer came whole, and is proven where it has to be; nothing goes out in the clear, whatever happens. */
  async fetch(input, init) {
    const request = input instanceof Request ? new Request(input, init) : new Request(new URL(input, this.#origin), init);
    const url = new URL(request.url);
    if (url.origin !== this.#origin) throw new GuestError("refused", `the request is for ${url.origin}, and the guest is ${this.#origin}`);
    const signal = request.signal;
    signal.throwIfAborted();
    const header = [...request.headers].flat();
    const body = new Uint8Array(await request.arrayBuffer());
    let stale;
    for (let i = 0; i <= maxRekeys; i++) {
      const guest = await this.#current(stale, signal);
      const call = guest.seal({ method: request.method, path: url.pathname, query: url.search.slice(1), header, body });
      if (call.error) throw failure(call.error);
      let kept = false;
      try {
        let response;
        try {
          response = await this.#send(url.pathname, {
            method: "POST", body: call.sealed, signal, headers: { "Content-Type": call.type, [call.keyHeader]: call.key },
          });
        } catch (error) {
          signal.throwIfAborted();
          throw unavailable("asking guest", error);
        }
        // Firefox asks again by itself after a 421 (whoever shares an address may hold the key), and then names the types of both answers. What is
        // believed is the envelope alone.
        if (response.status !== 200 || response.headers.get("Content-Type")?.split(",").at(-1).trim() !== call.answerType) {
          const clear = call.clear(response.status, await bounded(response, maxClearBytes).catch(() => new Uint8Array()));
          if (!clear.rekey) throw failure(clear.error);
          stale = guest;
          continue;
        }
        const opened = await this.#open(call, response, signal);
        kept = true;
        return opened;
      } finally {
        if (!kept) call.close();
      }
    }
    throw new GuestError("unavailable", `asking guest: it does not hold the key that it has just shown, ${maxRekeys + 1} times in a row`);
  }

  /** Makes a Response of an answer, once its header is there. */
  async #open(call, response, signal) {
    const reader = response.body.getReader();
    let settled = false;
    const next = async () => {
      const { done, value } = await reader.read().catch((error) => { signal.throwIfAborted(); throw unavailable("reading answer", error); });
      if (settled) return { done };
      const piece = done ? call.end() : call.take(value);
      return { ...piece, done };
    };
    let piece;
    const waiting = [];
    do {
      piece = await next();
      if (piece.data?.length) waiting.push(piece.data);
      if (piece.error && !piece.head) { reader.cancel().catch(() => {}); throw failure(piece.error); }
    } while (!piece.head);
    let told;
    const proof = new Promise((resolve, reject) => { told = { resolve, reject }; });
    proof.catch(() => {}); // whoever asks for it hears
    const settle = (error) => {
      if (settled) return;
      settled = true;
      signal.removeEventListener("abort", left);
      const text = call.proof(this.#origin);
      call.close();
      if (text) { const p = JSON.parse(text); this.#settings.onProof?.(p); told.resolve(p); }
      else if (error) told.reject(error);
      else told.resolve(null);
    };
    let control;
    const left = () => {
      reader.cancel().catch(() => {});
      settle(signal.reason);
      control?.error(signal.reason);
    };
    signal.addEventListener("abort", left);
    const body = new ReadableStream({
      start(controller) { control = controller; },
      async pull(controller) {
        try {
          for (let passed = false; ;) {
            for (; waiting.length; passed = true) controller.enqueue(waiting.shift());
            if (piece.error && !passed) throw failure(piece.error); // an error takes away what is not read yet
            if (piece.done && !piece.error) { settle(); controller.close(); return; }
            if (passed) return;
            piece = await next();
            if (settled) return;
            if (piece.data?.length) waiting.push(piece.data);
          }
        } catch (error) {
          if (settled) return;
          reader.cancel().catch(() => {});
          settle(error);
          controller.error(error);
        }
      },
      cancel(reason) {
        reader.cancel(reason).catch(() => {});
        settle(new GuestError("unavailable", "reading answer: nobody waited for its end"));
      },
    }, { highWaterMark: 0 });
    const { status, header } = piece.head;
    const headers = new Headers();
    for (let i = 0; i < header.length; i += 2) headers.append(header[i], header[i + 1]);
    const empty = [204, 205, 304].includes(status);
    const opened = new Response(empty ? null : body, { status, headers });
    if (empty) { reader.cancel().catch(() => {}); settle(); }
    this.proofs.set(opened, proof);
    return opened;
  }

  /** The proof of an answer that fetch returned, once its body was read: null where the answer has none. */
  proof(response) { return this.proofs.get(response) ?? Promise.resolve(null); }

  /** Ends what the program keeps of the guest. */
  close() {
    this.#leave();
    this.#client.close();
  }
}

const verdictOf = (report) => new GuestError(report.verdict, report.reason, report);

const unavailable = (doing, error) => error instanceof GuestError ? error : new GuestError("unavailable", `${doing}: ${error?.message ?? error}`);

function within(signal, promise) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const left = () => reject(signal.reason);
    signal.addEventListener("abort", left, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", left));
  });
}

/** Reads a body of at most so many bytes. */
async function bounded(response, most) {
  const pieces = [];
  let size = 0;
  if (!response.body) return new Uint8Array();
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > most) { reader.cancel().catch(() => {}); throw new GuestError("unavailable", `an answer has more than ${most} bytes`); }
    pieces.push(value);
  }
  const all = new Uint8Array(size);
  let at = 0;
  for (const p of pieces) { all.set(p, at); at += p.length; }
  return all;
}

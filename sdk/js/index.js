// The SDK: connect verifies a guest, and guest.fetch talks to it sealed.
import "./wasm_exec.js";
import { Guest, GuestError, start } from "./core.js";
import { sha256 } from "./wasm.js";

export { GuestError };

let started;

/** Reads the program beside this file. */
async function read() {
  const url = new URL("./chrysalis.wasm.lzma", import.meta.url);
  if (url.protocol === "file:" && globalThis.process?.versions?.node) {
    const { readFile } = await import("node:fs/promises");
    return new Uint8Array(await readFile(url));
  }
  const response = await fetch(url);
  if (!response.ok) throw new GuestError("unavailable", `the verifier's program: ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** Verifies the guest at an origin. Throws a GuestError when it is not accepted; nothing but the question for evidence was sent then. */
export async function connect(origin, options) {
  started ??= read().then((packed) => start(packed, sha256));
  const api = await started.catch((error) => { started = undefined; throw error; });
  const settings = { ...options, policy: text(options?.policy), releaseList: bytes(options?.releaseList), seen: text(options?.seen) };
  const guest = new Guest(api, origin, settings);
  try {
    await guest.verify();
  } catch (error) {
    guest.close();
    throw error;
  }
  return guest;
}

const text = (v) => v === undefined || typeof v === "string" ? v : JSON.stringify(v);
const bytes = (v) => typeof v === "string" ? new TextEncoder().encode(v) : v;

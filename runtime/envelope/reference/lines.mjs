// Does what each line of JSON asks for, for the Go test beside it: bytes are hexadecimal, and what is refused is told as error.
import { createInterface } from "node:readline";
import * as envelope from "./envelope.mjs";
import * as mlkem from "./mlkem.mjs";

const unhex = (s) => new Uint8Array(Buffer.from(s, "hex")), hex = (bytes) => Buffer.from(bytes).toString("hex");
const utf8 = (bytes) => Buffer.from(bytes).toString("utf8"), bytes = (s) => new Uint8Array(Buffer.from(s, "utf8"));
let answer; // of the last request
const asks = {
  async keys({ seed }) { return { publicKey: hex((await envelope.keys(unhex(seed))).publicKey) }; },
  async openRequest({ seed, sealed, path }) {
    const opened = await envelope.openRequest(await envelope.keys(unhex(seed)), unhex(sealed), path);
    answer = opened.answer;
    return { header: opened.header, request: { ...opened.request, body: utf8(opened.request.body) } };
  },
  async sealAnswer({ status, header, pieces }) {
    return { sealed: hex(await envelope.sealAnswer(answer, { status, header, pieces: pieces.map(bytes) })) };
  },
  async sealRequest({ publicKey, epoch, instance, request }) {
    const sealed = await envelope.sealRequest({ publicKey: unhex(publicKey), epoch, instance }, { ...request, body: bytes(request.body) });
    answer = sealed.answer;
    return { sealed: hex(sealed.envelope), keyID: sealed.keyID };
  },
  async openAnswer({ sealed }) {
    const opened = await envelope.openAnswer(answer, unhex(sealed));
    return { status: opened.status, header: opened.header, content: utf8(opened.content) };
  },
  async decapsulate({ seed, ciphertext }) { return { secret: hex(mlkem.decapsulate(mlkem.keyPair(unhex(seed)), unhex(ciphertext))) }; },
  async encapsulate({ publicKey, random }) {
    const { secret, ciphertext } = mlkem.encapsulate(unhex(publicKey), unhex(random));
    return { secret: hex(secret), ciphertext: hex(ciphertext) };
  },
};
for await (const line of createInterface({ input: process.stdin })) {
  const { ask, ...rest } = JSON.parse(line);
  let said;
  try { said = await asks[ask](rest); } catch (e) { said = { error: e.message }; }
  process.stdout.write(JSON.stringify(said) + "\n");
}

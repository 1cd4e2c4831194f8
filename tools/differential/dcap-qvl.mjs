// Records what npm's @phala/dcap-qvl says of the vectors of attest/tdx:
//   CHRYSALIS_VECTORS=DIR go test -count=1 -run '^TestAgainstDcapQVL$' ./attest/tdx
//   (cd PACKAGE && npm install @phala/dcap-qvl@0.3.9)
//   node tools/differential/dcap-qvl.mjs PACKAGE/node_modules/@phala/dcap-qvl DIR > attest/tdx/testdata/dcap-qvl.json
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [folder, dir] = process.argv.slice(2).map((p) => resolve(p));
const require = createRequire(import.meta.url);
const { QuoteVerifier } = require(`${folder}/src/verify.js`);
const { version } = JSON.parse(readFileSync(`${folder}/package.json`));
const answers = {};
for (const [i, { name, time }] of JSON.parse(readFileSync(`${dir}/index.json`)).entries()) {
  const read = (suffix) => readFileSync(`${dir}/${i}.${suffix}`);
  const collateral = JSON.parse(read("json"));
  for (const member of ["root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"]) {
    collateral[member] = Array.from(Buffer.from(collateral[member], "hex"));
  }
  try {
    answers[name] = new QuoteVerifier(read("der")).verify(new Uint8Array(read("quote")), collateral, time).status;
  } catch {
    answers[name] = "refused";
  }
}
console.log(JSON.stringify({ version, answers }, null, 1));

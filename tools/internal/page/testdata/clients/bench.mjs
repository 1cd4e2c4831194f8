// How long a person waits: in the browser until a guest is accepted, from nothing; in Node for judging evidence, the first time and again, and for sealing 2 kB.
import { chromium } from "playwright-core";
import { connect } from "chrysalis-sdk";
import { readFileSync } from "node:fs";

const input = JSON.parse(readFileSync(0, "utf8"));
const browser = await chromium.connectOverCDP(input.DevTools);
const lowest = (all) => Math.min(...all);
const out = { cold: [], longest: [] };
for (let i = 0; i < 3; i++) {
  const page = await (await browser.newContext()).newPage();
  await page.addInitScript(() => {
    window.longest = 0;
    new PerformanceObserver((list) => { for (const e of list.getEntries()) window.longest = Math.max(window.longest, e.duration); }).observe({ type: "longtask", buffered: true });
  });
  const begun = Date.now();
  await page.goto(input.URL);
  await page.locator("#state.good").waitFor();
  out.cold.push(Date.now() - begun);
  out.longest.push(await page.evaluate(() => window.longest));
  await page.context().close();
}
const sealed = [];
let begun;
const judged = [];
let came;
const guest = await connect(input.Guest, { policy: input.Policy, roots: input.Roots, payer: input.Payer, onVerdict: () => judged.push(performance.now() - came),
  fetch: async (...args) => {
    if (begun) sealed.push(performance.now() - begun);
    begun = undefined;
    const response = await fetch(...args);
    came = performance.now(); // a guest makes one quote a second, so its own time is left out
    return response;
  } });
for (let i = 0; i < 5; i++) await guest.verify(true);
for (let i = 0; i < 30; i++) {
  begun = performance.now();
  await (await guest.fetch("/v1/chat/completions", { method: "POST", body: JSON.stringify({ model: "tiny", messages: [{ role: "user", content: "x".repeat(1900) }] }) })).text();
}
console.log(JSON.stringify({ cold: lowest(out.cold), first: judged[0], again: lowest(judged.slice(1)), longest: lowest(out.longest), seal: lowest(sealed) }));
console.log("passed");
process.exit(0);

// Shows the page to a browser in front of a guest, and asks it once: what it says is printed when it is proven.
import { launch } from "./launch.mjs";
import { readFileSync } from "node:fs";

const { Browser, URL, Payer, Prompt } = JSON.parse(readFileSync(0, "utf8"));
const browser = await launch(Browser);
const page = await (await browser.newContext({ locale: "en-GB" })).newPage();
page.setDefaultTimeout(90_000);
await page.goto(URL);
await page.locator("#state.good, #state.bad").waitFor();
const state = await page.locator("#state").textContent();
if (!state.startsWith("Accepted")) throw new Error(state);
await page.locator("#pay > summary").click();
await page.locator("#contract").fill(Payer);
await page.locator("#prompt").fill(Prompt);
await page.keyboard.press("Enter");
const answer = page.locator("#said article").nth(1);
await answer.locator("footer").filter({ hasNotText: "not proven yet" }).waitFor();
console.log(JSON.stringify({ Text: await answer.locator(".text").textContent(), Footer: await answer.locator("footer").textContent() }));
await browser.close();
console.log("passed");
process.exit(0);

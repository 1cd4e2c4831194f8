// Shows the page to a browser and does what people do.
import { launch } from "./launch.mjs";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const input = JSON.parse(readFileSync(0, "utf8"));
const isFirefox = Boolean(input.Browser.Firefox);
const browser = await launch(input.Browser);
const said = "The capital is \u001b[1mOslo.";

// open shows a page in a context of its own, and keeps whom it asked and what it said wrong.
async function open(url, how = {}) {
  if (process.env.STEPS) console.error("open", url);
  const context = await browser.newContext({ locale: "en-GB", acceptDownloads: true, ...how });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.asked = [];
  page.wrong = [];
  page.on("request", (r) => page.asked.push(r.url()));
  page.on("pageerror", (e) => page.wrong.push(String(e)));
  await page.addInitScript(() => {
    window.longest = 0;
    window.saved = [];
    const made = URL.createObjectURL;
    URL.createObjectURL = (blob) => { if (blob.type === "application/json") blob.text().then((text) => window.saved.push(text)); return made.call(URL, blob); };
    new PerformanceObserver((list) => { for (const e of list.getEntries()) window.longest = Math.max(window.longest, e.duration); }).observe({ type: "longtask", buffered: true });
    window.enabledBeforeVerdict = false;
    document.addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
      if (!document.getElementById("prompt").disabled && document.querySelectorAll("#lines > div").length < 5) window.enabledBeforeVerdict = true;
    }).observe(document.body, { subtree: true, attributes: true, childList: true }));
  });
  await page.goto(url);
  return page;
}
const accepted = (page) => page.locator("#state.good").waitFor({ timeout: 30_000 });
const refused = (page) => page.locator("#state.bad").waitFor({ timeout: 30_000 });
async function ask(page, text) {
  const before = await page.locator("#said article").count();
  await page.locator("#prompt").fill(text);
  await page.keyboard.press("Enter");
  return page.locator("#said article").nth(before + 1);
}
const footer = (answer, pattern) => answer.locator("footer").filter({ hasText: pattern }).waitFor({ timeout: 20_000 }).catch(async () => {
  assert.fail(`want ${pattern}, got ${(await answer.page().locator("article footer").allTextContents()).at(-1)}; the page says ${await answer.page().locator("#state").textContent()}, ${answer.page().wrong} ${JSON.stringify(await answer.page().evaluate(() => [document.getElementById("send").disabled, document.getElementById("prompt").value, document.getElementById("prompt").disabled, document.activeElement.id, document.querySelectorAll("#said article").length]))}`);
});
const out = {};
const shot = async (page, name) => { if (input.Shots) await page.screenshot({ path: `${input.Shots}/${name}.png`, fullPage: true }); };
const quiet = (page, guest) => {
  assert.deepEqual(page.wrong, []);
  for (const url of page.asked) assert.ok(url.startsWith("file:") || url.startsWith("blob:") || url.startsWith("data:") || [guest, input.Control].some((o) => url.startsWith(o + "/")), `asked ${url}`);
};

// Each platform, from a file; who judges them is one program, so the second browser is shown one.
for (const g of isFirefox ? input.Good.slice(0, 1) : input.Good) {
  const page = await open(g.URL);
  await accepted(page);
  const lines = await page.locator("#lines > div").allTextContents();
  assert.equal(lines.length, g.Platform === "sev-snp" ? 5 : 6, lines.join("\n"));
  assert.match(lines[0], /owner can read everything you type/); // a software root stands behind each of them
  assert.equal(await page.locator("#line-machine.bad").count(), 1);
  assert.match(lines[3], /Sealed to key [0-9a-f]{16},/);
  assert.match(lines[4], /A saved file/);
  assert.equal(await page.evaluate(() => window.enabledBeforeVerdict), false);
  if (g.Platform !== "sev-snp") { await page.locator("#pay > summary").click(); await page.locator("#contract").fill(input.Payer); }
  const answer = await ask(page, "What is the capital of Norway?");
  await footer(answer, "Proven: receipt");
  assert.equal(await answer.locator(".text").textContent(), said);
  if (g.Platform !== "sev-snp") await footer(answer, "Charged 240 nanoton");
  await page.locator("#rows > summary").click();
  await page.locator("#checks tr").first().waitFor();
  const reported = JSON.parse(await page.locator("#json").textContent());
  assert.equal(reported.platform, g.Platform);
  assert.equal(await page.locator("#checks tr").count(), reported.checks.length);
  const order = await page.locator("#checks tr").evaluateAll((rows) => rows.map((r) => r.className));
  assert.ok(order.lastIndexOf("waived") < order.indexOf("accepted"), "waived rows stand first");
  assert.deepEqual(await page.evaluate(async () => [localStorage.length, sessionStorage.length, document.cookie, (await indexedDB.databases()).length]), [0, 0, "", 0]);
  quiet(page, new URL(reported.url ?? input.Guest).origin === input.Guest && g.Platform !== "vtpm" ? page.asked.find((u) => u.startsWith("http")).match(/^http:\/\/[^/]+/)[0] : input.Guest);
  await page.context().close();
}

// A conversation: what a hostile model writes, a stop, a change of keys, steps back, what is not proven, and a reload.
{
  const page = await open(input.Talk);
  await accepted(page);
  await page.locator("#pay > summary").click();
  await page.locator("#contract").fill(input.Payer);
  const first = await ask(page, "What is the capital of Norway?");
  await footer(first, "Proven: receipt");
  await first.locator("button").click();
  await page.waitForFunction(() => window.saved.length > 0);
  [out.Receipt] = await page.evaluate(() => window.saved); // a browser that is driven from afar keeps no downloads

  const evil = await ask(page, "hostile");
  await footer(evil, "Proven: receipt");
  assert.equal(await evil.locator(".text").textContent(), input.Hostile);
  assert.equal(await page.locator("#said img, #said a, #said script, #said iframe").count(), 0);
  assert.notEqual(await page.title(), "x");

  const endless = await ask(page, "endless");
  await endless.locator(".text").filter({ hasText: "The capital is" }).waitFor();
  await footer(endless, "not proven yet");
  assert.ok(await page.locator("#send").isDisabled());
  await page.locator("#stop").click();
  await footer(endless, "Stopped");

  const key = async () => (await page.locator("#line-keyLine").textContent()).match(/Sealed to key ([0-9a-f]{16}),/)[1];
  const old = await key();
  await fetch(input.Control + "/rotate");
  const rotated = await ask(page, "after other keys");
  await footer(rotated, "Proven: receipt");
  assert.notEqual(await key(), old);
  await fetch(input.Control + "/elsewhere");
  const elsewhere = await ask(page, "another guest of this address");
  await footer(elsewhere, "Proven: receipt");

  const back = await ask(page, "step back");
  await footer(back, "Step back:");
  const unproven = await ask(page, "unproven");
  await footer(unproven, /NOT PROVEN\./);
  const declined = await ask(page, "decline");
  await footer(declined, "The guest declines: too long (400)");
  quiet(page, input.Talker);
  assert.ok(await page.locator("#said").evaluate((log) => log.scrollHeight > 2 * log.clientHeight && log.scrollHeight - log.scrollTop - log.clientHeight < 2), "the end of the conversation is in view");

  await shot(page, "conversation");

  // A script that somebody gets into the page does not run, and reaches nobody.
  assert.equal(await page.evaluate(() => new Promise((done) => {
    document.addEventListener("securitypolicyviolation", (e) => done(e.effectiveDirective));
    const s = document.createElement("script");
    try { s.textContent = "window.ran = true"; document.body.append(s); } catch { done("require-trusted-types-for"); }
  })), "require-trusted-types-for");
  assert.equal(await page.evaluate(() => window.ran), undefined);
  assert.equal(await page.evaluate(() => fetch("https://evil.example/").then(() => "sent", () => "blocked")), "blocked");

  await page.reload();
  await accepted(page);
  assert.equal(await page.locator("#said article").count(), 0);
  assert.equal(await page.locator("#contract").inputValue(), "");
  await page.context().close();
}

// From a site, which says what to ask; in the other language; on a phone, in the dark.
{
  const page = await open(input.Served, { locale: "ru-RU", colorScheme: "dark", viewport: { width: 360, height: 740 }, ...isFirefox ? {} : { isMobile: true } });
  await accepted(page);
  assert.match(await page.locator("#line-page").textContent(), /С этой машины/);
  assert.equal(await page.locator("html").getAttribute("lang"), "ru");
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), "wider than a phone");
  if (!isFirefox) assert.notEqual(await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor), "rgb(255, 255, 255)");
  await shot(page, "phone-dark-ru");
  assert.match(await page.locator("#line-program").textContent(), /подписан не менее чем 2 из 3, список от .*пересобран бит в бит не менее чем 1 из 2, ключи: [0-9a-f]{8}, [0-9a-f]{8}$/);
  await page.locator("#language").selectOption("en");
  assert.match(await page.locator("#line-program").textContent(), /signed by at least 2 of 3, list of .*rebuilt bit for bit by at least 1 of 2, of the keys/);
  assert.match(await page.locator("#state").textContent(), /^Accepted/);
  await page.context().close();
}

// From the proxy, which carries what the page seals, and asks for what the page asks.
{
  const page = await open(input.Proxied);
  await accepted(page);
  await page.locator("#pay > summary").click();
  await page.locator("#contract").fill(input.Payer);
  const answer = await ask(page, "What is the capital of Norway?");
  await footer(answer, "Proven: receipt");
  assert.equal(await answer.locator(".text").textContent(), said);
  assert.match(await page.locator("#line-page").textContent(), /From this machine/);
  for (const url of page.asked) assert.ok(/^(blob|data):/.test(url) || url.startsWith(input.Proxied), url);
  await page.context().close();
}

// The SDK as a site's own pages have it: a module, in a Worker.
{
  const page = await open(input.Framed);
  const got = await page.evaluate(async ({ origin, guest, settings, payer }) => {
    const text = `import { connect } from "${origin}/sdk/index.js";
      onmessage = async ({ data: { guest, settings, payer } }) => {
        try {
          const g = await connect(guest, { ...settings, payer });
          const r = await g.fetch("/v1/chat/completions", { method: "POST", headers: { "content-type": "application/json" },
            body: JSON.stringify({ model: "tiny", messages: [{ role: "user", content: "Norway?" }] }) });
          postMessage([g.verdict.verdict, (await r.json()).choices[0].message.content, (await g.proof(r)).outcome]);
        } catch (error) { postMessage([String(error)]); }
      };`;
    const worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })), { type: "module" });
    const said = new Promise((resolve) => { worker.onmessage = (m) => resolve(m.data); worker.onerror = (e) => resolve([e.message]); });
    worker.postMessage({ guest, settings, payer });
    return said;
  }, { origin: input.Control, guest: input.Guest, settings: await (await fetch(input.Control + "/page.json")).json(), payer: input.Payer });
  assert.deepEqual(got, ["accepted", said, "complete"]);
  await page.context().close();
}

// Each that must be refused: nothing can be typed, and no answer that is not the guest's is shown.
for (const [name, url, pattern] of [
  ["stale evidence", input.Stale, /NOT ACCEPTED.*challenge/], ["another program", input.Altered, /NOT ACCEPTED.*has SHA-256/], ["a broken program", input.Broken, /NOT ACCEPTED|Could not be checked/],
]) {
  const page = await open(url);
  await refused(page);
  assert.match(await page.locator("#state").textContent(), pattern, name);
  assert.ok(await page.locator("#prompt").isDisabled(), name);
  assert.equal(await page.locator("#lines > div").count(), 0, name);
  if (name === "stale evidence") {
    await page.locator("#rows > summary").click();
    assert.equal(await page.locator("#checks tr").first().getAttribute("class"), "rejected");
    await shot(page, "refused");
  }
  await page.context().close();
}
for (const [name, url, pattern] of [
  ["an unsealed answer", input.Unsealed, "somebody on the way says 200"], ["a redirect", input.Redirect, "which is not followed"], ["a cut answer", input.Cut, "ended early"],
]) {
  const page = await open(url);
  await accepted(page);
  await page.locator("#pay > summary").click();
  await page.locator("#contract").fill(input.Payer);
  const answer = await ask(page, "What is the capital of Norway?");
  await footer(answer, pattern);
  assert.ok(!(await page.locator("#said").textContent()).includes("Bergen"), name);
  assert.equal(await answer.locator("button").count(), 0, name);
  await page.context().close();
}
{
  const page = await open(input.Framed); // its own header would refuse it; here the page has to
  const frame = page.frameLocator("iframe");
  await frame.locator("#state.bad").waitFor();
  assert.match(await frame.locator("#state").textContent(), /frame of another page/);
  assert.ok(await frame.locator("#prompt").isDisabled());
  await page.context().close();
}
{
  const page = await open(input.Bare);
  assert.match(await page.locator("#state").textContent(), /Name a guest/);
  assert.ok(await page.locator("#prompt").isDisabled());
  // Every field and button has a name for who can't see it.
  const nameless = await page.locator("input, textarea, select, button").evaluateAll((all) => all.filter((e) => !e.hidden && !(e.textContent.trim() || e.labels?.[0]?.textContent.trim())).map((e) => e.id));
  assert.deepEqual(nameless, []);
  await page.context().close();
}
await browser.close();
console.log(JSON.stringify(out));
console.log("passed");
process.exit(0);

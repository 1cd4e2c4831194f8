"use strict";
// The page: what is shown, and what is typed. It believes the Worker, which verifies, and shows text as text.
(() => {
const words = {{WORDS}};
const sha256 = {{SHA256}};
const workerText = {{WORKER}};

const $ = (id) => document.getElementById(id);
const built = JSON.parse($("settings").textContent);
let language = Object.keys(words).find((l) => navigator.language.startsWith(l)) ?? "en";
const word = (name, ...with_) => with_.reduce((text, v, i) => text.replaceAll(`{${i}}`, v), words[language][name]);

const element = (name, props = {}, ...inside) => {
  const e = Object.assign(document.createElement(name), props);
  e.append(...inside);
  return e;
};
const saved = (name, type, ...parts) => {
  const url = URL.createObjectURL(new Blob(parts, { type }));
  const a = element("a", { href: url, download: name });
  a.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
};
const hexOf = async (bytes) => Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)), (b) => b.toString(16).padStart(2, "0")).join("");

// What is known. Of all this nothing is stored.
let settings = null, policyFrom = "", origin = "", verdict = null, failure = null, listIssued = "", key = "", working = false, said = [], turn = 0, current = null;

let makeURL = (url) => url;
if (globalThis.trustedTypes) { const types = trustedTypes.createPolicy("worker", { createScriptURL: (url) => url }); makeURL = (url) => types.createScriptURL(url); }
let worker;
function startWorker() {
  const url = URL.createObjectURL(new Blob([workerText], { type: "text/javascript" }));
  worker = new Worker(makeURL(url));
  worker.onmessage = ({ data }) => hear[data.op](data);
  worker.onerror = () => hear.failed({ error: { verdict: "unavailable", reason: "the Worker did not start" } });
}

const hear = {
  verdict(m) {
    ({ listIssued, key } = m);
    verdict = m.report.verdict === "accepted" ? m.report : null;
    failure = verdict ? null : { verdict: m.report.verdict, reason: m.report.reason, report: m.report };
    working = false;
    show();
  },
  ready(m) { document.body.dataset.took = String(m.took); },
  failed(m) { verdict = null; failure = m.error; working = false; show(); },
  piece(m) { const a = said.find((s) => s.id === m.id); a.content += m.content; a.reasoning += m.reasoning; paint(a, m); },
  end(m) { finish(m.id, { proof: m.proof }); },
  declined(m) { finish(m.id, { declined: `${m.message || "HTTP"} (${m.status})` }); },
  broken(m) {
    finish(m.id, { error: m.error, proof: m.proof });
    if (m.error.report) hear.failed(m);
  },
};

function finish(id, how) {
  const a = said.find((s) => s.id === id);
  Object.assign(a, how, { done: true });
  if (current === id) current = null;
  foot(a);
  enable();
}

// --- What is verified.
const known = (line, state, ...paragraphs) => element("div", { className: state, id: `line-${line}` }, element("dt", { textContent: word(line) }),
  element("dd", {}, ...paragraphs.filter(Boolean).map((p) => element("p", { textContent: p }))));

function lines(v) {
  const soft = v.weaknesses.some((w) => w.includes("software's"));
  const list = JSON.parse(settings.policy).release_list;
  const when = (text) => new Date(text).toLocaleString(language);
  const place = location.protocol === "file:" ? word("fromFile") :
    word(["localhost", "127.0.0.1", "[::1]"].includes(location.hostname) ? "fromLocal" : "fromSite", location.origin);
  const m = v.service.model, price = v.service.price;
  const all = [
    known("machine", v.platform === "vtpm" || soft ? "bad" : "good", word(v.platform), soft && v.platform !== "vtpm" && word("software"),
      v.weaknesses.some((w) => w.startsWith("any machine")) && word("anyMachine"), `${word("machineId")}: ${v.machine}`),
    known("program", "good", `${word("release")}: ${v.release} (${v.security_version})`,
      list?.signers?.length ? word("signed", list.threshold, list.signers.length, when(listIssued)) : word("byPolicy"),
      list?.rebuilders?.length ? word("rebuilt", list.rebuild_threshold, list.rebuilders.length, list.rebuilders.map((k) => k.slice(0, 8)).join(", ")) : word("notRebuilt")),
    known("model", "good", m.name, `${word("weights")}: ${m.volume.root}`),
    known("keyLine", "good", `${word("sealedTo")} ${key}, ${word("until")} ${when(v.not_after)}`, word("seen")),
    known("page", location.protocol === "file:" ? "good" : "note", place, word("policyFrom", word(policyFrom)), word("builtAs", sha256)),
  ];
  if (price.payment === "charge") all.push(known("money", "note", word("charged", price.nanoton_per_token)));
  return all;
}

function show() {
  const state = $("state");
  const report = verdict ?? failure?.report;
  state.className = verdict ? "good" : failure ? "bad" : "";
  state.textContent = working ? word("working") : verdict ? word("accepted") :
    failure ? `${word(failure.verdict === "unavailable" ? "notFound" : "notAccepted")} ${failure.reason}` : settings ? "" : word("want2");
  $("lines").replaceChildren(...(verdict ? lines(verdict) : []));
  rows();
  $("save-verdict").disabled = !report;
  enable();
}

// rows shows every check, refused and waived first, to who has asked for them: the first lines stand sooner.
function rows() {
  if (!$("rows").open) return;
  const report = verdict ?? failure?.report;
  const order = { rejected: 0, waived: 1, accepted: 2 };
  const checks = [...(report?.checks ?? [])].sort((a, b) => order[a.verdict] - order[b.verdict]);
  $("checks").replaceChildren(...checks.map((c) => element("tr", { className: c.verdict },
    ...[c.name, c.verdict, c.got, c.want].map((textContent) => element("td", { textContent })))));
  $("json").textContent = jsonOf(report);
}
const jsonOf = (report) => report ? JSON.stringify(report, null, 2) : "";

// enable lets somebody type when the lines stand, and not before.
function enable() {
  const ready = Boolean(verdict) && !working;
  $("prompt").disabled = !ready;
  $("send").disabled = !ready || current !== null;
  $("stop").disabled = current === null;
  $("save-said").disabled = said.length === 0;
}

function translate() {
  document.documentElement.lang = language;
  for (const e of document.querySelectorAll("[data-word]")) e.textContent = word(e.dataset.word);
  $("said").setAttribute("aria-label", word("chat"));
  for (const a of said) { a.title.textContent = word(a.role === "user" ? "you" : "it"); if (a.role !== "user") foot(a); }
  show();
}

function connect() {
  working = true;
  verdict = failure = null;
  show();
  worker.postMessage({ op: "connect", program: $("program").textContent, sha256, origin, settings });
}

// --- What is said.
function entry(role, content) {
  const a = { id: ++turn, role, content, reasoning: "", title: element("h3"), thought: element("div", { className: "thought" }),
    text: element("div", { className: "text", textContent: content }), footer: element("footer") };
  a.title.textContent = word(role === "user" ? "you" : "it");
  said.push(a);
  following(() => $("said").append(element("article", {}, a.title, a.thought, a.text, a.footer)), role === "user");
  return a;
}

// following adds to the conversation, whose end stays in view where it was, or comes into view.
function following(add, anyway = false) {
  const log = $("said"), atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  add();
  if (atEnd || anyway) log.scrollTop = log.scrollHeight;
}

function paint(a, m) {
  following(() => { a.text.append(m.content); a.thought.append(m.reasoning); });
}

function foot(a) {
  const name = a.proof?.name.slice(0, 16);
  const rows = [];
  if (!a.done) rows.push(word("waiting"));
  else if (a.declined) rows.push(word("declined", a.declined));
  else if (a.error?.verdict === "stopped") rows.push(word("stopped"));
  else if (a.error?.verdict === "unavailable") rows.push(a.proof ? word("cutProven", name) : word("cut", a.error.reason));
  else if (a.error) rows.push(word("notProven", a.error.reason));
  else if (a.proof) rows.push(word("proven", name, a.proof.sequence, a.proof.usage.prompt_tokens + a.proof.usage.completion_tokens));
  if (a.proof?.charge) rows.push(word("chargedNow", a.proof.charge.nanoton, a.proof.charge.tokens));
  for (const step of a.proof?.steps_back ?? []) rows.push(word("back", step));
  a.footer.className = a.done && !a.error && !a.declined && !a.proof?.steps_back.length ? "" : "warn";
  const shown = rows.map((textContent) => element("div", { textContent }));
  if (a.proof) {
    const button = element("button", { type: "button", textContent: word("saveReceipt") });
    button.onclick = () => saved(`receipt-${name}.json`, "application/json", JSON.stringify(a.proof.bundle) + "\n");
    shown.push(button);
  }
  following(() => a.footer.replaceChildren(...shown));
}

$("ask").onsubmit = (event) => {
  event.preventDefault();
  const prompt = $("prompt").value;
  if (!verdict || current !== null || prompt.trim() === "") return;
  entry("user", prompt);
  const messages = said.filter((s) => s.role === "user" || s.content).map(({ role, content }) => ({ role, content }));
  const a = entry("assistant", "");
  foot(a);
  current = a.id;
  $("prompt").value = "";
  enable();
  const header = {};
  if ($("contract").value) header["chrysalis-client"] = $("contract").value.trim();
  if ($("key").value) header.authorization = `Bearer ${$("key").value}`;
  worker.postMessage({ op: "ask", id: a.id, header, body: JSON.stringify({ model: verdict.service.model.name, messages, stream: true }) });
};
$("prompt").onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); $("ask").requestSubmit(); } };
$("stop").onclick = () => { if (current !== null) worker.postMessage({ op: "stop", id: current }); };
$("save-said").onclick = () => saved("conversation.json", "application/json", JSON.stringify(said.map(({ role, content }) => ({ role, content })), null, 2) + "\n");

$("rows").ontoggle = rows;
$("save-verdict").onclick = () => saved("verdict.json", "application/json", jsonOf(verdict ?? failure?.report) + "\n");
$("save-page").onclick = async () => {
  const page = await (await fetch(location.href, { cache: "no-store" })).arrayBuffer();
  $("page-sum").textContent = await hexOf(page);
  saved("chrysalis.html", "text/html", page);
};
$("connect").onsubmit = async (event) => {
  event.preventDefault();
  const read = async (id) => $(id).files[0] ? await $(id).files[0].text() : undefined;
  const policy = await read("policy");
  if (policy === undefined && !settings) return show();
  if (policy !== undefined) { settings = { policy, roots: { vtpm: await read("roots") ?? "" }, releaseList: await read("list") }; policyFrom = "byYou"; }
  try { origin = new URL($("guest").value).origin; } catch { return; }
  connect();
};
$("language").append(...Object.entries(words).map(([value, w]) => element("option", { value, textContent: w.name })));
$("language").value = language;
$("language").onchange = () => { language = $("language").value; translate(); };

async function begin() {
  translate();
  if (window.top !== window.self) {
    $("state").className = "bad";
    $("state").textContent = word("framed");
    $("setup").hidden = true;
    return;
  }
  startWorker();
  const web = location.protocol === "http:" || location.protocol === "https:";
  $("save-page").hidden = !web;
  if (built.policy) { settings = built; policyFrom = "inFile"; }
  else if (web) {
    // Whoever serves the page may say what it asks: he could as well have served another page.
    try {
      const response = await fetch("/page.json", { cache: "no-store", redirect: "error" });
      if (response.ok) { Object.assign(built, await response.json()); settings = built; policyFrom = "fromOwn"; }
    } catch { /* nobody says so */ }
  }
  if (settings && !settings.guest && web) settings.guest = location.origin;
  $("contract").value = settings?.payer ?? "";
  origin = settings?.guest ?? built.guest ?? "";
  $("guest").value = origin;
  if (built.guest) $("guest").readOnly = true;
  $("setup").open = !(settings && origin);
  if (settings && origin) connect(); else show();
}
begin();
})();

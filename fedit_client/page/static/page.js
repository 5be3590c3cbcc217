"use strict";
// Text only ever becomes text: nothing that a server or a model says is read as markup.

const part = (id) => document.getElementById(id);
const LOOK_EVERY_MS = 2000;
const WORDS = { stopped: "not running", starting: "starting", waiting: "idle", paused: "paused", round: "in a round" };
const key = keptKey();
let conversation = [];
let answering = null;

// The key that opened this page: kept for this tab and this port only, and never left in the address.
function keptKey() {
  const given = document.querySelector('meta[name="fedit-key"]');
  if (given) {
    sessionStorage.setItem("fedit-key", given.content);
    given.remove();
    history.replaceState(null, "", "/");
  }
  return sessionStorage.getItem("fedit-key") || "";
}

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function time(seconds) {
  return new Date(seconds * 1000).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
}

function size(bytes) {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function fill(id, heads, rows, none) {
  const table = part(id);
  const said = JSON.stringify(rows);
  if (table.dataset.said === said) return;
  table.dataset.said = said;
  table.replaceChildren();
  if (rows.length === 0) {
    const cell = element("td", none);
    const row = document.createElement("tr");
    row.append(cell);
    table.append(row);
    return;
  }
  const head = document.createElement("tr");
  for (const name of heads) {
    const cell = element("th", name);
    cell.scope = "col";
    head.append(cell);
  }
  table.append(head);
  for (const values of rows) {
    const row = document.createElement("tr");
    for (const value of values) row.append(element("td", value === null || value === undefined ? "–" : String(value)));
    table.append(row);
  }
}

function lines(place, texts) {
  const said = texts.join("\n");
  if (place.dataset.said === said) return;
  place.dataset.said = said;
  place.replaceChildren(...texts.map((text) => element("p", text)));
}

function show(state) {
  const standing = state.standing || {};
  part("title").textContent = standing.title || "FedIT on this machine";
  part("task").textContent = standing.joined
    ? `${standing.task}, ${standing.mode}, at ${standing.server}; ${standing.rounds} of ${standing.rounds_planned} rounds with this device`
    : "nothing is joined yet: fedit-client join --server 'fedit://…'";
  const now = state.now || { activity: "stopped", lines: [] };
  part("badge").textContent = WORDS[now.activity] || now.activity;
  part("badge").dataset.activity = now.activity;
  lines(part("doing"), now.lines);
  part("progress").hidden = now.progress === null || now.progress === undefined;
  part("progress").value = now.progress || 0;
  part("pause").disabled = part("pause-hour").disabled = Boolean(now.paused);
  part("resume").disabled = !now.paused && !now.finishing;
  part("finish").disabled = !now.running || Boolean(now.finishing);
  part("problems").replaceChildren(...state.problems.map((problem) =>
    element("p", `${problem.code}: ${problem.message}${problem.fix ? ` — ${problem.fix}` : ""}`, "trouble")));
  fill("rounds", ["When", "Round", "Outcome", "Devices", "Hidden among", "Adapter", "Up", "Down"],
    (state.rounds || []).map((one) => [time(one.at), one.round, one.reason ? `${one.outcome}: ${one.reason}` : one.outcome,
      one.devices, one.honest, one.adapter, size(one.up), size(one.down)]), "No round yet.");
  fill("adapters", ["Adapter"], (state.adapters || []).map((one) => [one.line]), "No adapter yet.");
  fill("outbox", ["No.", "When", "Round", "Size", "To", "What became of it"],
    (state.outbox || []).map((one) => [one.number, time(one.at), one.round, size(one.bytes), one.receiver, one.fate]),
    state.outbox === null ? "You keep no outbox: fedit-client set privacy.outbox=true" : "Nothing was uploaded yet.");
}

async function look() {
  try {
    const answer = await fetch("/state.json", { cache: "no-store", headers: { "X-Fedit-Key": key } });
    if (answer.ok) show(await answer.json());
    else part("told").textContent = "this page is closed, or was opened in another tab; start fedit-client ui again";
  } catch {
    part("told").textContent = "the command behind this page has ended; start fedit-client ui again";
  }
}

function send(path, body, signal) {
  return fetch(path, {
    method: "POST", signal, body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-Fedit-Key": key },
  });
}

async function change(path, body, done) {
  const answer = await send(path, body);
  const said = await answer.json().catch(() => ({}));
  part("told").textContent = answer.ok ? done : `${said.code || ""} ${said.message || "this could not be done"}`.trim();
  await look();
}

function answered(place, said) {
  if (said.piece) place.textContent += said.piece;
  if (said.error) {
    place.textContent += `${said.error.code}: ${said.error.message}`;
    place.classList.add("trouble");
  }
}

async function ask(question) {
  conversation.push({ role: "user", content: question });
  part("talk").append(element("p", question, "user"));
  const place = element("p", "", "assistant");
  part("talk").append(place);
  answering = new AbortController();
  part("send").disabled = true;
  part("stop").hidden = false;
  try {
    const answer = await send("/chat", { messages: conversation }, answering.signal);
    if (!answer.ok) throw new Error("this could not be asked");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (let next = await reader.read(); !next.done; next = await reader.read()) {
      const pieces = (rest + next.value).split("\n");
      rest = pieces.pop();
      for (const piece of pieces) answered(place, JSON.parse(piece));
      part("talk").scrollTop = part("talk").scrollHeight;
    }
  } catch (error) {
    if (error.name !== "AbortError") place.textContent += ` (${error.message})`;
  }
  if (place.textContent && !place.classList.contains("trouble")) {
    conversation.push({ role: "assistant", content: place.textContent });
  } else if (conversation.length && conversation[conversation.length - 1].role === "user") {
    conversation.pop(); // a question without an answer: turns have to alternate
  }
  answering = null;
  part("send").disabled = false;
  part("stop").hidden = true;
  part("question").focus();
}

part("pause").addEventListener("click", () => change("/pause", {}, "paused, until you resume"));
part("pause-hour").addEventListener("click", () => change("/pause", { minutes: 60 }, "paused for an hour"));
part("resume").addEventListener("click", () => change("/resume", {}, "no pause is asked for any more"));
part("finish").addEventListener("click", () => change("/finish", {}, "stops after this round"));
part("stop").addEventListener("click", () => answering && answering.abort());
part("anew").addEventListener("click", () => {
  if (answering) answering.abort();
  conversation = [];
  part("talk").replaceChildren();
  part("question").focus();
});
part("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = part("question").value.trim();
  if (!question || answering) return;
  part("question").value = "";
  ask(question);
});
part("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    part("ask").requestSubmit();
  }
});
look();
setInterval(look, LOOK_EVERY_MS);

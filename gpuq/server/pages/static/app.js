// Keeps a page as it is in the queue: asks again when the daemon says that something has changed, and puts what is new
// in place of what is old. Without this script every page is whole and works.

const main = document.getElementById("main");
const stale = document.getElementById("stale");

// -- logging in: the secret stands behind the #, where no server and no log sees it ----------------------------------

const login = document.getElementById("login");
if (login && location.hash.length > 1) {
  const code = location.hash.slice(1);
  history.replaceState(null, "", location.pathname + location.search);
  login.elements.code.value = code;
  login.elements.token.required = false;
  login.submit();
}

// -- times in the reader's zone ----------------------------------------------------------------------------------------

// As the command line writes them; this locale is the one that writes 2026-11-28 14:05.
const sameDay = new Intl.DateTimeFormat("sv-SE", { hour: "2-digit", minute: "2-digit" });
const otherDay = new Intl.DateTimeFormat("sv-SE", {
  year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit",
});

function tellTimes() {
  const today = new Date().toDateString();
  for (const element of document.querySelectorAll("time[datetime]")) {
    const at = new Date(element.dateTime);
    const text = (at.toDateString() === today ? sameDay : otherDay).format(at);
    if (element.textContent !== text) element.textContent = text;
    if (!element.title) element.title = element.dateTime;
  }
}
tellTimes();

// -- asking again --------------------------------------------------------------------------------------------------------

const EVERY_MS = 1000;
let etag = null;
let asking = false;
let wanted = false;

async function again() {
  wanted = true;
  if (asking || document.hidden) return;
  asking = true;
  try {
    while (wanted && !document.hidden) {
      wanted = false;
      await askOnce();
      await new Promise((done) => setTimeout(done, EVERY_MS));
    }
  } finally {
    asking = false;
  }
}

async function askOnce() {
  const headers = { "X-Gpuq-Part": "main" };
  if (etag) headers["If-None-Match"] = etag;
  let answer;
  try {
    answer = await fetch(location.href, { headers, cache: "no-store" });
  } catch {
    stale.hidden = false;
    return;
  }
  if (answer.status === 401) location.reload();
  if (answer.status === 304) stale.hidden = true;
  if (answer.status >= 500) stale.hidden = false;
  if (!answer.ok) return;
  etag = answer.headers.get("ETag");
  await htmx.swap({ target: "#main", swap: "innerMorph", text: await answer.text() });
  stale.hidden = true;
  tellTimes();
  followLog();
}

// What somebody fills in must not change under his hands.
const live = document.body.hasAttribute("data-live") && !document.querySelector("main form.form, main input[name=sure]");
let told = null;
let lost = false;

function hear(what) {
  if (what === "error") {
    lost = true;
    stale.hidden = false;
  } else if (what === "changed" || lost) {
    lost = false;
    again();
  }
}

function listen() {
  if (document.hidden || !live) return;
  if (!told) {
    told = new SharedWorker("/ui/static/stream.js").port;
    told.addEventListener("message", (event) => hear(event.data));
    told.start();
  }
  told.postMessage("look");
}

function leave() {
  if (told) told.postMessage("leave");
}

// -- output as it comes --------------------------------------------------------------------------------------------------

const MOST_LINES = 5000;
let log = null;
let lines = null;

function followLog() {
  const pane = document.querySelector("pre.log");
  if (pane === log) return;
  if (lines) lines.close();
  log = pane;
  lines = null;
  if (!pane) return;
  pane.scrollTop = pane.scrollHeight;
  if (pane.dataset.final !== "yes" && !document.hidden) openLog();
}

function openLog() {
  const [whole, rest] = log.children;
  const pane = log;
  lines = new EventSource(pane.dataset.last ? `${pane.dataset.stream.split("?")[0]}?${pane.dataset.last}` : pane.dataset.stream);
  lines.addEventListener("log", (event) => {
    const told = JSON.parse(event.data);
    const [attempt, offset] = event.lastEventId.split(":");
    pane.dataset.last = `attempt=${attempt}&offset=${offset}`;
    const follows = pane.scrollTop + pane.clientHeight >= pane.scrollHeight - 30;
    const piece = document.createElement("template");
    piece.innerHTML = told.lines;
    whole.append(piece.content);
    rest.innerHTML = told.rest;
    trim(whole);
    if (follows) pane.scrollTop = pane.scrollHeight;
  });
  lines.addEventListener("attempt", () => location.reload());
  lines.addEventListener("end", () => { lines.close(); pane.dataset.final = "yes"; again(); });
}

function trim(whole) {
  while (whole.childNodes.length > MOST_LINES) whole.firstChild.remove();
}

// -- a hidden tab holds no connection --------------------------------------------------------------------------------------

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    leave();
    if (lines) lines.close();
    lines = null;
  } else {
    listen();
    if (live) again();
    if (log && !lines && log.dataset.final !== "yes") openLog();
  }
});
window.addEventListener("pagehide", leave);
window.addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
listen();
followLog();

// -- keys ----------------------------------------------------------------------------------------------------------------

const PLACES = { n: "/", s: "/ui/submit", h: "/ui/history", d: "/ui/dead" };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea, select")) return;
  if (!document.body.hasAttribute("data-live")) return;
  if (PLACES[event.key]) location.assign(PLACES[event.key]);
  else if (event.key === "?") document.getElementById("keys").showModal();
  else if (event.key === "/") { const field = document.querySelector(".filter input"); if (field) { event.preventDefault(); field.focus(); } }
  else if (event.key === "j" || event.key === "k") step(event.key === "j" ? 1 : -1);
});

function step(by) {
  const links = [...main.querySelectorAll("td a.job")];
  const at = links.indexOf(document.activeElement);
  const next = links[at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by];
  if (next) next.focus();
}

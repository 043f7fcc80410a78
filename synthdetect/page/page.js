"use strict";
// Sends each picture to /invocations by itself, so that a broken one spoils no other, and asks
// /inspect for the details when they are opened. Names and texts are only ever set as text.

const AT_ONCE = 2; // requests for verdicts
const TRIES = 6; // of a request that the server is too busy for
const byId = (id) => document.getElementById(id);
const status = byId("status");
const results = byId("results");

let detector = null;
let entries = [];
let running = 0;
let announcing = 0;

const number = (value) => value.toFixed(2);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// Names may hold control characters, or marks that turn the direction of text around.
function visible(text) {
  return text.replace(/[\p{Cc}\p{Cs}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu,
    (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

async function request(path, options, signal) {
  for (let attempt = 1; ; attempt++) {
    let answer;
    try {
      answer = await fetch(path, { ...options, signal });
    } catch (error) {
      if (signal && signal.aborted) throw error;
      throw new Error("The server cannot be reached.");
    }
    if (answer.ok) return answer.json();
    if ((answer.status === 429 || answer.status === 503) && attempt < TRIES) {
      await pause(500 * attempt);
      continue;
    }
    let reason = `The server answered ${answer.status}.`;
    try {
      reason = String((await answer.json()).message).replace(/^row 0: /, "");
    } catch { /* no reason was given */ }
    throw new Error(reason);
  }
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error("This cannot be read; a folder cannot be dropped."));
    reader.readAsDataURL(file);
  });
}

// --- the list

function add(files) {
  const added = [...files].map((file) => {
    const item = byId("result").content.cloneNode(true).querySelector("li");
    const part = (selector) => item.querySelector(selector);
    const entry = { file, item, part, state: "waiting", stop: new AbortController(), url: "" };
    part(".name").textContent = visible(file.name) || "pasted picture";
    part(".answer").classList.add("pending");
    part(".remove").setAttribute("aria-label", `Remove ${part(".name").textContent}`);
    part(".remove").addEventListener("click", () => remove(entry));
    part("details").addEventListener("toggle", () => inspect(entry));
    results.append(item);
    return entry;
  });
  entries.push(...added);
  byId("clear").hidden = entries.length === 0;
  const alone = added.length === 1;
  for (const entry of added) entry.alone = alone;
  announce();
  work();
}

function remove(entry) {
  const next = entry.item.nextElementSibling || entry.item.previousElementSibling;
  entry.stop.abort();
  if (entry.url) URL.revokeObjectURL(entry.url);
  entry.item.remove();
  entries = entries.filter((other) => other !== entry);
  byId("clear").hidden = entries.length === 0;
  (next ? next.querySelector(".remove") : byId("files")).focus();
  announce();
}

function work() {
  while (running < AT_ONCE) {
    const entry = entries.find((other) => other.state === "waiting");
    if (!entry) return;
    entry.state = "asked";
    running++;
    judge(entry)
      .catch((error) => refuse(entry, error.message))
      .finally(() => {
        running--;
        announce();
        work();
      });
  }
}

async function judge(entry) {
  entry.part(".answer").textContent = "scoring …";
  if (detector && entry.file.size > detector.max_mib * 2 ** 20) {
    throw new Error(`The file has more than ${detector.max_mib} MiB.`);
  }
  const body = JSON.stringify({ inputs: { image: [await base64(entry.file)] } });
  const headers = { "Content-Type": "application/json" };
  const answer = await request("invocations", { method: "POST", headers, body }, entry.stop.signal);
  await introduced;
  show(entry, answer.predictions[0]);
}

function refuse(entry, reason) {
  entry.state = "refused";
  entry.part(".answer").className = "answer refused";
  entry.part(".answer").textContent = visible(reason);
}

function show(entry, found) {
  entry.state = "done";
  const words = { real: "real", synthetic: "synthetic", unsure: "unsure" };
  entry.word = words[found.label] || "unsure";
  const answer = entry.part(".answer");
  answer.className = `answer ${entry.word}`;
  answer.textContent = found.attributed && found.attributed !== "real"
    ? `${entry.word}, by ${visible(found.attributed)}` : entry.word;
  const band = detector ? detector.unsure : 0;
  const low = Math.max(0, found.threshold - band);
  const high = Math.min(1, found.threshold + band);
  const doubt = band ? `; band of doubt ${number(low)} to ${number(high)}` : "";
  const text = `probability of synthetic ${number(found.probability)}; threshold ${number(found.threshold)}${doubt}`;
  entry.part(".numbers").textContent = text;
  const scale = entry.part(".scale");
  scale.setAttribute("aria-label", text);
  entry.part(".band").style.left = `${100 * low}%`;
  entry.part(".band").style.width = `${100 * (band ? high - low : 0)}%`;
  entry.part(".threshold").style.left = `${100 * Math.min(1, found.threshold)}%`;
  entry.part(".mark").style.left = `${100 * found.probability}%`;
  scale.hidden = false;
  preview(entry);
  entry.part("details").hidden = false;
  if (entry.alone) entry.part("details").open = true;
}

// Only what the server could read, and so is not too large, is shown; the browser may not know it.
function preview(entry) {
  const image = entry.part(".preview");
  entry.url = URL.createObjectURL(entry.file);
  image.decoding = "async";
  image.loading = "lazy";
  image.addEventListener("error", () => { image.hidden = true; });
  image.src = entry.url;
  image.hidden = false;
}

// Screen readers hear the status; many changes at once are told as one.
function announce() {
  clearTimeout(announcing);
  announcing = setTimeout(() => {
    const finished = entries.filter((entry) => ["done", "refused"].includes(entry.state));
    if (entries.length === 0) status.textContent = "";
    else if (finished.length < entries.length) {
      status.textContent = `${finished.length} of ${entries.length} pictures scored`;
    } else if (entries.length === 1) {
      const [only] = entries;
      status.textContent = only.state === "done" ? `Answer: ${only.word}` : "The picture was refused";
    } else {
      const counts = ["synthetic", "unsure", "real"]
        .map((word) => [entries.filter((entry) => entry.word === word).length, word])
        .concat([[entries.filter((entry) => entry.state === "refused").length, "refused"]])
        .filter(([count]) => count);
      const told = counts.map(([count, word]) => `${count} ${word}`).join(", ");
      status.textContent = `${entries.length} pictures: ${told}`;
    }
  }, 150);
}

// --- the details of one picture

async function inspect(entry) {
  if (!entry.part("details").open || entry.inspected) return;
  entry.inspected = true;
  const inside = entry.part(".inside");
  try {
    const found = await request("inspect", { method: "POST", body: entry.file,
      headers: { "Content-Type": "application/octet-stream" } }, entry.stop.signal);
    inside.replaceChildren(detailsOf(found));
  } catch (error) {
    entry.inspected = false; // opening it again asks again
    const note = document.createElement("p");
    note.textContent = visible(error.message);
    inside.replaceChildren(note);
  }
}

function detailsOf(found) {
  const made = byId("details").content.cloneNode(true);
  const part = (selector) => made.querySelector(selector);
  part(".evidence").append(...found.evidence.map((picture) => figure(picture)));
  part(".without-map").textContent = found.without_map;
  part(".without-map").hidden = !found.without_map;
  part(".views").append(...found.views.map((view) =>
    figure(view.picture, `${view.picture.caption}: ${number(view.probability)}`)));
  part(".of-views").hidden = !found.views.length;
  part(".residuals").append(...found.residuals.map((picture) => figure(picture)));
  part(".of-residuals").hidden = !found.residuals.length;
  part(".rescored").append(...found.rescored.map((row) =>
    tableRow([row.change, number(row.probability), row.label])));
  const [own, ...changed] = found.rescored;
  const other = changed.filter((row) => row.label !== own.label).length;
  part(".stability").textContent = other
    ? `The answer is another in ${other} of ${changed.length} versions: it hangs on traces that such changes remove or add.`
    : `The answer is the same in all ${changed.length} versions.`;
  part(".traces").append(...facts(found.traces));
  return made;
}

function figure(picture, caption = picture.caption) {
  const made = document.createElement("figure");
  const image = document.createElement("img");
  image.src = `data:image/png;base64,${picture.png}`;
  image.alt = picture.caption;
  const text = document.createElement("figcaption");
  text.textContent = caption;
  made.append(image, text);
  return made;
}

function tableRow(cells) {
  const row = document.createElement("tr");
  cells.forEach((cell, place) => {
    const made = document.createElement(place ? "td" : "th");
    if (!place) made.scope = "row";
    made.textContent = cell;
    row.append(made);
  });
  return row;
}

function facts(list) {
  return list.flatMap((fact) => {
    const [name, value] = [document.createElement("dt"), document.createElement("dd")];
    name.textContent = fact.name;
    value.textContent = fact.value;
    return [name, value];
  });
}

// --- the card

function introduce(about) {
  detector = about;
  byId("detector").textContent = `${about.name} answers with the probability that a picture was `
    + `made by a generator: synthetic from ${number(about.threshold)} on`
    + (about.unsure ? `, and unsure within ${number(about.unsure)} of that.` : ".");
  byId("limits").append(...about.limits.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
  byId("measured").hidden = !about.measured.length;
  byId("measured").querySelector("tbody").append(...about.measured.map((row) => tableRow([
    `${row.generator} (${row.images} images of ${row.split})`,
    row.trained_on === null ? "not recorded" : row.trained_on ? "yes" : "no",
    (row.low === null ? "" : `${number(row.auc)} [${number(row.low)}, ${number(row.high)}], `) + row.verdict,
  ])));
  byId("facts").append(...facts(about.facts));
}

// --- choosing, dropping, pasting

byId("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
byId("chooser").addEventListener("submit", (event) => event.preventDefault());
byId("clear").addEventListener("click", () => {
  for (const entry of [...entries]) remove(entry);
  byId("files").focus();
});
document.addEventListener("paste", (event) => {
  const files = event.clipboardData ? event.clipboardData.files : [];
  if (files.length) add(files);
  else status.textContent = "There is no picture in the clipboard.";
});
let depth = 0; // dragenter and dragleave also come from the elements inside
document.addEventListener("dragenter", (event) => {
  event.preventDefault();
  depth++;
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => {
  depth--;
  if (depth <= 0) document.body.classList.remove("dragging");
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length) add(event.dataTransfer.files);
  else status.textContent = "Only files can be dropped here.";
});

const introduced = request("model", {}).then(introduce, (error) => { status.textContent = visible(error.message); });

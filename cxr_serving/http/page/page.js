const POLL_MS = 5000;
const LOOKS_A_MODEL = 12; // its report may come later than the model, and an operator may pin it
const KEY = "cxr-key";
// Matplotlib's "plasma" at five points: rises in lightness, so it reads without colour vision, too.
const PLASMA = [[13, 8, 135], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]];
const FIGURES = {
  accuracy: "Accuracy",
  macro_f1: "Macro F1",
  auroc_macro_ovr: "AUROC, macro, one vs rest",
};
const RUNTIMES = { onnx: "ONNX Runtime", "onnx-int8": "ONNX Runtime, 8-bit integers", torch: "PyTorch" };

const byId = (id) => document.getElementById(id);
const percent = (share) => { // no-break spaces
  if (share < 0.001) return "<0.1\u00a0%";
  return share > 0.999 ? ">99.9\u00a0%" : `${(100 * share).toFixed(1)}\u00a0%`;
};
const inWords = (name) => name.replaceAll("_", " ");
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

let model = null; // the answer of GET /model
let warning = null; // of GET /ready
let looks = 0;
let trouble = null; // why no model could be seen to serve, in words
let shown = null; // { file, name, url, answer }: image and result on the page belong together
let retry = null; // what goes on after an error
let drawn = null; // the class whose class activation map lies over the image
let asking = new AbortController();

class Problem extends Error {
  constructor(text, status, request = null) {
    super(text);
    this.status = status;
    this.reference = request === null ? "" : ` Request ${request}.`;
  }
}

function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

function say(text) {
  byId("news").textContent = text;
}

/** Hide something; focus that would be lost with it goes to `next`. */
function hide(what, next) {
  if (what.contains(document.activeElement)) next.focus();
  what.hidden = true;
}

async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  let answer;
  try {
    answer = await fetch(path, {
      ...options,
      cache: "no-store",
      headers: key === null ? {} : { Authorization: `Bearer ${key}` },
    });
    if (answer.ok) return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The service does not answer: it may be stopped, or the network down.", 0);
  }
  const body = await answer.json().catch(() => null);
  const wait = answer.headers.get("Retry-After");
  const { code = "", message = answer.statusText } = body?.error ?? {};
  const parts = [inPlainWords(answer.status, code, key !== null)];
  if (message && answer.status !== 401) parts.push(`The service says: “${message}”.`);
  if (wait) parts.push(`It asks to wait ${wait} s.`);
  throw new Problem(parts.join(" "), answer.status, answer.headers.get("X-Request-ID"));
}

function inPlainWords(status, code, withKey) {
  if (status === 401) {
    return withKey ? "The service does not accept this API key." : "The service asks for an API key.";
  }
  if (code === "not_explainable") return "This model can predict, but not show where it looked.";
  if (status === 400 || status === 422) return "The image cannot be read.";
  if (status === 403) return "This API key may not do that.";
  if (status === 408) return "The image took too long to arrive.";
  if (status === 413) return "The image is too large.";
  if (status === 415) return "This is no image of a kind the service reads.";
  if (status === 429 && code === "queue_full") return "Too many images are waiting.";
  if (status === 429) return "Too many requests in a short time.";
  if (status === 503 && code === "draining") return "The service is being stopped.";
  if (status === 503 && code === "stalled") return "The service does not keep up.";
  if (status === 503) return "No model serves yet.";
  if (status === 504) return "The service is too busy to answer in time.";
  return "The service failed.";
}

function upload(path, file, signal) {
  const body = new FormData();
  body.append("file", file);
  return call(path, { method: "POST", body, signal });
}

/** Show what went wrong and how to go on; everything else on the page stays. */
function complain(text, { status, reference }, again) {
  say("");
  byId("problem-text").textContent = text + reference;
  retry = again;
  byId("key-form").hidden = status !== 401;
  byId("again").hidden = [400, 401, 413, 415, 422, 501].includes(status);
}

function settle() {
  byId("problem-text").textContent = "";
  hide(byId("key-form"), byId("file"));
  hide(byId("again"), byId("file"));
  retry = null;
}

/** Run `work` in place of whatever was being asked; `lead` and `rest` enclose its error. */
async function ask(lead, work, rest = "") {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  settle();
  byId("result").setAttribute("aria-busy", "true");
  try {
    await work(signal);
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    complain(`${lead} ${error.message}${rest}`, error, () => ask(lead, work, rest));
  } finally {
    if (!signal.aborted) byId("result").removeAttribute("aria-busy");
  }
}

function classify(file) {
  // What the clipboard gives for a picture without a file behind it.
  const name = file.name || "pasted image";
  const kept = shown === null ? "" : ` The result on this page is still the one of ${shown.name} before.`;
  return ask(`${name} was not classified.`, async (signal) => {
    say(`Asking the model about ${name}…`);
    const answer = await upload("predict", file, signal);
    const url = await preview(file, signal);
    signal.throwIfAborted();
    show({ file, name, url, answer });
    await ask(`There is no class activation map of ${name}.`, (inner) => explain(answer.label, inner));
  }, kept);
}

/** An object URL of the image where the browser can show it, else null. */
async function preview(file, signal) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    signal.throwIfAborted();
    return url;
  } catch {
    URL.revokeObjectURL(url);
    return null;
  }
}

function show(result) {
  if (shown !== null && shown.url !== null) URL.revokeObjectURL(shown.url);
  shown = result;
  const { name, url, answer } = result;
  const [first, second] = Object.entries(answer.probabilities).sort((a, b) => b[1] - a[1]);
  const top = inWords(first[0]);
  const below = model === null ? "" : ` What is below ${percent(model.confidence)} counts as not sure.`;
  byId("result-heading").textContent = `Result for ${name}`;
  byId("verdict").textContent = answer.uncertain
    ? `The model is not sure: ${top} ${percent(first[1])}, ${inWords(second[0])} ${percent(second[1])}.${below}`
    : `Most probable: ${top}, ${percent(first[1])}.`;
  byId("verdict").classList.toggle("unsure", answer.uncertain);
  byId("bars").replaceChildren(
    ...Object.entries(answer.probabilities).map(([label, share]) => bar(label, share, label === answer.label)),
  );
  byId("maker").textContent =
    `Answered by model ${answer.model.version}${answer.model.synthetic ? ", trained on synthetic images" : ""}.`;
  byId("timings").textContent = timings(answer.timings);
  byId("empty").hidden = true;
  byId("answer").hidden = false;
  compare();
  byId("explained").replaceChildren(
    ...Object.keys(answer.probabilities).map((label) => new Option(capital(inWords(label)), label)),
  );
  byId("explained").value = answer.label;
  erase();
  byId("viewer").hidden = url === null;
  if (url !== null) picture(url, `Image ${name}`, name);
  say(`Result for ${name}: ${byId("verdict").textContent}`);
}

function bar(label, share, isTop) {
  const item = element("li", "", isTop ? "top" : "");
  const track = element("div", "", "track");
  const fill = element("div", "", "fill");
  fill.style.width = `${100 * share}%`;
  track.append(fill);
  item.append(
    element("span", capital(inWords(label)) + (isTop ? " (most probable)" : "")),
    element("span", percent(share), "percent"),
    track,
  );
  return item;
}

function timings(of) {
  const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)}\u00a0ms`;
  const images = of.batch_images === 1 ? "alone" : `together with ${of.batch_images - 1} more`;
  return `Received in ${ms(of.read_ms)}, decoded in ${ms(of.decode_ms)}, waited ${ms(of.queue_ms)}, ` +
    `network ${ms(of.inference_ms)}, ${images}.`;
}

function picture(source, alternative, caption) {
  const image = byId("picture");
  image.src = source;
  image.alt = alternative;
  byId("caption").textContent = caption;
}

/** As wide as the column, but no taller than most of the window; the class activation map takes the same place. */
function fit() {
  const { naturalWidth, naturalHeight } = byId("picture");
  const shape = naturalWidth / naturalHeight;
  byId("stack").style.aspectRatio = shape;
  byId("stack").style.maxWidth = `${70 * shape}vh`;
}

async function explain(label, signal) {
  const { file, name, url, answer } = shown;
  let explanation;
  try {
    explanation = await upload(`explain?label=${encodeURIComponent(label)}`, file, signal);
    signal.throwIfAborted();
  } catch (error) {
    if (!signal.aborted && drawn !== null) byId("explained").value = drawn;
    throw error;
  }
  if (url === null) {
    picture(explanation.image, `Image ${name}, as the network sees it`, `${name}, as the network sees it`);
    byId("viewer").hidden = false;
  }
  const most = draw(explanation.cam);
  const words = inWords(explanation.label);
  const other = explanation.model.version === answer.model.version
    ? "" : ` The map is by model ${explanation.model.version}, not by the one that gave the result.`;
  drawn = explanation.label;
  byId("explained").value = drawn;
  byId("cam").setAttribute("aria-label", `Class activation map: where the network looked for ${words}`);
  byId("explanation").textContent = most > 0
    ? `Where the network found what evidence for “${words}” (Grad-CAM). It is coarse and no outline of a finding.${other}`
    : `Nothing in the image spoke for “${words}” (Grad-CAM).${other}`;
}

/** Lay the cam (rows of 0..1) over the image: the hotter, the less transparent. Returns its maximum. */
function draw(cam) {
  const canvas = byId("cam");
  canvas.height = cam.length;
  canvas.width = cam[0].length;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(canvas.width, canvas.height);
  cam.flat().forEach((value, index) => {
    const place = value * (PLASMA.length - 1);
    const lower = Math.min(Math.floor(place), PLASMA.length - 2);
    const colour = PLASMA[lower].map((part, i) => part + (place - lower) * (PLASMA[lower + 1][i] - part));
    pixels.data.set([...colour, 255 * value], 4 * index);
  });
  context.putImageData(pixels, 0, 0);
  return cam.flat().reduce((a, b) => Math.max(a, b));
}

function erase() {
  drawn = null;
  byId("cam").width = 1;
  byId("cam").setAttribute("aria-label", "No class activation map yet");
  byId("explanation").textContent = "";
}

function fade() {
  const { value } = byId("opacity");
  byId("cam").style.opacity = value / 100;
  byId("opacity-text").textContent = `${value} %`;
}

/** Say so where the result is not that of the model that serves. */
function compare() {
  if (shown === null || model === null) return;
  if (shown.answer.model.version !== model.model.version) byId("outdated").hidden = false;
  else hide(byId("outdated"), byId("result-heading"));
}

function describe() {
  const { model: record, following, pinned, runtime, confidence, test } = model;
  const facts = [
    ["Version", record.version],
    ["Made", new Date(record.created_at).toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" })],
    ["Follows", pinned ? "nothing: an operator pinned this version" : `the ${following} model`],
    ["Runs on", RUNTIMES[runtime] ?? runtime],
    ["Not sure below", percent(confidence)],
  ];
  byId("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  byId("synthetic").hidden = !record.synthetic;
  byId("test").hidden = test === null;
  byId("untested").hidden = test !== null;
  if (test !== null) {
    byId("test-caption").textContent = `On ${test.images} test ${record.synthetic ? "synthetic images" : "images"}`;
    byId("figures").replaceChildren(...Object.entries(test.figures).map(([name, figure]) => {
      const row = document.createElement("tr");
      const heading = element("th", FIGURES[name] ?? capital(inWords(name)));
      heading.scope = "row";
      const interval = `${figure.low.toFixed(3)} to ${figure.high.toFixed(3)}`;
      row.append(heading, element("td", figure.value.toFixed(3)), element("td", interval));
      return row;
    }));
  }
  byId("description").hidden = false;
}

/** Look which model serves; what is new is shown and said once. */
async function look() {
  try {
    const ready = await call("ready", { signal: AbortSignal.timeout(2 * POLL_MS) });
    const isNew = ready.model.version !== model?.model.version || ready.warning !== warning;
    if (isNew || trouble !== null || looks++ % LOOKS_A_MODEL === 0) {
      const before = model;
      model = await call("model");
      warning = ready.warning;
      describe();
      compare();
      if (before !== null && before.model.version !== model.model.version) {
        say(`A new model serves: ${model.model.version}.`);
      } else if (trouble !== null) {
        say("The service answers again.");
      }
    }
    trouble = null;
    byId("service").textContent = "Ready for images.";
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    byId("service").textContent = `${error.message} Looking again every ${POLL_MS / 1000} s.`;
    if (error.status !== 401) {
      if (error.message !== trouble) say(error.message);
      trouble = error.message;
    } else if (byId("key-form").hidden) {
      complain(error.message, error, look);
    }
  }
  byId("stale").hidden = warning === null;
  byId("stale").textContent = warning ?? "";
}

async function watch() {
  if (document.visibilityState === "visible") await look();
  setTimeout(watch, POLL_MS);
}

function take(files) {
  if (files.length > 0) classify(files[0]);
}

byId("file").addEventListener("change", ({ target }) => {
  take([...target.files]);
  target.value = ""; // so that the same image can be chosen again
});
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) byId("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  take([...event.dataTransfer.files]);
});
byId("picture").addEventListener("load", fit);
byId("opacity").addEventListener("input", fade);
byId("explained").addEventListener("change", ({ target }) => {
  const words = inWords(target.value);
  ask(`There is no class activation map for ${words}.`, (signal) => explain(target.value, signal));
});
byId("again").addEventListener("click", () => retry());
byId("ask-new").addEventListener("click", () => classify(shown.file));
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("key").value.trim());
  byId("key").value = "";
  const again = retry;
  settle();
  again();
});

fade();
watch();

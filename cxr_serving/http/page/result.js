/** The result on the page: the image, its probabilities, and the class activation map over it. */

import { paint, paintScale } from "./cam.js";
import { byId, element, hide, say } from "./dom.js";
import { capital, inWords, milliseconds, percent } from "./words.js";

// What was done to a copy of a rejected image. Degrees are clockwise.
export const REPAIRS = {
  rotate_90: "turned clockwise by 90 degrees",
  rotate_180: "turned by 180 degrees",
  rotate_270: "turned counter-clockwise by 90 degrees",
  invert: "black and white exchanged",
};

let shown = null; // { file, name, url, answer }: image and answer belong together

/** The image on the page, to classify it again; null before the first one. */
export const current = () => shown;

/**
 * Show an answer.
 *
 * `url` is an object URL of the image, null where the browser cannot show the file: then the page
 * shows the image as the network sees it. `model` is the answer of GET /model, null before it.
 */
export function show(result, model) {
  if (shown !== null && shown.url !== null) URL.revokeObjectURL(shown.url);
  shown = result;
  const { name, url, answer } = result;
  byId("result-heading").textContent = `Result for ${name}`;
  byId("rejected").hidden = answer.accepted !== false;
  byId("reasons").textContent = answer.message ?? "";
  byId("as-it-is").classList.toggle("void", answer.accepted === false);
  read("", answer, model);
  byId("repaired").hidden = answer.repaired === null;
  if (answer.repaired !== null) {
    byId("repaired-heading").textContent = `When repaired: ${REPAIRS[answer.repaired.repair]}`;
    byId("repaired-picture").src = answer.repaired.image;
    read("repaired-", answer.repaired, model);
  }
  byId("maker").textContent =
    `Answered by model ${answer.model.version}${answer.model.synthetic ? ", trained on synthetic images" : ""}.`;
  byId("timings").textContent = timings(answer.timings);
  byId("empty").hidden = true;
  byId("answer").hidden = false;
  compare(model);
  if (url === null) picture(answer.image, `Image ${name}, as the network sees it`, `${name}, as the network sees it`);
  else picture(url, `Image ${name}`, name);
  byId("viewer").hidden = false;
  byId("maps").hidden = answer.cam === null;
  byId("explained").replaceChildren(
    ...Object.keys(answer.probabilities).map((label) => new Option(capital(inWords(label)), label)),
  );
  explain(answer.label);
  const rejected = `rejected. ${answer.message} ${answer.repaired === null ? "" : "See how it is read when repaired."}`;
  say(`Result for ${name}: ${answer.accepted === false ? rejected : byId("verdict").textContent}`);
}

/** Show the probabilities of one reading: of the image as it is, or repaired. */
function read(prefix, reading, model) {
  const shares = Object.entries(reading.probabilities);
  const [first, second] = [...shares].sort((a, b) => b[1] - a[1]);
  const top = inWords(first[0]);
  const below = model === null ? "" : ` Below ${percent(model.confidence)} an answer is uncertain.`;
  const verdict = byId(`${prefix}verdict`);
  verdict.textContent = reading.uncertain
    ? `Uncertain: ${top} ${percent(first[1])}, ${inWords(second[0])} ${percent(second[1])}.${below}`
    : `Most probable: ${top}, ${percent(first[1])}.`;
  verdict.classList.toggle("unsure", reading.uncertain);
  byId(`${prefix}bars`).replaceChildren(
    ...shares.map(([label, share]) => bar(label, share, label === reading.label)),
  );
}

/** Lay the map of a class over the image; nothing is requested. */
export function explain(label) {
  const { cam } = shown.answer;
  const canvas = byId("cam");
  canvas.hidden = cam === null;
  if (cam === null) {
    byId("explanation").textContent = "This model has no class activation maps.";
    return;
  }
  const words = inWords(label);
  byId("explained").value = label;
  canvas.setAttribute("aria-label", `Class activation map for ${words}`);
  byId("explanation").textContent = paint(canvas, cam[label])
    ? `Where the network found evidence for “${words}” (Grad-CAM). The map is coarse and does not outline a finding.`
    : `The network found no evidence for “${words}” in this image (Grad-CAM).`;
}

/** Say so if another model serves now than the one that answered. */
export function compare(model) {
  if (shown === null || model === null) return;
  if (shown.answer.model.version !== model.model.version) byId("outdated").hidden = false;
  else hide(byId("outdated"), byId("result-heading"));
}

/** Prepare the controls of the map. */
export function start() {
  paintScale(byId("scale"));
  fade();
  byId("picture").addEventListener("load", fit);
  byId("opacity").addEventListener("input", fade);
  byId("explained").addEventListener("change", ({ target }) => explain(target.value));
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
  const batch = of.batch_images === 1 ? "alone" : `in a batch of ${of.batch_images}`;
  return `Received in ${milliseconds(of.read_ms)}, decoded in ${milliseconds(of.decode_ms)}, ` +
    `queued for ${milliseconds(of.queue_ms)}, network ${milliseconds(of.inference_ms)}, ${batch}.`;
}

function picture(source, alternative, caption) {
  const image = byId("picture");
  image.src = source;
  image.alt = alternative;
  byId("caption").textContent = caption;
}

/** As wide as the column, but not taller than most of the window; the map covers the same place. */
function fit() {
  const { naturalWidth, naturalHeight } = byId("picture");
  const shape = naturalWidth / naturalHeight;
  byId("stack").style.aspectRatio = shape;
  byId("stack").style.maxWidth = `${70 * shape}vh`;
}

function fade() {
  const { value } = byId("opacity");
  byId("cam").style.opacity = value / 100;
  byId("opacity-text").textContent = `${value} %`;
}

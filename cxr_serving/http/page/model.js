/** Which model serves: polled, described, announced when it changes. */

import { call, Problem } from "./api.js";
import { byId, element, say } from "./dom.js";
import { compare } from "./result.js";
import { complain } from "./tasks.js";
import { capital, inWords, oneOf, percent } from "./words.js";

const POLL_MS = 5000;
const POLLS_PER_MODEL = 12; // its report may come later than the model, and an operator may pin it
const METRICS = {
  accuracy: "Accuracy",
  macro_f1: "Macro F1",
  auroc_macro_ovr: "AUROC, macro, one vs rest",
};
const GATES = { flag: "flags what it rejects", reject: "answers what it rejects with an error" };
const RUNTIMES = { onnx: "ONNX Runtime", "onnx-int8": "ONNX Runtime, 8-bit integers", torch: "PyTorch" };

let model = null;
let warning = null; // of GET /ready
let polls = 0;
let trouble = null; // why no model was found, in words

/** The answer of GET /model; null before there is one. */
export const serving = () => model;

/** Poll for as long as the page is open. */
export async function watch() {
  if (document.visibilityState === "visible") await look();
  setTimeout(watch, POLL_MS);
}

/** See which model serves; show what is new, and announce it once. */
async function look() {
  try {
    const ready = await call("ready", { signal: AbortSignal.timeout(2 * POLL_MS) });
    const isNew = ready.model.version !== model?.model.version || ready.warning !== warning;
    if (isNew || trouble !== null || polls++ % POLLS_PER_MODEL === 0) {
      const before = model;
      model = await call("model");
      warning = ready.warning;
      describe();
      compare(model);
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
    byId("service").textContent = `${error.message} Checking again every ${POLL_MS / 1000} s.`;
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

function describe() {
  const { model: record, following, pinned, runtime, confidence, gate, test } = model;
  byId("classes").textContent = `For frontal chest radiographs: ${oneOf(record.classes)}.`;
  const facts = [
    ["Version", record.version],
    ["Created", new Date(record.created_at).toLocaleString("en-GB", { dateStyle: "long", timeStyle: "short" })],
    ["Follows", pinned ? "nothing: an operator pinned this version" : `the ${following} model`],
    ["Runs on", RUNTIMES[runtime] ?? runtime],
    ["Uncertain below", percent(confidence)],
    ["Gate", describeGate(record.gate, gate)],
  ];
  byId("facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  byId("synthetic").hidden = !record.synthetic;
  byId("test").hidden = test === null;
  byId("untested").hidden = test !== null;
  if (test !== null) {
    byId("test-caption").textContent = `On ${test.images} ${record.synthetic ? "synthetic test images" : "test images"}`;
    byId("metrics").replaceChildren(...Object.entries(test.metrics).map(([name, metric]) => {
      const row = document.createElement("tr");
      const heading = element("th", METRICS[name] ?? capital(inWords(name)));
      heading.scope = "row";
      const interval = `${metric.low.toFixed(3)} to ${metric.high.toFixed(3)}`;
      row.append(heading, element("td", metric.value.toFixed(3)), element("td", interval));
      return row;
    }));
  }
  byId("description").hidden = false;
}

function describeGate(record, what) {
  if (record === null) return "none: no image is rejected";
  const { rejected, images } = record.validation;
  return `${GATES[what]}: ${percent(rejected / images)} of ${images} validation images`;
}

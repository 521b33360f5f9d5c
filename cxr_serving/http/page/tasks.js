/** One task at a time: a new one aborts the one before; an error can be retried. */

import { Problem } from "./api.js";
import { byId, hide, say } from "./dom.js";

const FINAL = [400, 401, 413, 415, 422]; // the same request would fail again

let retry = null;
let running = new AbortController();

/** Run `work(signal)` instead of the current task; an error is shown between `lead` and `rest`. */
export async function run(lead, work, rest = "") {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  settle();
  byId("result").setAttribute("aria-busy", "true");
  try {
    await work(signal);
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof Problem)) throw error;
    complain(`${lead} ${error.message}${rest}`, error, () => run(lead, work, rest));
  } finally {
    if (!signal.aborted) byId("result").removeAttribute("aria-busy");
  }
}

/** Show an error and its remedy; everything else on the page stays. */
export function complain(text, { status, reference }, again) {
  say("");
  byId("problem-text").textContent = text + reference;
  retry = again;
  byId("key-form").hidden = status !== 401;
  byId("again").hidden = FINAL.includes(status);
}

/** Repeat what failed. */
export function repeat() {
  const again = retry;
  settle();
  again();
}

function settle() {
  byId("problem-text").textContent = "";
  hide(byId("key-form"), byId("file"));
  hide(byId("again"), byId("file"));
  retry = null;
}

/** Entry point: images come in by choosing, dropping or pasting, and each is uploaded once. */

import { predict, useKey } from "./api.js";
import { byId, say } from "./dom.js";
import { serving, watch } from "./model.js";
import * as result from "./result.js";
import { repeat, run } from "./tasks.js";

function classify(file) {
  const name = file.name || "pasted image"; // the clipboard may hold a picture without a file
  const before = result.current();
  const kept = before === null ? "" : ` The page still shows the result for ${before.name}.`;
  return run(`${name} was not classified.`, async (signal) => {
    say(`Classifying ${name}…`);
    const answer = await predict(file, signal);
    const url = await preview(file, signal);
    signal.throwIfAborted();
    result.show({ file, name, url, answer }, serving());
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
byId("again").addEventListener("click", repeat);
byId("classify-again").addEventListener("click", () => classify(result.current().file));
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(byId("key").value.trim());
  byId("key").value = "";
  repeat();
});

result.start();
watch();

/** Access to the elements of the page. */

export const byId = (id) => document.getElementById(id);

export function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  return made;
}

/** Announce something to screen readers, too. */
export function say(text) {
  byId("news").textContent = text;
}

/** Hide an element; if it has the focus, `next` gets it. */
export function hide(what, next) {
  if (what.contains(document.activeElement)) next.focus();
  what.hidden = true;
}

/** Numbers and names as people read them. */

export const percent = (share) => { // no-break spaces
  if (share < 0.001) return "<0.1\u00a0%";
  return share > 0.999 ? ">99.9\u00a0%" : `${(100 * share).toFixed(1)}\u00a0%`;
};

export const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)}\u00a0ms`;

export const inWords = (name) => name.replaceAll("_", " ");

export const oneOf = (names) => new Intl.ListFormat("en-GB", { type: "disjunction" }).format(names.map(inWords));

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** Class activation maps: scaled and coloured as /explain does. */

// The nine colours of cxr_serving/model/explanation.py.
export const COLOURS = [
  [13, 8, 135], [76, 2, 161], [126, 3, 168], [170, 35, 149], [204, 71, 120],
  [230, 108, 92], [248, 149, 64], [253, 197, 39], [240, 249, 33],
];
const SIDE = 224; // pixels that are computed; the browser scales them to the image

/** Paint a coarse map (rows of numbers from 0) on a canvas; strong evidence is opaque. Returns whether there is any. */
export function paint(canvas, coarse) {
  const rows = enlarge(coarse.map((row) => enlarge(row, lerp)), lerpRows);
  const most = rows.flat().reduce((a, b) => Math.max(a, b));
  canvas.width = SIDE;
  canvas.height = SIDE;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(SIDE, SIDE);
  rows.flat().forEach((value, index) => {
    const share = most > 0 ? value / most : 0;
    pixels.data.set([...colour(share), 255 * share], 4 * index);
  });
  context.putImageData(pixels, 0, 0);
  return most > 0;
}

/** Paint the colours of 0 to 1 as a gradient. */
export function paintScale(what) {
  const stops = COLOURS.map((parts) => `rgb(${parts})`);
  what.style.background = `linear-gradient(90deg, ${stops})`;
}

const lerp = (a, b, share) => a + share * (b - a);
const lerpRows = (a, b, share) => a.map((value, i) => lerp(value, b[i], share));

/** Linear interpolation to SIDE values between the centres of the given ones; constant beyond the outermost. */
function enlarge(values, between) {
  return Array.from({ length: SIDE }, (_, i) => {
    const place = ((i + 0.5) / SIDE) * values.length - 0.5;
    const inside = Math.min(Math.max(place, 0), values.length - 1);
    const lower = Math.floor(inside);
    return between(values[lower], values[Math.min(lower + 1, values.length - 1)], inside - lower);
  });
}

function colour(share) {
  const place = share * (COLOURS.length - 1);
  const lower = Math.min(Math.floor(place), COLOURS.length - 2);
  return lerpRows(COLOURS[lower], COLOURS[lower + 1], place - lower);
}

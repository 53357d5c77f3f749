// Which colours a row has: Wireshark's own by day, the same hues dimmed by night, and always enough contrast to read.

/** Contrast that text needs against what is behind it (WCAG 2, level AA). */
export const ENOUGH = 4.5;
/** Ground and ink of the list by night; a row that Wireshark leaves white is just the list. */
const NIGHT = { ground: 0.235, ink: 0.89 };
/** How light and how colourful an alert's row is by night: it is not to be overlooked. */
const LOUD = { ground: 0.36, chroma: 0.09 };

/** @typedef {[number, number, number]} Triple three numbers: red, green, blue from 0 to 1, or lightness, chroma, hue */

/**
 * @param {string} hex rrggbb
 * @returns {Triple}
 */
export function rgb(hex) {
  const number = /^[0-9a-f]{6}$/i.test(hex) ? parseInt(hex, 16) : 0xffffff;
  return [(number >> 16) / 255, ((number >> 8) & 255) / 255, (number & 255) / 255];
}

/** @param {Triple} colour */
const hexOf = (colour) =>
  colour.map((part) => Math.round(Math.min(1, Math.max(0, part)) * 255).toString(16).padStart(2, "0")).join("");

/** @param {number} part */
const linear = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
/** @param {number} part */
const gamma = (part) => (part <= 0.0031308 ? part * 12.92 : 1.055 * Math.max(0, part) ** (1 / 2.4) - 0.055);

/**
 * Lightness, chroma and hue as the eye sees them (OKLCH).
 * @param {Triple} colour
 * @returns {Triple}
 */
function seen(colour) {
  const [r, g, b] = colour.map(linear);
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  const lightness = 0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s;
  const a = 1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s;
  const bb = 0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s;
  return [lightness, Math.hypot(a, bb), Math.atan2(bb, a)];
}

/**
 * @param {Triple} colour lightness, chroma, hue
 * @returns {Triple}
 */
function shown([lightness, chroma, hue]) {
  const a = chroma * Math.cos(hue);
  const b = chroma * Math.sin(hue);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    gamma(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    gamma(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    gamma(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

/** @param {string} hex */
function luminance(hex) {
  const [r, g, b] = rgb(hex).map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/**
 * Contrast of two colours, 1 to 21.
 * @param {string} one rrggbb
 * @param {string} other rrggbb
 */
export function contrast(one, other) {
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}

/**
 * The ink moved towards black or white until it can be read on this ground.
 * @param {string} ink rrggbb
 * @param {string} ground rrggbb
 */
function readable(ink, ground) {
  const [lightness, chroma, hue] = seen(rgb(ink));
  const darker = luminance(ground) > 0.18;
  for (let step = 0; step <= 20; step++) {
    const moved = lightness + (darker ? -lightness : 1 - lightness) * (step / 20);
    const tried = hexOf(shown([moved, chroma * (1 - step / 20), hue]));
    if (contrast(tried, ground) >= ENOUGH) return tried;
  }
  return darker ? "000000" : "ffffff";
}

/** @type {Map<string, {ground: string, ink: string}>} */
const known = new Map();

/**
 * Ground and ink of a row as CSS colours; a ground of "" is the list's own.
 * @param {string} background rrggbb as Wireshark has it, "" for none
 * @param {string} foreground rrggbb
 * @param {boolean} night
 * @param {boolean} [loud] for an alert
 */
export function rowColours(background, foreground, night, loud = false) {
  const key = `${background} ${foreground} ${night} ${loud}`;
  const before = known.get(key);
  if (before !== undefined) return before;
  const made = night ? byNight(background || "ffffff", foreground || "12272e", loud) : byDay(background || "ffffff", foreground || "12272e");
  if (known.size > 500) known.clear(); // colours come from a file, too
  known.set(key, made);
  return made;
}

/**
 * @param {string} background
 * @param {string} foreground
 */
function byDay(background, foreground) {
  const white = background.toLowerCase() === "ffffff";
  return { ground: white ? "" : `#${hexOf(rgb(background))}`, ink: `#${readable(foreground, background)}` };
}

/**
 * @param {string} background
 * @param {string} foreground
 * @param {boolean} loud
 */
function byNight(background, foreground, loud) {
  const [lightness, chroma, hue] = seen(rgb(background));
  const [, inkChroma, inkHue] = seen(rgb(foreground));
  if (lightness < 0.5) {
    // Dark by itself: Wireshark's way of saying that something is wrong.
    return { ground: `#${hexOf(rgb(background))}`, ink: `#${readable(foreground, background)}` };
  }
  const dimmed = loud ? hexOf(shown([LOUD.ground, Math.max(chroma, LOUD.chroma), hue])) : hexOf(shown([NIGHT.ground + (1 - lightness) * 0.22, Math.min(chroma * 1.6, 0.065), hue]));
  const ink = hexOf(shown([NIGHT.ink, Math.min(inkChroma, 0.05), inkHue]));
  const plain = lightness > 0.99 && chroma < 0.01;
  return { ground: plain ? "" : `#${dimmed}`, ink: `#${readable(ink, dimmed)}` };
}

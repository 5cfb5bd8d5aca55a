// Texts for values.

/** Put text on one line, so that it cannot imitate lines of the page. @param {string} text */
export const oneLine = (text) => text.replace(/[ \t\r\n]*[\t\r\n][ \t\r\n]*/g, " ");

/** Cut a text to a number of characters. @param {string} text @param {number} most */
export function cut(text, most) {
  const start = [...text.slice(0, 2 * most)].slice(0, most).join("");
  return start.length < text.length ? `${start}…` : text;
}

/** @param {number} count @param {string} noun */
export const countText = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** @param {string} status */
export const statusText = (status) => status.replaceAll("_", " ");

/** @param {string} at */
export const timeText = (at) => new Date(at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

/** @type {[unit: Intl.RelativeTimeFormatUnit, seconds: number][]} */
const UNITS = [["year", 31536000], ["month", 2592000], ["week", 604800], ["day", 86400], ["hour", 3600], ["minute", 60]];

/** Say how long ago a time was, in short. @param {string} at @param {number} [now] */
export function agoText(at, now = Date.now()) {
  const seconds = (now - Date.parse(at)) / 1000;
  const [unit, size] = UNITS.find(([, least]) => seconds >= least) ?? ["second", 60];
  if (seconds < size) return "now";
  return new Intl.RelativeTimeFormat("en", { style: "narrow" }).format(-Math.floor(seconds / size), unit);
}

/** Say how long something took. @param {number} ms */
export function durationText(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

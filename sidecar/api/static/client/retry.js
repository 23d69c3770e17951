/** When something is tried again, and after how long. Pure: chance and the time are handed in. */

/**
 * How patient a client is: `attempts` in all for one thing, each wait twice the one before. A
 * `Retry-After` of the service counts instead, up to `longestAskedMs`. Anything that came through in
 * between makes the count begin anew.
 *
 * @typedef {object} Retry
 * @property {number} attempts
 * @property {number} firstMs
 * @property {number} longestMs
 * @property {number} longestAskedMs
 */

/** @type {Readonly<Retry>} An hour's `Retry-After` is the longest that is not for people to decide on. */
export const PATIENT = Object.freeze({
  attempts: 6,
  firstMs: 500,
  longestMs: 30_000,
  longestAskedMs: 3_600_000,
});

/** @type {Readonly<Retry>} One attempt. */
export const NEVER = Object.freeze({ ...PATIENT, attempts: 1 });

/** Answers that may be another one a little later. 408 is a silence that a network made. */
const PASSING = new Set([408, 425, 429, 502, 503, 504]);

/** @param {number} status */
export const passes = (status) => PASSING.has(status);

/**
 * Milliseconds to wait after so many failures in a row; null: it has been enough.
 *
 * @param {Retry} retry
 * @param {number} failures
 * @param {number} chance 0 to 1: spreads clients that failed together over the upper half
 * @param {number | null} [askedS] what a `Retry-After` asks for
 */
export function waitMs(retry, failures, chance, askedS = null) {
  if (failures >= retry.attempts) return null;
  if (askedS !== null) {
    const asked = askedS * 1000;
    return asked <= retry.longestAskedMs ? asked + chance * 1000 : null;
  }
  const wait = Math.min(retry.firstMs * 2 ** (failures - 1), retry.longestMs);
  return wait * (0.5 + chance / 2);
}

/**
 * Seconds that a `Retry-After` asks for: a number of them, or a date; null if it is neither.
 *
 * @param {string | null} header
 * @param {number} nowMs since 1970
 */
export function askedSeconds(header, nowMs) {
  const text = header?.trim() ?? "";
  if (/^\d+$/.test(text)) return Number(text.slice(0, 9));
  // Date.parse takes much that is no date of HTTP, and what has no zone as local time.
  const at = /^[A-Z][a-z]+, .+ GMT$/.test(text) ? Date.parse(text) : NaN;
  return Number.isNaN(at) ? null : Math.max(0, (at - nowMs) / 1000);
}

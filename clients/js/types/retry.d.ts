/**
 * Milliseconds to wait after so many failures in a row; null: it has been enough.
 *
 * @param {Retry} retry
 * @param {number} failures
 * @param {number} chance 0 to 1: spreads clients that failed together over the upper half
 * @param {number | null} [askedS] what a `Retry-After` asks for
 */
export function waitMs(retry: Retry, failures: number, chance: number, askedS?: number | null): number | null;
/**
 * Seconds that a `Retry-After` asks for: a number of them, or a date; null if it is neither.
 *
 * @param {string | null} header
 * @param {number} nowMs since 1970
 */
export function askedSeconds(header: string | null, nowMs: number): number | null;
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
export const PATIENT: Readonly<Retry>;
/** @type {Readonly<Retry>} One attempt. */
export const NEVER: Readonly<Retry>;
export function passes(status: number): boolean;
/**
 * How patient a client is: `attempts` in all for one thing, each wait twice the one before. A
 * `Retry-After` of the service counts instead, up to `longestAskedMs`. Anything that came through in
 * between makes the count begin anew.
 */
export type Retry = {
    attempts: number;
    firstMs: number;
    longestMs: number;
    longestAskedMs: number;
};

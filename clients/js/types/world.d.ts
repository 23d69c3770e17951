/** A name that nobody else has: a UUID, or as good as one where a page without TLS cannot make it. */
export function newKey(): string;
/** Time and chance as they are. Tests hand in others. */
/**
 * `sleep` waits for milliseconds and rejects with the signal's reason once that is aborted; `random`
 * is 0 to 1; `now` is in milliseconds since 1970.
 *
 * @typedef {object} World
 * @property {(ms: number, signal?: AbortSignal) => Promise<void>} sleep
 * @property {() => number} random
 * @property {() => number} now
 */
/** @type {Readonly<World>} */
export const REAL: Readonly<World>;
/**
 * `sleep` waits for milliseconds and rejects with the signal's reason once that is aborted; `random`
 * is 0 to 1; `now` is in milliseconds since 1970.
 */
export type World = {
    sleep: (ms: number, signal?: AbortSignal) => Promise<void>;
    random: () => number;
    now: () => number;
};

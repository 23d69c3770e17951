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
export const REAL = Object.freeze({ sleep, random: () => Math.random(), now: () => Date.now() });

/**
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", ended);
      resolve();
    }, ms);
    function ended() {
      clearTimeout(timer);
      reject(signal?.reason);
    }
    signal?.addEventListener("abort", ended, { once: true });
  });
}

/** A name that nobody else has: a UUID, or as good as one where a page without TLS cannot make it. */
export function newKey() {
  if (typeof globalThis.crypto?.randomUUID === "function") return crypto.randomUUID();
  const part = () => Math.floor(Math.random() * 2 ** 32).toString(16).padStart(8, "0");
  return part() + part() + part() + part();
}

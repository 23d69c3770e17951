/** How far a recording is. Pure. */

/**
 * `stage`: `uploading` (in bytes: none, then all), `queued`, or `running` (in seconds of audio).
 * `total` and `fraction` (0 to 1, of this stage) are null where they are not known; `position` counts
 * those that go first.
 *
 * @typedef {object} Progress
 * @property {"uploading" | "queued" | "running"} stage
 * @property {number} done
 * @property {number | null} total
 * @property {number | null} fraction
 * @property {number | null} position
 * @property {number | null} estimatedWaitSeconds
 */

/**
 * @param {Progress["stage"]} stage
 * @param {number} [done]
 * @param {number | null} [total]
 * @param {number | null} [position]
 * @param {number | null} [wait]
 * @returns {Progress}
 */
export function progress(stage, done = 0, total = null, position = null, wait = null) {
  const fraction = total ? Math.min(1, done / total) : null;
  return { stage, done, total, fraction, position, estimatedWaitSeconds: wait };
}

/**
 * By a job's body.
 *
 * @param {import("./wire.js").Job} job
 */
export function progressOf(job) {
  if (job.state === "queued")
    return progress("queued", 0, null, job.position ?? null, job.estimated_wait_seconds ?? null);
  return heard(job.progress);
}

/**
 * Where an event tells; null where it does not.
 *
 * @param {import("./following.js").JobEvent} event
 */
export function progressAfter(event) {
  if (event.kind === "progress") return heard(/** @type {any} */ (event.data));
  if (event.kind === "begun") return progress("running");
  return event.kind === "put_back" ? progress("queued") : null;
}

/** @param {Partial<import("./wire.js").AudioProgress> | undefined} audio */
const heard = (audio) =>
  progress("running", audio?.audio_seconds_done ?? 0, audio?.audio_seconds_total ?? null);

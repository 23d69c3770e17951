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
export function progress(stage: Progress["stage"], done?: number, total?: number | null, position?: number | null, wait?: number | null): Progress;
/**
 * By a job's body.
 *
 * @param {import("./wire.js").Job} job
 */
export function progressOf(job: import("./wire.js").Job): Progress;
/**
 * Where an event tells; null where it does not.
 *
 * @param {import("./following.js").JobEvent} event
 */
export function progressAfter(event: import("./following.js").JobEvent): Progress | null;
/**
 * `stage`: `uploading` (in bytes: none, then all), `queued`, or `running` (in seconds of audio).
 * `total` and `fraction` (0 to 1, of this stage) are null where they are not known; `position` counts
 * those that go first.
 */
export type Progress = {
    stage: "uploading" | "queued" | "running";
    done: number;
    total: number | null;
    fraction: number | null;
    position: number | null;
    estimatedWaitSeconds: number | null;
};

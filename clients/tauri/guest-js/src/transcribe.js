/** A recording becomes a transcript. */

import { Channel } from "@tauri-apps/api/core";
import { SpeechError, call, newName } from "./call.js";

/**
 * @typedef {import("./wire.js").Transcript} Transcript
 * @typedef {import("./wire.js").Segment} Segment
 *
 * How far it is: 0 to 1, and seconds until it is done; null where that is not known.
 * @typedef {{ fraction: number | null, secondsLeft: number | null, secondsDone: number, secondsTotal: number | null }} Progress
 *
 * @typedef {import("./wire.js").Options & {
 *   onQueued?: (position: number | null, seconds: number | null) => void,
 *   onProgress?: (progress: Progress) => void,
 *   onSegment?: (index: number, segment: Segment) => void,
 *   onAgain?: (code: "engine_crashed" | "service_crashed") => void,
 *   signal?: AbortSignal,
 * }} TranscribeOptions `onSegment` gets what was understood so far, perhaps again with the same index;
 *   `onAgain`: something crashed, and the recording is transcribed from the beginning.
 *
 * @typedef {Promise<Transcript> & { cancel: () => Promise<void> }} Transcription
 */

/**
 * Transcribe a file by its path, or a `File`, `Blob` or bytes.
 *
 * @param {string | Blob | Uint8Array} source
 * @param {TranscribeOptions} [setup]
 * @returns {Transcription} rejected with a `SpeechError`, of code "cancelled" if it was
 */
export function transcribe(source, setup = {}) {
  const job = newName();
  const order = { cancelled: false };
  const stop = () => {
    order.cancelled = true;
    return call("cancel", { job });
  };
  const { signal } = setup;
  const work = run(job, source, setup, order).finally(() => signal?.removeEventListener("abort", stop));
  signal?.addEventListener("abort", stop, { once: true });
  if (signal?.aborted) void stop();
  return Object.assign(work, { cancel: stop });
}

/**
 * End a transcription; its promise is then rejected with the code "cancelled".
 *
 * @param {Transcription} transcription
 */
export const cancel = (transcription) => transcription.cancel();

/**
 * @param {string} job
 * @param {string | Blob | Uint8Array} source
 * @param {TranscribeOptions} setup
 * @param {{ cancelled: boolean }} order
 * @returns {Promise<Transcript>}
 */
async function run(job, source, setup, order) {
  const { onQueued, onProgress, onSegment, onAgain, signal: _, ...options } = setup;
  /** @type {Channel<any>} */
  const onStep = new Channel();
  onStep.onmessage = (step) => {
    if (order.cancelled) void call("cancel", { job }); // it came before the job had begun
    if (step.step === "queued") onQueued?.(step.position, step.wait);
    else if (step.step === "segment") onSegment?.(step.index, step.segment);
    else if (step.step === "again") onAgain?.(step.code);
    else if (step.step === "progress")
      onProgress?.({
        fraction: step.fraction,
        secondsLeft: step.seconds_left,
        secondsDone: step.audio_seconds_done,
        secondsTotal: step.audio_seconds_total,
      });
  };
  if (typeof source === "string") return call("transcribe", { job, path: source, options, onStep });
  const bytes = source instanceof Uint8Array ? source : new Uint8Array(await source.arrayBuffer());
  await call("upload", bytes, { job });
  if (order.cancelled) {
    await call("cancel", { job });
    throw new SpeechError("cancelled", "It was cancelled before it began.");
  }
  const name = source instanceof File ? source.name : null;
  return call("transcribe", { job, name, options, onStep });
}

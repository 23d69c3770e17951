/** Downloads of models. */

import { Channel } from "@tauri-apps/api/core";
import { call, newName, SpeechError } from "./call.js";

/**
 * Download a model, which `useModel` loads. What
 * came before a cancel stays on the disk, and the next pull resumes it. The permission `allow-pull-model` is not
 * among the default ones.
 *
 * @param {string} name as in `localModels`, or OWNER/NAME
 * @param {{ onProgress?: (bytesDone: number, bytesTotal: number) => void, signal?: AbortSignal }} [setup]
 * @returns {Promise<void>} rejected with a `SpeechError`, of code "cancelled" if the signal ended it
 */
export async function pullModel(name, { onProgress, signal } = {}) {
  const job = newName();
  const stop = () => void call("cancel", { job });
  /** @type {Channel<any>} */
  const onStep = new Channel();
  onStep.onmessage = (step) => {
    if (signal?.aborted) stop(); // it came before the download had begun
    if (step.step === "progress") onProgress?.(step.bytes_done, step.bytes_total);
  };
  if (signal?.aborted) throw new SpeechError("cancelled", "It was cancelled before it began.");
  signal?.addEventListener("abort", stop, { once: true });
  try {
    await call("pull_model", { job, name, onStep });
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}

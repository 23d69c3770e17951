/** Speech to text in the page of a Tauri app. The plugin's Rust side has the service; no token comes here. */

import { listen } from "@tauri-apps/api/event";
import { call, SpeechError } from "./call.js";

export { SpeechError };
export { cancel, transcribe } from "./transcribe.js";
export { live, LiveSession } from "./live.js";
export { pullModel } from "./pull.js";

/**
 * How the service is. `crashed`: `code` to decide by, `reason` and the end of the `log` for developers,
 * and seconds until it is started again; null: it is not, until `restart()`.
 *
 * @typedef {{ status: "starting" }
 *   | { status: "ready", version: string, device: "cpu" | "cuda", pid: number }
 *   | { status: "busy", jobs: number }
 *   | { status: "crashed", code: string, reason: string, log: string[], restart_in: number | null }
 *   | { status: "stopped" }} Status
 *
 * @typedef {import("./wire.js").Transcript} Transcript
 * @typedef {import("./wire.js").Segment} Segment
 * @typedef {import("./wire.js").LiveEvent} LiveEvent
 * @typedef {import("./transcribe.js").Progress} Progress
 * @typedef {import("./transcribe.js").TranscribeOptions} TranscribeOptions
 */

/**
 * Call `tell` with how the service is, now and at each change.
 *
 * @param {(status: Status) => void} tell
 * @returns {Promise<() => void>} what ends it
 */
export async function onState(tell) {
  let changed = false;
  const end = await listen("vibevoice-asr://status", ({ payload }) => {
    changed = true;
    tell(/** @type {Status} */ (payload));
  });
  const now = await state();
  if (!changed) tell(now);
  return end;
}

/**
 * How the service is.
 *
 * @returns {Promise<Status>}
 */
export const state = () => call("status");

/**
 * Start the service at once, also after it was given up.
 *
 * @returns {Promise<void>}
 */
export const restart = () => call("restart");

/**
 * What the service says of itself; it waits while the service starts.
 *
 * @returns {Promise<import("./wire.js").Health>}
 */
export const health = () => call("health");

/**
 * The names of the loaded model.
 *
 * @returns {Promise<{ id: string }[]>}
 */
export const models = () => call("models");

/**
 * The models that can be used or downloaded here.
 *
 * @returns {Promise<import("./wire.js").LocalModel[]>}
 */
export const localModels = () => call("local_models");

/**
 * Delete a downloaded model. The permission `allow-delete-model` is not among the default ones.
 *
 * @param {string} name as in `localModels`
 * @returns {Promise<void>}
 */
export const deleteModel = (name) => call("delete_model", { name });

/**
 * Load an installed model for recordings, after the running one, also after a restart of the service;
 * a new app begins with that of its settings. The permission `allow-use-model` is not among the default ones.
 *
 * @param {string} name as in `localModels`
 * @returns {Promise<void>} when it is loaded
 */
export const useModel = (name) => call("use_model", { name });

/**
 * Load the engine at another precision. The permission `allow-reload` is not among the default ones.
 *
 * @param {"auto" | "fp32" | "bf16" | "fp16" | "int8" | "int4"} precision
 * @returns {Promise<{ status: string, message: string }>}
 */
export const reload = (precision) => call("reload", { precision });

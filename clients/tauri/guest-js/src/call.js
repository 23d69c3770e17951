/** Calls of the plugin's commands, and their errors. */

import { invoke } from "@tauri-apps/api/core";

/** Why something did not work: decide by `code` (docs/errors.md); the message is for developers. */
export class SpeechError extends Error {
  /**
   * @param {string} code
   * @param {string} detail
   */
  constructor(code, detail) {
    super(detail);
    this.name = "SpeechError";
    this.code = code;
  }
}

/**
 * @template T
 * @param {string} command
 * @param {Record<string, unknown> | Uint8Array} [values] or the bytes that are the body
 * @param {Record<string, string>} [headers]
 * @returns {Promise<T>}
 * @throws {SpeechError}
 */
export async function call(command, values, headers) {
  try {
    return await invoke(`plugin:vibevoice-asr|${command}`, values, headers && { headers });
  } catch (reason) {
    throw errorOf(reason);
  }
}

/**
 * @param {unknown} reason
 * @returns {SpeechError}
 */
export function errorOf(reason) {
  const { code, detail } = /** @type {{ code?: string, detail?: string }} */ (reason ?? {});
  return code ? new SpeechError(code, detail ?? "") : new SpeechError("app", String(reason));
}

/** A name that no other job and session has. */
export const newName = () => crypto.randomUUID();

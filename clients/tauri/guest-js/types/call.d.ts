/**
 * @template T
 * @param {string} command
 * @param {Record<string, unknown> | Uint8Array} [values] or the bytes that are the body
 * @param {Record<string, string>} [headers]
 * @returns {Promise<T>}
 * @throws {SpeechError}
 */
export function call<T>(command: string, values?: Record<string, unknown> | Uint8Array, headers?: Record<string, string>): Promise<T>;
/**
 * @param {unknown} reason
 * @returns {SpeechError}
 */
export function errorOf(reason: unknown): SpeechError;
/** Why something did not work: decide by `code` (docs/errors.md); the message is for developers. */
export class SpeechError extends Error {
    /**
     * @param {string} code
     * @param {string} detail
     */
    constructor(code: string, detail: string);
    code: string;
}
export function newName(): `${string}-${string}-${string}-${string}-${string}`;

/** @typedef {"json" | "text" | "srt" | "vtt" | "tsv" | "rttm"} Format */
/**
 * A recording: a `Blob` or `File`, or its bytes (a `Buffer` of Node's is such).
 *
 * @typedef {Blob | ArrayBuffer | ArrayBufferView} Audio
 */
/**
 * One request. All but an edit may be sent twice without anything being done twice. `form` makes the
 * body anew for each attempt; `ends`: whether what it is about is gone after it. `long`: it is answered
 * only when work is done that nobody knows the length of; `bytes`: a good answer is no text.
 *
 * @typedef {object} Call
 * @property {string} method
 * @property {string} path
 * @property {Record<string, string>} [headers]
 * @property {() => FormData} [form]
 * @property {string} [body]
 * @property {boolean} [ends]
 * @property {boolean} [long]
 * @property {boolean} [bytes]
 */
/**
 * What came back: the body as text, or as bytes where that was asked for.
 *
 * @typedef {{ status: number, headers: Headers, text: string, bytes?: Blob }} Answer
 */
/**
 * `url` with a scheme and without a slash at its end.
 *
 * @param {string} url
 * @throws {ServiceUnreachable} it is no address
 */
export function address(url: string): string;
/**
 * Any other question that is answered in JSON, with a body in JSON or without one.
 *
 * @param {string} method
 * @param {string} path
 * @param {unknown} [json]
 * @param {boolean} [long]
 * @returns {Call}
 */
export function question(method: string, path: string, json?: unknown, long?: boolean): Call;
/**
 * A recording to be worked on; a second one with the same `key` is the first.
 *
 * @param {Audio} audio
 * @param {Record<string, unknown>} options
 * @param {string} key
 * @param {string} name
 * @returns {Call}
 */
export function submit(audio: Audio, options: Record<string, unknown>, key: string, name: string): Call;
/**
 * A page of the caller's jobs.
 *
 * @param {{ state?: string | string[], limit?: number, after?: string }} which
 * @returns {Call}
 */
export function jobs(which: {
    state?: string | string[];
    limit?: number;
    after?: string;
}): Call;
/**
 * Change a transcript, all operations or none. Undoing twice is not undoing once: this is sent once.
 *
 * @param {string} id
 * @param {readonly Record<string, unknown>[]} operations
 * @param {number | undefined} revision
 * @returns {Call}
 */
export function edit(id: string, operations: readonly Record<string, unknown>[], revision: number | undefined): Call;
/**
 * Tell the speakers of a transcript apart again.
 *
 * @param {string} id
 * @param {import("./wire.js").SpeakerCounts} counts
 * @param {number | undefined} revision
 * @returns {Call}
 */
export function diarize(id: string, counts: import("./wire.js").SpeakerCounts, revision: number | undefined): Call;
/**
 * What happened and happens to a job, after the event with this number.
 *
 * @param {string} id
 * @param {number | null} after
 * @returns {Call}
 */
export function events(id: string, after: number | null): Call;
/**
 * Options as a form has them: what is null or undefined is left out, lists have commas.
 *
 * @param {Record<string, unknown>} options
 * @returns {[string, string][]}
 */
export function formFields(options: Record<string, unknown>): [string, string][];
/**
 * The JSON object in an answer.
 *
 * @param {Answer} answer
 * @returns {Record<string, unknown>}
 * @throws {AnswerNotUnderstood} there is none
 */
export function bodyOf(answer: Answer): Record<string, unknown>;
/**
 * What the service said no with; or that it is not this service that said no.
 *
 * @param {Answer} answer
 * @param {number} nowMs since 1970
 */
export function refusalOf(answer: Answer, nowMs: number): AnswerNotUnderstood | import("./errors.js").ServiceError;
/**
 * @param {string} name
 * @returns {Call}
 */
export function deleteModel(name: string): Call;
/** What `transcript` can be had as. */
export const FORMATS: readonly ["json", "text", "srt", "vtt", "tsv", "rttm"];
export const EVENT_STREAM: "text/event-stream";
export function health(): Call;
export function job(id: string): Call;
export function cancel(id: string, revision?: number | undefined): Call;
export function transcript(id: string, format: string): Call;
export function recording(id: string): Call;
export function fine(status: number): boolean;
export type Format = "json" | "text" | "srt" | "vtt" | "tsv" | "rttm";
/**
 * A recording: a `Blob` or `File`, or its bytes (a `Buffer` of Node's is such).
 */
export type Audio = Blob | ArrayBuffer | ArrayBufferView;
/**
 * One request. All but an edit may be sent twice without anything being done twice. `form` makes the
 * body anew for each attempt; `ends`: whether what it is about is gone after it. `long`: it is answered
 * only when work is done that nobody knows the length of; `bytes`: a good answer is no text.
 */
export type Call = {
    method: string;
    path: string;
    headers?: Record<string, string> | undefined;
    form?: (() => FormData) | undefined;
    body?: string | undefined;
    ends?: boolean | undefined;
    long?: boolean | undefined;
    bytes?: boolean | undefined;
};
/**
 * What came back: the body as text, or as bytes where that was asked for.
 */
export type Answer = {
    status: number;
    headers: Headers;
    text: string;
    bytes?: Blob;
};
import { AnswerNotUnderstood } from "./errors.js";

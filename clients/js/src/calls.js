/** Every request that the client makes, and what its answer means. Pure: nothing is sent here. */

import { AnswerNotUnderstood, errorOf, ServiceUnreachable } from "./errors.js";
import { askedSeconds, passes } from "./retry.js";

/** What `transcript` can be had as. */
export const FORMATS = Object.freeze(
  /** @type {const} */ (["json", "text", "srt", "vtt", "tsv", "rttm"]),
);
export const EVENT_STREAM = "text/event-stream";

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
export function address(url) {
  const whole = url.includes("://") ? url : `http://${url}`;
  let scheme = "";
  try {
    scheme = new URL(whole).protocol;
  } catch {
    // said below
  }
  if (scheme !== "http:" && scheme !== "https:")
    throw new ServiceUnreachable(`'${url}' is no address.`, {
      hint: "It begins http:// or https://, as in the service's first line of log.",
    });
  return whole.replace(/\/+$/, "");
}

/** @returns {Call} */
export const health = () => ({ method: "GET", path: "/health" });

/**
 * Any other question that is answered in JSON, with a body in JSON or without one.
 *
 * @param {string} method
 * @param {string} path
 * @param {unknown} [json]
 * @param {boolean} [long]
 * @returns {Call}
 */
export function question(method, path, json, long = false) {
  if (json === undefined) return { method, path, long };
  const headers = { "Content-Type": "application/json" };
  return { method, path, headers, body: JSON.stringify(json), long };
}

/**
 * A recording to be worked on; a second one with the same `key` is the first.
 *
 * @param {Audio} audio
 * @param {Record<string, unknown>} options
 * @param {string} key
 * @param {string} name
 * @returns {Call}
 */
export function submit(audio, options, key, name) {
  const blob = blobOf(audio);
  const fields = formFields(options);
  const form = () => {
    const body = new FormData();
    for (const [field, value] of fields) body.append(field, value);
    body.append("audio", blob, name || nameOf(audio));
    return body;
  };
  return { method: "POST", path: "/v1/jobs", headers: { "Idempotency-Key": key }, form };
}

/**
 * @param {string} id
 * @returns {Call}
 */
export const job = (id) => ({ method: "GET", path: pathOf(id) });

/**
 * A page of the caller's jobs.
 *
 * @param {{ state?: string | string[], limit?: number, after?: string }} which
 * @returns {Call}
 */
export function jobs(which) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(which))
    if (value !== undefined && value !== null) query.set(name, String(value));
  return { method: "GET", path: `/v1/jobs${String(query) && `?${query}`}` };
}

/**
 * The header that asks for a transcript as it was in a revision; none of any.
 *
 * @param {number | undefined} revision
 * @returns {Record<string, string>}
 */
const matching = (revision) => (revision === undefined ? {} : { "If-Match": `"${revision}"` });

/**
 * End a job, or forget one that has ended.
 *
 * @param {string} id
 * @param {number} [revision]
 * @returns {Call}
 */
export const cancel = (id, revision) => ({ method: "DELETE", path: pathOf(id), headers: matching(revision), ends: true });

/**
 * @param {string} id
 * @param {string} format
 * @returns {Call}
 */
export const transcript = (id, format) => ({
  method: "GET",
  path: `${pathOf(id)}/transcript?format=${encodeURIComponent(format)}`,
});

/**
 * The recording itself, where it is kept.
 *
 * @param {string} id
 * @returns {Call}
 */
export const recording = (id) => ({ method: "GET", path: `${pathOf(id)}/audio`, bytes: true });

/**
 * Change a transcript, all operations or none. Undoing twice is not undoing once: this is sent once.
 *
 * @param {string} id
 * @param {readonly Record<string, unknown>[]} operations
 * @param {number | undefined} revision
 * @returns {Call}
 */
export function edit(id, operations, revision) {
  const headers = { "Content-Type": "application/json", ...matching(revision) };
  const body = JSON.stringify({ operations });
  return { method: "PATCH", path: `${pathOf(id)}/transcript`, headers, body };
}

/**
 * Tell the speakers of a transcript apart again.
 *
 * @param {string} id
 * @param {import("./wire.js").SpeakerCounts} counts
 * @param {number | undefined} revision
 * @returns {Call}
 */
export function diarize(id, counts, revision) {
  const headers = { "Content-Type": "application/json", ...matching(revision) };
  return { method: "POST", path: `${pathOf(id)}/diarize`, headers, body: JSON.stringify(counts) };
}

/**
 * What happened and happens to a job, after the event with this number.
 *
 * @param {string} id
 * @param {number | null} after
 * @returns {Call}
 */
export function events(id, after) {
  // Of these a page may send both by CORS. That nothing is cached is said to fetch.
  /** @type {Record<string, string>} */
  const headers = { Accept: EVENT_STREAM };
  if (after !== null) headers["Last-Event-ID"] = String(after);
  return { method: "GET", path: `${pathOf(id)}/events`, headers };
}

/**
 * Options as a form has them: what is null or undefined is left out, lists have commas.
 *
 * @param {Record<string, unknown>} options
 * @returns {[string, string][]}
 */
export function formFields(options) {
  return Object.entries(options)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : String(value)]);
}

/**
 * The JSON object in an answer.
 *
 * @param {Answer} answer
 * @returns {Record<string, unknown>}
 * @throws {AnswerNotUnderstood} there is none
 */
export function bodyOf(answer) {
  const body = objectIn(answer.text);
  if (!body) throw strange(answer.status);
  return body;
}

/**
 * What the service said no with; or that it is not this service that said no.
 *
 * @param {Answer} answer
 * @param {number} nowMs since 1970
 */
export function refusalOf(answer, nowMs) {
  const after = askedSeconds(answer.headers.get("retry-after"), nowMs);
  let body = objectIn(answer.text);
  if (body?.error instanceof Object) body = /** @type {Record<string, unknown>} */ (body.error); // OpenAI's
  if (body && "code" in body) return errorOf(body, answer.status, after);
  if (passes(answer.status)) {
    // a proxy's own
    return errorOf({ detail: `Not now (HTTP ${answer.status}).` }, answer.status, after);
  }
  return strange(answer.status);
}

/** @param {number} status */
export const fine = (status) => status >= 200 && status < 300;

/** @param {string} text */
function objectIn(text) {
  try {
    const body = JSON.parse(text);
    return body !== null && typeof body === "object" && !Array.isArray(body) ? body : null;
  } catch {
    return null;
  }
}

/** @param {number} status 0 where a browser hides a redirection */
function strange(status) {
  return new AnswerNotUnderstood(`What answers is not this service (HTTP ${status}).`, {
    hint: "Check the address; the service's own is in its first line of log.",
  });
}

/**
 * @param {string} name
 * @returns {Call}
 */
export function deleteModel(name) {
  const parts = name.split("/");
  if (parts.some((part) => /^\.{0,2}$/.test(part))) throw new TypeError(`'${name}' is no model's name.`);
  return { method: "DELETE", path: `/v1/models/${parts.map(encodeURIComponent).join("/")}`, ends: true };
}

/** @param {string} id */
function pathOf(id) {
  if (typeof id !== "string" || /^\.{0,2}$/.test(id)) throw new TypeError(`'${id}' is no job's id.`);
  return `/v1/jobs/${encodeURIComponent(id)}`;
}

/** @param {Audio} audio */
function blobOf(audio) {
  if (audio instanceof Blob) return audio;
  if (audio instanceof ArrayBuffer || ArrayBuffer.isView(audio))
    return new Blob([/** @type {BlobPart} */ (audio)]);
  throw new TypeError("A recording is a Blob, an ArrayBuffer, or a view of one.");
}

/** @param {Audio} audio */
const nameOf = (audio) => ("name" in audio && String(audio.name)) || "recording";

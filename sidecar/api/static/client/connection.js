/** One request and its answer by `fetch`: whose silence is too long, and who lets go when. */

import { ConnectionLost, ServiceUnreachable } from "./errors.js";

/** What Node calls a connection that was there. Browsers do not say. */
const BROKEN = new Set(["ECONNRESET", "EPIPE", "UND_ERR_SOCKET"]);

/**
 * @typedef {object} Service
 * @property {string} url
 * @property {string | undefined} token
 * @property {typeof globalThis.fetch} fetch
 * @property {number} silenceMs the longest silence that is borne
 */

/** Made for one request; `close` ends what is left of it. */
export class Connection {
  #service;
  #signal;
  #ours = new AbortController();
  #abort = () => this.#ours.abort();
  /** @type {Response | undefined} */
  #response;

  /**
   * @param {Service} service
   * @param {AbortSignal} [signal]
   * @throws the signal's reason
   */
  constructor(service, signal) {
    signal?.throwIfAborted();
    this.#service = service;
    this.#signal = signal;
    signal?.addEventListener("abort", this.#abort);
  }

  /**
   * The head of the answer. How long an upload takes, nobody knows: that is for the signal to end.
   *
   * @param {import("./calls.js").Call} call
   * @throws {ServiceUnreachable} there is none
   */
  async open(call) {
    const { url, token, fetch } = this.#service;
    const headers = new Headers(call.headers); // a TypeError here is the caller's
    if (token) headers.set("Authorization", `Bearer ${token}`);
    /** @type {RequestInit} */
    const request = {
      method: call.method,
      headers,
      cache: "no-store",
      credentials: "omit",
      redirect: "manual",
      signal: this.#ours.signal,
    };
    if (call.form) request.body = call.form();
    else if (call.body !== undefined) request.body = call.body;
    const opening = () => fetch(url + call.path, request);
    this.#response = await this.#heard(opening, !call.form && !call.long);
    return this.#response;
  }

  /** The rest of the answer, as text. */
  async text() {
    return this.#heard(() => /** @type {Response} */ (this.#response).text());
  }

  /** The rest of the answer, as it was sent. */
  async blob() {
    const pieces = [];
    for await (const piece of this.pieces()) pieces.push(/** @type {BlobPart} */ (piece));
    return new Blob(pieces, { type: this.#response?.headers.get("content-type") ?? "" });
  }

  /**
   * The rest of the answer, as it comes.
   *
   * @returns {AsyncGenerator<Uint8Array, void, void>}
   */
  async *pieces() {
    const reader = this.#response?.body?.getReader();
    while (reader) {
      const { done, value } = await this.#heard(() => reader.read());
      if (done) return;
      yield value;
    }
  }

  /** Let go. */
  close() {
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#ours.abort();
  }

  /**
   * What `work` gives, unless nothing is heard for too long.
   *
   * @template T
   * @param {() => Promise<T>} work
   * @param {boolean} [limited]
   * @returns {Promise<T>}
   */
  async #heard(work, limited = true) {
    const timer = limited ? setTimeout(this.#abort, this.#service.silenceMs) : undefined;
    try {
      return await work();
    } catch (cause) {
      this.#signal?.throwIfAborted();
      throw this.#lost(cause);
    } finally {
      clearTimeout(timer);
    }
  }

  /** @param {unknown} cause */
  #lost(cause) {
    const { url } = this.#service;
    const code = /** @type {any} */ (cause)?.cause?.code;
    if (this.#response || this.#ours.signal.aborted || BROKEN.has(code))
      return new ConnectionLost(`The service at ${url} broke off.`, { cause });
    return new ServiceUnreachable(`No service answers at ${url}.`, {
      hint: "Is it running? A page needs its origin allowed there, too.",
      cause,
    });
  }
}

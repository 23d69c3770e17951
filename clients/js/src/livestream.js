/**
 * One live session over as many connections as it takes: what was sent, what the service has of it,
 * what it told. Pure: sockets are elsewhere.
 *
 * Sound and orders stand in one line until the service says that it has them. A connection that breaks
 * takes nothing along: the next one asks what is there, sends the rest again, and hears what was told
 * behind the last event that came.
 */

import { AnswerNotUnderstood, ConnectionLost, errorOf, ServiceError } from "./errors.js";
import { waitMs } from "./retry.js";

/** Bytes of a sample. */
const WIDTHS = /** @type {Record<string, number>} */ ({ pcm16: 2, float32: 4 });
/** Seconds of sound that go in one message, at most. */
const MESSAGE_S = 1;
/** So many messages without a word of the service; then it is waited for one. */
const MESSAGES = 64;
/** Longest pause between two attempts while the service keeps the session (`grace_s` of `began`). */
const RECONNECT_MS = 2000;
/** What to do once it does not. */
export const LOST_HINT =
  "Begin a new session once the service answers. If interruptions are longer than its live_grace, raise that setting.";
/** Seconds of sound that wait for the service, at most: whoever sends waits then, too. */
const KEPT_S = 120;
/** Codes of what may be another answer a little later, to somebody who comes again. */
const PASSING = new Set(["rate_limited", "shutting_down", "live_full", "journal_unreachable"]);

/** @typedef {{ start: number, bytes: Uint8Array }} Sound `start`: its first sample, of the session's */
/** @typedef {{ number: number, text: string }} Order */

export class LiveStream {
  /** Its id, by which the service knows it. */
  session;
  /** @type {Record<string, any> | null} what the service said when it took the session */
  began = null;
  /** The summary has come. */
  ended = false;
  finishing = false;
  /** Seconds of sound that the service has, of these heard, and of these without a missing word. */
  receivedS = 0;
  heardS = 0;
  recognizedS = 0;
  /** @type {number} */
  #width;
  /** @type {number} */
  #rate;
  #begin;
  /** @type {import("./retry.js").Retry} */
  #retry;
  /** @type {(Sound | Order)[]} */
  #line = [];
  #sent = 0;
  #samples = 0;
  #orders = 0;
  #haveSamples = 0;
  #haveOrders = 0;
  #last = 0;
  #unanswered = 0;
  #ready = false;
  #tried = false;
  #failures = 0;
  /** @type {number | null} */
  #lostAt = null;

  /**
   * @param {string} session
   * @param {{ rate: number, encoding: string }} sound
   * @param {{ channels?: 1 | 2 }} options
   * @param {import("./retry.js").Retry} retry
   * @throws {TypeError} there is no such encoding
   */
  constructor(session, { rate, encoding }, options, retry) {
    const width = WIDTHS[encoding];
    if (!width) throw new TypeError(`'${encoding}' is no encoding: pcm16, float32.`);
    this.session = session;
    [this.#width, this.#rate, this.#retry] = [width * (options.channels ?? 1), rate, retry];
    this.#begin = { ...options, encoding, rate };
  }

  /** Whether as much waits for the service as may. */
  get full() {
    return (this.#samples - this.#haveSamples) / this.#rate >= KEPT_S;
  }

  /**
   * More sound: whole samples, which stay as they are.
   *
   * @param {Uint8Array} bytes
   * @throws {TypeError} it is none, or the last was said to have come
   */
  sound(bytes) {
    if (bytes.length % this.#width)
      throw new TypeError(`${bytes.length} bytes are no whole samples of ${this.#width} bytes.`);
    this.#check();
    for (let at = 0; at < bytes.length; at += this.#most) {
      const piece = bytes.slice(at, at + this.#most);
      this.#line.push({ start: this.#samples, bytes: piece });
      this.#samples += piece.length / this.#width;
    }
  }

  /**
   * Something to be done behind the sound that came: commit, cancel, change, finish.
   *
   * @param {string} type
   * @param {object} [options]
   * @throws {TypeError} the last order was given
   */
  order(type, options = {}) {
    this.#check();
    this.#orders += 1;
    this.finishing = type === "finish";
    this.#line.push({ number: this.#orders, text: JSON.stringify({ type, ...options }) });
  }

  /** The first message of a connection. */
  opening() {
    const resumed = this.#tried ? { after: this.#last } : {};
    [this.#ready, this.#sent, this.#unanswered, this.#tried] = [false, 0, 0, true];
    return JSON.stringify({ type: "begin", session: this.session, ...resumed, ...this.#begin });
  }

  /**
   * What goes to the service now; null: nothing, until there is more or it is ready.
   *
   * @returns {Uint8Array | string | null}
   */
  next() {
    const item = this.#line[this.#sent];
    if (!this.#ready || !item || this.#unanswered >= MESSAGES) return null;
    this.#unanswered += 1;
    this.#sent += 1;
    if ("text" in item) return item.text;
    const pieces = [item.bytes];
    let size = item.bytes.length;
    for (;;) {
      const more = this.#line[this.#sent];
      if (!more || "text" in more || size + more.bytes.length > this.#most) break;
      pieces.push(more.bytes);
      size += more.bytes.length;
      this.#sent += 1;
    }
    if (pieces.length === 1) return item.bytes;
    const whole = new Uint8Array(size);
    let at = 0;
    for (const piece of pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    return whole;
  }

  /**
   * The event in a message; null where it is none, or was there already.
   *
   * @param {unknown} text
   * @returns {import("./live.js").LiveEvent | null}
   * @throws {ServiceError | AnswerNotUnderstood} the service said no, or is something else
   */
  took(text) {
    const body = bodyOf(text);
    if (body.type === "error") throw errorOf({ ...body, detail: body.message });
    if (body.type === "began") [this.began, this.#ready, this.#failures, this.#lostAt] = [body, true, 0, null];
    if (body.type === "began" || body.type === "received") {
      this.#acknowledge(body);
      return null;
    }
    if (typeof body.number !== "number" || body.number <= this.#last) return null;
    [this.#last, this.#failures, this.#lostAt] = [body.number, 0, null];
    this.ended = body.type === "summary";
    return /** @type {import("./live.js").LiveEvent} */ (/** @type {unknown} */ (body));
  }

  /**
   * The connection is no more; milliseconds to wait before the next.
   *
   * @param {import("./errors.js").ClientError | null} error
   * @param {number} chance
   * @param {number} now milliseconds
   * @throws {import("./errors.js").ClientError} there is none
   */
  lost(error, chance, now) {
    const told = this.#ready;
    this.#ready = false;
    const code = error instanceof ServiceError ? error.code : "";
    if (code === "session_not_found" && !this.began) {
      this.#tried = false; // it never got there, and begins now
      return 0;
    }
    const said = error instanceof ServiceError || error instanceof AnswerNotUnderstood;
    // Who wants to begin is told at once that there is no room; who comes again, comes again.
    // A proxy has answers of its own while the service is away.
    const passes = PASSING.has(code) || error instanceof AnswerNotUnderstood;
    const passing = passes && this.began && !told;
    if (said && !passing) throw error;
    this.#failures += 1;
    const asked = error instanceof ServiceError ? error.retryAfter : null;
    const wait = this.#pauseMs(chance, asked, now);
    if (wait === null)
      throw error ?? new ConnectionLost("The service broke off the live session.", { hint: LOST_HINT });
    return wait;
  }

  /**
   * Milliseconds before the next attempt; null: the attempts and `grace_s` are over.
   *
   * @param {number} chance
   * @param {number | null} asked
   * @param {number} now
   */
  #pauseMs(chance, asked, now) {
    this.#lostAt ??= now;
    const left = (this.began?.grace_s ?? 0) * 1000 - (now - this.#lostAt);
    if (left <= 0) return waitMs(this.#retry, this.#failures, chance, asked);
    // With NEVER the first failure is the last one.
    const counted = Math.min(this.#failures, Math.max(1, this.#retry.attempts - 1));
    const wait = waitMs(this.#retry, counted, chance, asked);
    if (wait === null || asked !== null) return wait;
    // The last one finds out whether it is gone. Chance spreads clients that were cut together.
    return Math.min(wait, RECONNECT_MS * (0.5 + chance / 2), left + 100 + 1000 * chance);
  }

  get #most() {
    return Math.round(MESSAGE_S * this.#rate) * this.#width;
  }

  #check() {
    if (this.finishing) throw new TypeError("finish() was called: this session takes no more audio.");
  }

  /** @param {Record<string, any>} body */
  #acknowledge(body) {
    const { received_samples: samples, received_orders: orders } = body;
    if (!(samples >= this.#haveSamples && samples <= this.#samples && orders <= this.#orders))
      throw new AnswerNotUnderstood("The live session has audio that was never sent.");
    [this.#haveSamples, this.#unanswered] = [samples, 0];
    this.#haveOrders = Math.max(orders, this.#haveOrders);
    this.receivedS = samples / this.#rate;
    [this.heardS, this.recognizedS] = [body.heard_s ?? this.heardS, body.recognized_s ?? this.recognizedS];
    for (let item = this.#line[0]; item && this.#isThere(item); item = this.#line[0]) {
      this.#line.shift();
      this.#sent = Math.max(0, this.#sent - 1);
    }
    const first = this.#line[0];
    if (first && "bytes" in first && first.start < samples)
      this.#line[0] = { start: samples, bytes: first.bytes.slice((samples - first.start) * this.#width) };
  }

  /** @param {Sound | Order} item */
  #isThere(item) {
    if ("text" in item) return item.number <= this.#haveOrders;
    return item.start + item.bytes.length / this.#width <= this.#haveSamples;
  }
}

/**
 * @param {unknown} text
 * @returns {Record<string, any>}
 */
function bodyOf(text) {
  try {
    const body = JSON.parse(String(text));
    if (body && typeof body === "object" && !Array.isArray(body)) return body;
  } catch {
    // said below
  }
  throw new AnswerNotUnderstood("What answers at /v1/live is not this service.");
}

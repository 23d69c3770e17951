/** Live audio: sound goes up while it is spoken, and words come back. */

import { ask } from "./asking.js";
import * as calls from "./calls.js";
import { ClientError, ConnectionLost, ServiceError, ServiceUnreachable } from "./errors.js";
import { LiveStream, LOST_HINT } from "./livestream.js";
import { newKey } from "./world.js";

/** @typedef {import("./wire.js").Segment} Segment */

/**
 * What is said, the `number`-th; times are seconds on the session's clock, which is its sound
 * (docs/live-wire.md).
 *
 * @typedef {{ type: "speech_started" | "speech_stopped" | "turn_dropped", number: number, turn: number, at: number, channel?: number }} Spoken
 * @typedef {{ type: "partial", number: number, turn: number, piece: number, start: number, end: number, text: string, stable: string, tail: string, channel?: number }} Partial
 * @typedef {{ type: "final", number: number, turn: number, piece: number, segment: Segment, diarized: boolean, language: string, wait_s: number, work_s: number, channel?: number }} Final
 * @typedef {{ type: "turn_ended", number: number, turn: number, start: number, end: number, text: string, channel?: number }} TurnEnded
 * @typedef {{ type: "speakers_revised", number: number, speakers: Record<string, string>, names?: Record<string, string | null> }} SpeakersRevised
 * @typedef {{ type: "notice", number: number, code: string, message: string, channel?: number }} Notice
 * @typedef {{ type: "summary", number: number, transcript: import("./wire.js").Transcript, job?: string }} Summary
 * @typedef {Spoken | Partial | Final | TurnEnded | SpeakersRevised | Notice | Summary} LiveEvent
 */

/**
 * Options of a session (docs/live-wire.md). What is left out is as the service has it.
 *
 * @typedef {object} LiveOptions
 * @property {string} [language] "auto", or a code such as "en"
 * @property {"silence" | "client" | "one"} [turns] who ends a turn
 * @property {Record<string, number>} [endpointing] what counts as speech, and where it ends
 * @property {boolean} [partials] words while somebody speaks
 * @property {boolean} [diarize] tell speakers apart
 * @property {boolean} [recognise] say who of the people known somebody is
 * @property {boolean} [keep] it becomes a job, whose id the summary has; it is that of the session, also if no summary came
 * @property {string} [name] of that job
 * @property {boolean} [words] times of words in finals
 * @property {boolean} [translate]
 * @property {boolean} [accurate] rather right than quick
 * @property {string} [prompt] what it is about
 * @property {string} [hotwords] names and terms that may be said, between commas
 * @property {number} [delay_s] how far behind the sound it may be
 */

/**
 * `rate`: samples a second (16000); `encoding`: what one is, little-endian. `channels`: 2 for interleaved
 * samples, left first, with names between commas (`channel_names`). `signal` ends the
 * session. `ticket` of `POST /v1/live/ticket` instead of a token: a word opens one connection, a function
 * is asked for one before each, also to reconnect. `WebSocket`: another one than the platform's.
 *
 * @typedef {LiveOptions & { rate?: number, encoding?: "pcm16" | "float32", channels?: 1 | 2, channel_names?: string, signal?: AbortSignal,
 *   ticket?: string | (() => string | Promise<string>), WebSocket?: typeof globalThis.WebSocket }} LiveSetup
 */

/** The subprotocol that is spoken; the token stands beside it, as a page has no headers for it. */
const SPOKEN = "vibevoice-live";
/** What may stand in a subprotocol; a token with other characters goes by a ticket. */
const PLAIN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Between two messages: a service takes so many in a minute. */
const PAUSE_MS = 20;
/** So long a connection may be silent while it opens. */
const OPENING_MS = 10_000;
/** The close code of who needs the session no more. */
const DONE = 1000;

/**
 * One live session, as `VibevoiceClient.live` gives it: it takes sound and is an iterator of events. A
 * connection that is lost is made again, what the service has not got is sent again, and events go on
 * behind the last that came, as long as the service keeps the session (its `live_grace`).
 */
export class LiveSession {
  /** @type {import("./connection.js").Service} */
  #service;
  /** @type {import("./world.js").World} */
  #world;
  /** @type {import("./retry.js").Retry} */
  #retry;
  #stream;
  #setup;
  /** @type {LiveEvent[]} */
  #events = [];
  /** @type {unknown} */
  #error = null;
  #over = false;
  #closing = new AbortController();
  /** @type {Set<() => void>} who waits for something to come */
  #waiting = new Set();
  #done;

  /**
   * @param {import("./connection.js").Service} service
   * @param {LiveSetup} setup
   * @param {{ retry: import("./retry.js").Retry, world: import("./world.js").World }} how
   */
  constructor(service, setup, { retry, world }) {
    const { rate = 16_000, encoding = "pcm16", signal, ticket, WebSocket, ...options } = setup;
    this.#setup = { signal, ticket, WebSocket: WebSocket ?? globalThis.WebSocket };
    if (!this.#setup.WebSocket)
      throw new ClientError("There is no WebSocket here.", {
        hint: "Node has one from version 22 on. Before that: npm install ws, and hand it in: live({ WebSocket }).",
      });
    [this.#service, this.#retry, this.#world] = [service, retry, world];
    const id = newKey();
    this.#stream = new LiveStream(id, { rate, encoding }, options, retry);
    if (signal?.aborted) this.#closing.abort();
    else signal?.addEventListener("abort", this.close, { once: true });
    this.#done = this.#run();
  }

  /** Its id, by which the service knows it. */
  get session() {
    return this.#stream.session;
  }

  /** Seconds of sound that the service has. */
  get receivedSeconds() {
    return this.#stream.receivedS;
  }

  /** Seconds of it that were heard. */
  get heardSeconds() {
    return this.#stream.heardS;
  }

  /** Seconds of it in which no word is missing. */
  get recognizedSeconds() {
    return this.#stream.recognizedS;
  }

  /**
   * When the service has taken the session.
   *
   * @throws what the session ended with
   */
  async opened() {
    while (!this.#stream.began && !this.#over) await this.#change();
    if (!this.#stream.began) this.#throw();
  }

  /**
   * More sound: whole samples of the encoding. Whoever awaits it waits while very much is on its way.
   *
   * @param {ArrayBuffer | ArrayBufferView} sound
   */
  async send(sound) {
    this.#throw();
    const bytes =
      sound instanceof ArrayBuffer
        ? new Uint8Array(sound)
        : new Uint8Array(sound.buffer, sound.byteOffset, sound.byteLength);
    this.#stream.sound(bytes);
    this.#ring();
    while (this.#stream.full && !this.#over) await this.#change();
    this.#throw();
  }

  /** End the turn behind the sound that was sent. */
  commit() {
    this.#order("commit");
  }

  /** Drop the turn, and what was sent and not heard. */
  cancel() {
    this.#order("cancel");
  }

  /**
   * Hear on with other options; those that are not named stay.
   *
   * @param {LiveOptions} options
   */
  change(options) {
    this.#order("change", options);
  }

  /** No more sound comes: the rest is told, and then the summary. */
  finish() {
    if (!this.#stream.finishing) this.#order("finish");
  }

  /** Let go. A session that has not told its summary ends without it. */
  close = () => {
    this.#closing.abort();
    this.#ring();
    return this.#done;
  };

  /** @returns {AsyncGenerator<LiveEvent, void, void>} */
  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        const event = this.#events.shift();
        if (event) yield event;
        else if (this.#over) break;
        else await this.#change();
      }
      this.#throw();
    } finally {
      await this.close();
    }
  }

  #throw() {
    if (this.#error) throw this.#error;
  }

  /**
   * @param {string} type
   * @param {object} [options]
   */
  #order(type, options) {
    this.#throw();
    this.#stream.order(type, options);
    this.#ring();
  }

  /** @returns {Promise<void>} */
  #change() {
    return new Promise((resolve) => this.#waiting.add(resolve));
  }

  #ring() {
    const waiting = [...this.#waiting];
    this.#waiting.clear();
    for (const resolve of waiting) resolve();
  }

  async #run() {
    try {
      while (!this.#stream.ended && !this.#closing.signal.aborted) {
        const error = await this.#connection();
        if (this.#stream.ended || this.#closing.signal.aborted) break;
        await this.#world.sleep(this.#stream.lost(error, this.#world.random(), this.#world.now()), this.#closing.signal);
      }
    } catch (error) {
      if (!this.#closing.signal.aborted) this.#error = error;
    } finally {
      const { signal } = this.#setup;
      signal?.removeEventListener("abort", this.close);
      if (signal?.aborted) this.#error ??= signal.reason;
      this.#over = true;
      this.#ring();
    }
  }

  /**
   * One connection, to its end.
   *
   * @returns {Promise<ClientError | null>} what was wrong
   */
  async #connection() {
    const { url, token } = this.#service;
    const offered = [SPOKEN];
    let address = `ws${url.slice("http".length)}/v1/live`;
    try {
      const plain = !this.#setup.ticket && token && PLAIN.test(token);
      if (plain) offered.push(`bearer.${token}`);
      else if (token || this.#setup.ticket) address += `?ticket=${encodeURIComponent(await this.#ticket())}`;
    } catch (error) {
      if (error instanceof ClientError) return error;
      throw error;
    }
    const socket = new this.#setup.WebSocket(address, offered);
    socket.binaryType = "arraybuffer";
    /** @type {ClientError | null} */
    let wrong = null;
    let [open, opened] = [true, false];
    return new Promise((resolve, reject) => {
      const farewell = () => socket.close(DONE);
      const ended = () => {
        open = false;
        clearTimeout(silence);
        this.#closing.signal.removeEventListener("abort", farewell);
        this.#ring();
        resolve(wrong ?? this.#lost());
      };
      const silence = setTimeout(() => {
        socket.close();
        ended();
      }, OPENING_MS);
      this.#closing.signal.addEventListener("abort", farewell, { once: true });
      socket.onopen = () => {
        opened = true;
        socket.send(this.#stream.opening());
        this.#send(socket, () => open).catch(reject);
      };
      socket.onmessage = ({ data }) => {
        clearTimeout(silence);
        if (wrong) return;
        try {
          const event = this.#stream.took(data);
          if (event) this.#events.push(event);
        } catch (error) {
          if (!(error instanceof ClientError)) return reject(error);
          wrong = error;
          socket.close();
        }
        if (this.#stream.ended) socket.close(DONE);
        this.#ring();
      };
      socket.onclose = ended;
      socket.onerror = (event) => {
        if (opened) return;
        wrong ??= refusalOf(event);
        ended(); // Node does not always close what never opened
      };
      if (this.#closing.signal.aborted) farewell();
    });
  }

  /**
   * @param {WebSocket} socket
   * @param {() => boolean} isOpen
   */
  async #send(socket, isOpen) {
    while (isOpen() && !this.#closing.signal.aborted) {
      const piece = this.#stream.next();
      if (piece === null) {
        await this.#change();
        continue;
      }
      if (socket.readyState === socket.OPEN) socket.send(piece);
      await this.#world.sleep(PAUSE_MS); // what comes meanwhile goes in one message
    }
  }

  #lost() {
    const { url } = this.#service;
    if (this.#stream.began)
      return new ConnectionLost(
        `The service at ${url} broke off the live session, and no attempt to reconnect succeeded.`,
        { hint: LOST_HINT },
      );
    return new ServiceUnreachable(`No service answers at ${url}.`, {
      hint: "Is it running? A page needs its origin allowed there, too.",
    });
  }

  async #ticket() {
    const { ticket: given } = this.#setup;
    if (typeof given === "string") return given;
    if (given) return this.#ticketFrom(given);
    const call = calls.question("POST", "/v1/live/ticket", undefined, false);
    const how = { retry: this.#retry, world: this.#world, signal: this.#closing.signal };
    const { ticket } = calls.bodyOf(await ask(this.#service, call, how));
    return String(ticket);
  }

  /**
   * What the caller's function gives, unless the session is left or `OPENING_MS` pass before.
   *
   * @param {() => string | Promise<string>} given
   */
  async #ticketFrom(given) {
    const { signal } = this.#closing;
    let over = () => {};
    const timer = setTimeout(() => over(), OPENING_MS);
    try {
      const ended = new Promise((_, reject) => {
        over = () => reject(new Error(signal.aborted ? "the session was left" : "the function did not settle"));
        signal.addEventListener("abort", over, { once: true });
      });
      const ticket = await Promise.race([given(), ended]);
      if (typeof ticket !== "string" || !ticket) throw new TypeError("the function gave no text");
      return ticket;
    } catch (cause) {
      throw new ServiceUnreachable(`There was no ticket for the live session: ${cause}.`, {
        hint: "The function `ticket` of live() failed; its error is the cause.",
        cause,
      });
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", over);
    }
  }
}

/**
 * What a refused handshake said, as far as a platform tells: the package `ws` does, browsers do not.
 *
 * @param {Event} event
 * @returns {ServiceError | null}
 */
function refusalOf(event) {
  const said = "message" in event ? String(event.message) : "";
  const status = Number(/server response: (\d{3})$/.exec(said)?.[1]);
  if (status !== 401 && status !== 403) return null; // a proxy says any other while the service starts
  const hint = status === 403 ? "Add the page's origin to allowed_origins of the service, whose log names it." : "";
  return new ServiceError(`The service refused the connection (${status}).`, { hint, status });
}

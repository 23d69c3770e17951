/** Live audio: a stream of the microphone goes up, words come back. */

import { Channel } from "@tauri-apps/api/core";
import { call, errorOf, newName } from "./call.js";

const RATE = 16_000;
/** Seconds of sound that go in one call. */
const PIECE_S = 0.1;

/**
 * @typedef {import("./wire.js").LiveEvent} LiveEvent
 * @typedef {import("./wire.js").Transcript} Transcript
 *
 * @typedef {import("./wire.js").LiveOptions & { onEvent?: (event: LiveEvent) => void }} LiveSetup
 */

/**
 * Transcribe a stream while it lasts, such as that of `navigator.mediaDevices.getUserMedia({ audio: true })`.
 *
 * @param {MediaStream} stream stays the caller's: its tracks are not stopped here
 * @param {LiveSetup} [setup]
 * @returns {Promise<LiveSession>} once the service has taken the session
 */
export async function live(stream, { onEvent, ...options } = {}) {
  const session = new LiveSession(stream, onEvent);
  await session.begin(options);
  return session;
}

/** One session; `done` has its transcript, or why there is none. */
export class LiveSession {
  /** @type {Promise<Transcript | null>} the summary; null after `close` */
  done;
  #name = newName();
  /** @type {MediaStream} */
  #stream;
  /** @type {((event: LiveEvent) => void) | undefined} */
  #onEvent;
  /** @type {AudioContext | null} */
  #context = null;
  /** Sound that is not sent yet, and bytes of it that are a piece. @type {Uint8Array[]} */
  #waiting = [];
  #piece = 2 * RATE * PIECE_S;
  /** @type {Promise<unknown>} what was sent last: sound must not overtake sound */
  #sent = Promise.resolve();
  /** @type {Transcript | null} */
  #summary = null;
  /** @type {(error: unknown) => void} */
  #end = () => {};

  /**
   * @param {MediaStream} stream
   * @param {((event: LiveEvent) => void) | undefined} onEvent
   */
  constructor(stream, onEvent) {
    [this.#stream, this.#onEvent] = [stream, onEvent];
    this.done = new Promise((resolve, reject) => {
      this.#end = (error) => {
        void this.#silence();
        if (error) reject(errorOf(error));
        else resolve(this.#summary);
      };
    });
    this.done.catch(() => {}); // whoever awaits it gets it
  }

  /** @param {import("./wire.js").LiveOptions} options */
  async begin(options) {
    /** @type {Channel<any>} */
    const onEvent = new Channel();
    onEvent.onmessage = (event) => {
      if ("ended" in event) return this.#end(event.ended);
      if (event.type === "summary") this.#summary = event.transcript;
      this.#onEvent?.(event);
    };
    const begin = { ...options, rate: RATE, encoding: "pcm16" };
    await call("live_begin", { session: this.#name, options: begin, onEvent });
    try {
      await this.#listen(options.channels ?? 1);
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  /** No more sound: the rest is told; the transcript of all of it. */
  async finish() {
    await this.#silence();
    await this.#order("finish");
    return this.done;
  }

  /** Leave it; there is no transcript. */
  async close() {
    await this.#silence();
    await this.#order("close");
  }

  /** End the turn here. */
  commit = () => this.#order("commit");

  /** @param {1 | 2} channels */
  async #listen(channels) {
    const context = new AudioContext({ sampleRate: RATE }); // it resamples what the stream has
    this.#context = context;
    await context.audioWorklet.addModule(new URL("./worklet.js", import.meta.url));
    this.#piece *= channels;
    const node = new AudioWorkletNode(context, "vibevoice-pcm", { numberOfOutputs: 0, channelCount: channels, channelCountMode: "explicit" });
    node.port.onmessage = ({ data }) => {
      this.#waiting.push(new Uint8Array(data));
      if (this.#waiting.reduce((sum, one) => sum + one.length, 0) >= this.#piece) this.#sendWaiting();
    };
    context.createMediaStreamSource(this.#stream).connect(node);
    await context.resume();
  }

  /** @param {"commit" | "finish" | "close"} order */
  #order(order) {
    this.#sendWaiting();
    return this.#send(() => call("live_order", { session: this.#name, order }));
  }

  #sendWaiting() {
    const sound = new Uint8Array(this.#waiting.flatMap((one) => [...one]));
    this.#waiting = [];
    if (sound.length) this.#send(() => call("live_send", sound, { session: this.#name }));
  }

  /** @param {() => Promise<unknown>} what */
  #send(what) {
    this.#sent = this.#sent.then(what).catch((error) => {
      // A session that is over says why by its channel. Another error means that sound is lost:
      // "inbound_full", where the service did not keep up for a minute.
      if (error.code !== "session_over") this.#end(error);
    });
    return this.#sent;
  }

  async #silence() {
    const context = this.#context;
    this.#context = null;
    await context?.close();
    await new Promise((resolve) => setTimeout(resolve)); // what the audio thread has sent comes first
  }
}

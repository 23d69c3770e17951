/** One spoken conversation: the microphone, the connection, the sound that comes, and what was told. */

import { Capture } from "../capture.js";
import { refusal } from "../recorder.js";
import { trouble } from "../words.js";
import { Player } from "./player.js";
import { after, NOTHING } from "./told.js";
import { Wire } from "./wire.js";

/** Samples a second, where there is no microphone that has its own. */
const RATE = 24000;
/** Seconds of sound in a piece: what is said over a reply is known that much later. */
const PIECE_S = 0.04;
const LOUDER = 4;
/** So often who only types says that they are still there. */
const THERE_MS = 60000;
/** An end that nobody answers is one. */
const ENDING_MS = 10000;

/**
 * `opening`: the service gets ready; `ending`: the transcript is waited for. `ended` is what it became.
 *
 * @typedef {"opening" | "live" | "ending" | "over"} State
 */

export class Conversation {
  /** @type {State} */
  state = "opening";
  /** How loud it is, 0 to 1. */
  level = 0;
  told = NOTHING;
  ended = null;
  wrong = null;
  /** What keeps the microphone from being heard: then turns are typed. */
  deaf = "";
  #capture = null;
  #context = null;
  #player = new Player();
  #wire = new Wire();
  #changed;
  #turn = 0;
  #timers = [];

  /** @param {() => void} changed */
  constructor(changed) {
    this.#changed = changed;
  }

  /** @param {{ voice: string, model: string, typed: boolean }} wishes */
  async begin({ voice, model, typed }) {
    try {
      if (!typed) await this.#listen();
      this.#context ??= new AudioContext({ sampleRate: RATE });
      await this.#player.begin(this.#context, (turn, seconds, why) => this.#played(turn, seconds, why));
      this.#context.onstatechange = () => this.#changed();
      this.#context.resume(); // where the browser wants a click first, that is said
      const begin = { rate: this.#context.sampleRate, voice, model };
      await this.#wire.open(begin, (message) => this.#hear(message), (error) => this.#over(error));
      if (!this.#capture) this.#timers.push(setInterval(() => this.#wire.sound(new Int16Array(RATE / 10)), THERE_MS));
    } catch (error) {
      this.#over(trouble(error));
    }
  }

  /** Whether the browser keeps the sound back: it wants somebody to touch the page first. */
  get mute() {
    return this.state === "live" && this.#context?.state === "suspended";
  }

  /** Somebody did. */
  touched() {
    if (this.mute) this.#context.resume();
  }

  /** @param {string} text a turn of the person's */
  say(text) {
    if (text.trim()) this.#wire.send({ type: "text", text });
  }

  /** @param {{ voice?: string, model?: string }} wishes from the next reply on */
  change(wishes) {
    this.#wire.send({ type: "change", ...wishes });
  }

  /** Interrupt, at once. */
  interrupt() {
    this.#player.drop(this.#turn, "interrupt");
  }

  /** @param {boolean} keep whether it becomes a job of the service */
  end(keep) {
    if (this.state !== "live") return this.close();
    this.#player.drop(this.#turn, "clear");
    this.#capture?.close();
    this.state = "ending";
    this.#wire.send({ type: "end", keep });
    this.#timers.push(setTimeout(() => this.#over(null), ENDING_MS));
    this.#changed();
  }

  /** Let go of all of it. */
  close() {
    this.#over(null);
  }

  async #listen() {
    this.deaf = Capture.why();
    if (this.deaf) return;
    const capture = new Capture({ echoCancellation: true, noiseSuppression: true, autoGainControl: true }, PIECE_S);
    try {
      await capture.begin((piece) => this.#said(piece), () => this.#lost());
    } catch (error) {
      capture.close();
      this.deaf = refusal(error);
      return;
    }
    [this.#capture, this.#context] = [capture, capture.context];
  }

  #said(piece) {
    let sum = 0;
    for (const one of piece) sum += one * one;
    this.level = Math.min(1, (LOUDER * Math.sqrt(sum / piece.length)) / 32768);
    if (this.state === "live") this.#wire.sound(piece);
  }

  #lost() {
    [this.deaf, this.level] = ["The microphone was disconnected. Type instead, or start again.", 0];
    this.#changed();
  }

  #hear(message) {
    if (message instanceof ArrayBuffer) return this.#player.sound(this.#turn, message);
    const { type, turn } = message;
    if (type === "began" && this.state === "opening") this.state = "live";
    if (type === "reply_started") this.#turn = turn;
    if (type === "hold" || type === "release") return this.#player.order(type);
    if (type === "clear") return this.#player.drop(turn, type);
    if (type === "ended") [this.ended, this.state] = [message, "ending"];
    this.told = after(this.told, message);
    this.#changed();
  }

  #played(turn, seconds, why) {
    if (why === "interrupt") this.#wire.send({ type: "interrupt", ...(turn && { turn, seconds }) });
    else if (turn) this.#wire.send({ type: "played", turn, seconds, ...(why && { cleared: true }) });
  }

  #over(error) {
    if (this.state === "over") return;
    [this.state, this.wrong, this.level] = ["over", error, 0];
    for (const timer of this.#timers) clearInterval(timer);
    this.#wire.close();
    this.#capture?.close();
    if (this.#context && this.#context.state !== "closed") this.#context.close();
    this.#changed();
  }
}

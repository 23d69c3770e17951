/** One live talk: the microphone, the session that hears it, what it told, and the sound itself. */

import { after, NOTHING, segmentsOf } from "./captions.js";
import { Capture } from "./capture.js";
import { Kept } from "./kept.js";
import { client } from "./session.js";
import { trouble } from "./words.js";

/** So often a talk that is paused says that it is still there. */
const THERE_MS = 60000;
/** Pieces from one look at how far the service is to the next. */
const LOOK = 10;
const LOUDER = 4;
/** Pieces in a row that are nothing but zeros, after which a microphone is taken for muted: 3 s. Rooms
 * are never so quiet. */
const MUTED = 30;

/**
 * `opening`: the service gets ready, and nothing said is lost; `recording`: the service has gone, and
 * the sound is still kept, unless it was paused; `ending`: the last words are waited for.
 *
 * @typedef {"opening" | "live" | "paused" | "recording" | "ending" | "over"} State
 */

export class Talk {
  /** How loud it is, 0 to 1. */
  level = 0;
  /** @type {State} */
  state = "opening";
  error = null;
  captions = NOTHING;
  /** @type {File | null} its sound, once it is over */
  file = null;
  revision = 0;
  /** Whether it is to become a job of the service, which its summary then names. */
  keeps = false;
  job = "";
  #name;
  #capture = new Capture();
  #changed;
  #kept;
  #session;
  #there = 0;
  #zeros = 0;

  /** @param {string} name @param {(event?: import("./captions.js").LiveEvent) => void} changed */
  constructor(name, changed) {
    [this.#name, this.#changed] = [name, changed];
  }

  /**
   * Ask for the microphone, and begin.
   *
   * @param {import("./client/live.js").LiveOptions} options
   * @throws {DOMException} there is none, or it may not be used
   */
  async begin(options) {
    try {
      await this.#capture.begin((piece) => this.#heard(piece), () => this.end());
    } catch (error) {
      this.#capture.close();
      throw error;
    }
    const { rate } = this.#capture;
    this.keeps = Boolean(options.keep);
    this.#kept = new Kept(rate);
    this.#session = client().live({ ...options, encoding: "pcm16", rate });
    this.#listen();
  }

  get seconds() {
    return this.#kept?.seconds ?? 0;
  }

  get segments() {
    return segmentsOf(this.captions);
  }

  get peaks() {
    return Uint8Array.from(this.#kept?.peaks ?? []);
  }

  /** Whether nothing at all has come from the microphone for a while. */
  get muted() {
    return this.#zeros >= MUTED && this.state !== "paused" && this.state !== "over";
  }

  /** Seconds that the service has not got yet. */
  get behind() {
    return this.state === "live" ? this.seconds - this.#session.receivedSeconds : 0;
  }

  /** @param {boolean} wanted */
  async pause(wanted) {
    if (this.state !== (wanted ? "live" : "paused")) return;
    clearInterval(this.#there);
    this.level = this.#zeros = 0;
    this.#set(wanted ? "paused" : "live");
    await this.#capture.pause(wanted);
    if (!wanted || this.state !== "paused") return;
    this.#order("commit"); // what was said is told now
    this.#there = setInterval(() => this.#heard(new Int16Array(this.#capture.rate / 10)), THERE_MS);
  }

  /** @param {boolean} wanted whether it becomes a job */
  keep(wanted) {
    this.keeps = wanted;
    try {
      this.#session.change({ keep: wanted });
    } catch {
      // It has ended, which the iterator says.
    }
    this.#changed();
  }

  /** No more is said: the rest is told, and then it is over. */
  async end() {
    if (this.state === "ending" || this.state === "over") return;
    const alone = this.state === "recording";
    this.#set("ending");
    await this.#capture.end();
    if (alone) this.#over();
    else this.#order("finish");
  }

  /** Let go of all of it. */
  close() {
    this.#over();
    this.#session?.close();
  }

  #heard(piece) {
    if (!this.#kept || this.state === "over") return;
    this.level = Math.min(1, LOUDER * Math.sqrt(piece.reduce((sum, one) => sum + one * one, 0) / piece.length) / 32768);
    this.#zeros = this.level > 0 ? 0 : this.#zeros + 1;
    this.#kept.add(piece);
    if (this.state !== "recording") this.#session.send(piece).catch(() => {}); // the iterator throws it
    if (this.#kept.peaks.length % LOOK === 0) this.#changed();
  }

  #order(type) {
    try {
      this.#session[type]();
    } catch {
      // It has ended, which the iterator says.
    }
  }

  async #listen() {
    const opened = async () => {
      await this.#session.opened();
      if (this.state === "opening") this.#set("live");
    };
    try {
      opened().catch(() => {}); // it is thrown below, too
      for await (const event of this.#session) {
        this.captions = after(this.captions, event);
        if (event.type === "summary") this.job = event.job ?? "";
        this.revision += 1;
        this.#changed(event);
      }
    } catch (error) {
      this.error = trouble(error);
    }
    if (this.error && this.state === "live") this.#set("recording");
    else this.#over();
  }

  #over() {
    if (this.state === "over") return;
    this.#capture.close();
    clearInterval(this.#there);
    this.file = this.#kept.file(this.#name);
    this.#set("over");
  }

  #set(state) {
    this.state = state;
    this.#changed();
  }
}

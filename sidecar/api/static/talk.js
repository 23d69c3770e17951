/** One live talk: the microphone, its sound, and the sessions that hear it, one after the other. */

import { after, continued, NOTHING, segmentsOf, toldUntil } from "./captions.js";
import { Capture } from "./microphone.js";
import { client } from "./session.js";
import { LESS_S } from "./states.js";
import { PIECE_S } from "./storage.js";
import { trouble } from "./words.js";

/** So often a talk that is paused says that it is still there. */
const THERE_MS = 60000;
/** A service that says nothing for so long is not waited for at the end. */
const ENDING_MS = 60000;
/** From a session that broke off to the next, and where the service said no to it. */
const [AGAIN_MS, REFUSED_MS] = [2000, 30000];
/** What another session may end otherwise with at once. */
const PASSING = new Set(["", "shutting_down", "session_not_found", "live_full", "rate_limited"]);
/** Where a session ends with these before a word, the next would, too. */
const DEADLY = new Set(["engine_crashed", "engine_failed"]);
/** With these a session has had its time. */
const LIMITS = new Set(["session_idle", "session_too_long"]);
/** Pieces from one look at how far the service is to the next. */
const LOOK = 10;

/**
 * `opening`: the service gets ready, and nothing said is lost; `recording`: no session hears it, and the
 * sound is kept for the next; `ending`: the last words are waited for.
 */

export class Talk {
  state = "opening";
  error = null;
  captions = NOTHING;
  revision = 0;
  /** How loud each piece is, 0 to 255. */
  peaks = [];
  options = {};
  /** Ids of the sessions that began with the talk and may be jobs, of part of it: a session that broke off has the job's id. */
  made = [];
  #wishes;
  #capture = new Capture(true, PIECE_S);
  #changed;
  #sound;
  #session;
  /** The piece that the session began with. */
  #from = 0;
  /** Seconds that the session before has got, and in which it lacks no word. */
  #gotS = 0;
  #recognizedS = 0;
  /** Whether a session is a job, which the next cannot become with it. */
  #kept = false;
  #there = 0;
  /** Whether all that is said is written. */
  #whole = false;
  #wake = () => {};

  constructor(changed, sound) {
    [this.#changed, this.#sound] = [changed, sound];
  }

  /**
   * Ask for the microphone, and begin.
   *
   * @throws {DOMException} there is none, or it may not be used
   */
  async begin(options, wishes) {
    [this.options, this.#wishes] = [options, wishes];
    await this.#capture.begin((piece) => this.#heard(piece), () => this.end());
    this.#sound.rate = this.#capture.rate;
    this.#carry();
  }

  get seconds() {
    return this.#sound.seconds;
  }

  get segments() {
    return segmentsOf(this.captions);
  }

  /** Whether it is to become a job of the service. */
  get keeps() {
    return Boolean(this.options.keep);
  }

  /** How loud it is, 0 to 1. */
  get level() {
    return this.#capture.level;
  }

  /** Whether nothing at all has come from the microphone for a while. */
  get muted() {
    return this.#capture.muted && this.state !== "paused" && this.state !== "ending";
  }

  /** Seconds that the service has not got yet. */
  get behind() {
    return this.state === "live" ? this.seconds - this.captions.from - (this.#session?.receivedSeconds ?? 0) : 0;
  }

  async pause(wanted) {
    if (this.state !== (wanted ? "live" : "paused")) return;
    clearInterval(this.#there);
    this.#set(wanted ? "paused" : "live");
    await this.#capture.pause(wanted);
    if (!wanted || this.state !== "paused") return;
    this.#order("commit"); // what was said is told now
    this.#there = setInterval(() => this.#heard(new Int16Array(this.#capture.rate * PIECE_S)), THERE_MS);
  }

  /** @param {boolean} wanted whether it becomes a job */
  keep(wanted) {
    this.options = { ...this.options, keep: wanted };
    this.#order("change", { keep: this.#mayKeep });
    if (this.#mayKeep && this.#session) this.made.push(this.#session.session);
    this.#changed();
  }

  /** Whether the service is to keep a session: only one that begins with the talk can be all of it. */
  get #mayKeep() {
    return this.keeps && !this.#from && !this.#kept;
  }

  /** Try the next session now. */
  again() {
    this.#wake();
  }

  /** No more is said: the rest is told, and then it is over. */
  async end() {
    if (this.state === "ending" || this.state === "over") return;
    const alone = this.state === "recording";
    this.#set("ending");
    this.#wait();
    await this.#capture.end();
    for (let written; written !== this.#sound.written; ) await (written = this.#sound.written); // pieces may come meanwhile
    this.#whole = true;
    if (alone) return this.close();
    this.#wake();
    this.#sound.ring();
  }

  /** Let go of all of it: what was shown last stays, and what no session has recognized is a gap. */
  close() {
    if (this.state === "over") return;
    const told = this.#told;
    if (this.captions.partials.size || told <= this.seconds - LESS_S) this.captions = continued(this.captions, this.seconds, told);
    this.#capture.close();
    clearInterval(this.#there);
    this.#set("over");
    this.#session?.close();
    this.#wake();
    this.#sound.ring();
  }

  /** Until where all is recognized, in seconds of the talk. */
  get #told() {
    return toldUntil(this.captions, this.#session?.recognizedSeconds ?? this.#recognizedS);
  }

  async #heard(piece) {
    if (this.state === "over") return;
    await this.#sound.add(piece);
    this.peaks.push(piece.reduce((most, one) => Math.max(most, Math.abs(one)), 0) >> 7);
    if (this.peaks.length % LOOK === 0) this.#changed();
  }

  #wait() {
    clearTimeout(this.#there);
    this.#there = setTimeout(() => this.close(), ENDING_MS);
  }

  #order(type, ...given) {
    try {
      this.#session[type](...given);
    } catch {
      // It has ended, which the iterator says.
    }
  }

  /** One session after the other: each begins behind what the one before has recognized, or behind all it had where no
   * engine survives that. */
  async #carry() {
    while (this.state !== "over") {
      const from = this.#from;
      const piece = await this.#sound.piece(from, () => this.#whole || this.state === "over");
      if (piece || this.#sound.count > from) await this.#hear();
      if (this.state === "ending") this.close();
      if (this.state === "over") return;
      this.#set(this.state === "paused" ? "paused" : "recording");
      const told = Math.floor(this.#told / PIECE_S + 0.01);
      this.#from = told;
      if (told === from && DEADLY.has(this.error?.code)) this.#from += Math.floor(this.#gotS / PIECE_S + 0.01);
      this.captions = continued(this.captions, this.#from * PIECE_S, told * PIECE_S);
      this.#recognizedS = 0;
      this.revision += 1;
      this.#changed();
      if (this.error || this.#from === from) await this.#pause(PASSING.has(this.error?.code ?? "") ? AGAIN_MS : REFUSED_MS);
    }
  }

  async #hear() {
    [this.#gotS, this.#recognizedS] = [0, 0];
    const wishes = this.#wishes();
    if (!wishes) return;
    const session = client().live({ keep: this.#mayKeep, ...wishes, encoding: "pcm16", rate: this.#capture.rate });
    this.#session = session;
    if (this.#mayKeep) this.made.push(session.session);
    const opened = async () => {
      await session.opened();
      this.error = null;
      if (this.state === "opening" || this.state === "recording") this.#set("live");
      await this.#feed(session);
    };
    try {
      opened().catch(() => {}); // it is thrown below, too
      for await (const event of session) {
        this.captions = after(this.captions, event);
        if (this.state === "ending") this.#wait();
        this.#kept ||= Boolean(this.captions.job);
        this.revision += 1;
        this.#changed(event);
      }
    } catch (error) {
      this.error = LIMITS.has(error.code) ? null : trouble(error);
    }
    [this.#session, this.#gotS, this.#recognizedS] = [null, session.receivedSeconds, session.recognizedSeconds];
    this.#sound.ring();
  }

  /** All that was written from where the session begins, and what is yet to come. */
  async #feed(session) {
    const gone = () => this.#session !== session;
    for (let at = this.#from; !gone(); at += 1) {
      const piece = await this.#sound.piece(at, () => gone() || (this.#whole && at >= this.#sound.count));
      if (!piece) break;
      await session.send(piece);
    }
    if (!gone()) session.finish();
  }

  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => (clearTimeout(timer), resolve());
    });
  }

  #set(state) {
    this.state = state;
    this.#changed();
  }
}

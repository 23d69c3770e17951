/** All takes: what the microphone hears, from its first second until the service has it as a job, and
 * files on their way. It is nobody's but the recorder's what becomes of them (states.js). */

import { tailOf } from "./captions.js";
import { newKey } from "./client/world.js";
import { call, isTheirs, keepsTalks, parts, replacePart } from "./memory.js";
import { Microphone, refusal, silentFor } from "./microphone.js";
import { read } from "./reading.js";
import { Sending, trimmed, UNREADABLE } from "./sending.js";
import { client } from "./session.js";
import { after, endOf, lacksWords } from "./states.js";
import { heads, held, keepHead, Sound } from "./storage.js";
import { alone } from "./store.js";
import { Talk } from "./talk.js";
import { save } from "./view.js";
import { counted, stamp, trouble } from "./words.js";

/** Of a job that was not done when its service stopped. */
const STOPS = "shutting_down";
/** What is stored of a take. */
const HEAD = ["id", "source", "name", "key", "state", "job", "owner", "type", "rate", "options", "segments", "part", "made", "lacks", "gaps"];

/**
 * A take is a `source` (file, microphone, captions, or a conversation of a page before), a `state`, and more as it comes. `saved`: the person has
 * its sound as a file; `found`: of a page before; `later`: it was not refused, and is sent again by itself;
 * `lacks`: its job is done, without some of its words; `gaps`: where captions lack some, in seconds.
 */
export class Recorder {
  #store;
  #say;
  #sent;
  #replaced;
  #sending;
  #outlasts;
  /** Whether it is of whoever is signed in. */
  own = (take) => take.owner === this.#store.state.about?.owner;
  /** The microphone or the talk of each that goes on, by id. */
  #going = new Map();
  /** The jobs of which it is being asked whether they have every word. */
  #checked = new Set();

  /**
   * @param {import("./store.js").Store} store its `takes` are all of this tab
   * @param {(job: import("./client/wire.js").Job, file: File, take: Take) => void} sent it is a job now
   * @param {(part: string, job: string) => Promise<boolean>} replaced the job of a part of it is not needed any more; whether there was one; rejects if it is to be told again
   * @param {(job: import("./client/wire.js").Job, whole: object) => Promise<boolean>} outlasts whether a transcript stays, as it was read, if the service or the tab ends
   */
  constructor(store, say, sent, replaced, outlasts) {
    [this.#store, this.#say, this.#sent, this.#replaced, this.#outlasts] = [store, say, sent, replaced, outlasts];
    this.#sending = new Sending(store, say, this, (...given) => this.#step(...given), sent);
  }

  get(id) {
    return this.#store.state.takes.find((one) => one.id === id);
  }

  going(id) {
    return this.#going.get(id);
  }

  /**
   * Record with the microphone, or caption what it hears.
   *
   * @param {"microphone" | "captions"} source @returns {Promise<string>} its id
   * @throws why not
   */
  async begin(source) {
    const plain = source === "microphone";
    const wrong = silentFor(plain ? "MediaRecorder" : "AudioWorkletNode");
    if (wrong) throw new Error(wrong);
    const take = this.#new(source, `${plain ? "Recording" : "Live"} ${stamp()}`, { state: "recording" });
    const { id } = take;
    const sound = new Sound(id, () => (this.#mark(id, {}), this.get(id)?.state === "recording" && this.#keep(id))); // a browser that stored nothing may do so now
    const going = plain ? new Microphone() : new Talk((event) => this.#told(id, event), sound);
    this.#going.set(id, going);
    try {
      await held(id);
      if (plain) await going.begin(sound, () => sound.written.then(() => this.#over(id, "ended")));
      else await going.begin(keepsTalks() ? { keep: true } : {}, () => this.#wishes(id));
    } catch (error) {
      going.close();
      this.#going.delete(id);
      throw new Error(refusal(error), { cause: error });
    }
    this.#list({ ...take, sound, type: sound.type, rate: sound.rate });
    this.#keep(id);
    if (!plain) this.#told(id);
    navigator.storage?.persist?.().catch(() => {}); // else a browser that lacks space may delete it
    this.#say(plain ? "Recording." : "The microphone is on.");
    return id;
  }

  add(files) {
    this.#list(...files.map((file) => this.#new("file", file.name, { file, state: "waiting" })));
    this.#sending.next();
  }

  /** @param {string} name of a file that cannot be read */
  refuse(name) {
    this.#list(this.#new("file", name, { state: "kept", error: UNREADABLE }));
  }

  /** Send it, with the options as they are now. */
  send(id) {
    this.#step(id, "send", this.#sending.anew(this.get(id)));
    this.#sending.next();
  }

  async file(id) {
    const { file, sound, name } = this.get(id);
    return file ?? sound.file(name);
  }

  /** Its sound as a file of the person's. */
  async save(id) {
    try {
      save(await this.file(id));
      this.#mark(id, { saved: true });
    } catch (error) {
      this.#mark(id, { error: trouble(error) });
    }
  }

  /** @param {object} take what stays in the browser of something that is a job now, until that is done and outlasts it */
  follow(take) {
    this.#list({ ...take, sound: new Sound(take.id), state: "sent", since: performance.now() });
    this.#keep(take.id);
  }

  drop(id) {
    this.#step(id, "deleted");
    this.#sending.next();
  }

  /** Takes against the jobs that there are; `asked`: when it was asked for them; `forgot`: it was started since, and keeps none. */
  look(jobs, asked, forgot) {
    this.#find();
    for (const [part, whole] of parts()) if (jobs.some((one) => one.id === part)) this.#replaceOne(part, whole);
    const { about } = this.#store.state;
    for (const take of this.#store.state.takes.filter(this.own)) {
      const { id, source, sound, job: sent, since, name, later } = take;
      const job = jobs.find((one) => one.id === sent);
      const fails = (error) => this.#step(id, source === "file" ? "deleted" : "failed", { error });
      if (later) this.#step(id, "send", { error: null, later: false }); // as it was: the service may have it, without an answer
      else if (job?.state === "done") this.#done(take, job);
      else if (job?.error?.code === STOPS && !about?.keeps_jobs) continue; // it is sent again once the service has forgotten it
      else if (job?.error) fails(job.error);
      else if (job || !(since < asked)) continue;
      else if (!forgot || sound?.count === 0) fails(null); // of a conversation there is nothing to send
      else if (this.#step(id, "restarted", this.#sending.anew(take))) this.#say(`The service was restarted; ${name} is uploaded again.`);
    }
    this.#sending.next();
  }

  /** Its job is done. It is not needed any more if that has every word, and is not lost with the service; a file is its owner's, and is not stored here. */
  async #done({ id, source, state, sound, job, part, made = [] }, ended) {
    if (state !== "sent" || this.#checked.has(job)) return;
    this.#checked.add(job);
    try {
      const whole = source !== "file" && (await read(client({ attempts: 1 }), job, { renew: false }));
      const lacks = sound?.count > 0 && lacksWords(whole);
      if ((whole && !lacks && !(await this.#outlasts(ended, whole))) || this.get(id)?.job !== job) return;
      if (lacks) this.#step(id, "lacking", { lacks, made: [...made, job] });
      else if (this.#step(id, "done")) this.#replaceAll([part, ...made], job);
    } catch {
      // The next look asks again.
    } finally {
      this.#checked.delete(job);
    }
  }

  /** What began before it was known who is signed in is theirs; talks that nobody hears try it now. */
  enter(owner) {
    for (const { id } of this.#store.state.takes.filter((one) => !one.owner || (one.owner === this.#store.state.about.inherits && one.state !== "done"))) {
      this.#mark(id, { owner });
      this.#keep(id);
    }
    for (const talk of this.#going.values()) talk.again?.();
  }

  #new(source, name, more) {
    return { id: newKey(), key: newKey(), source, name, options: this.#store.state.options, segments: [], ...more };
  }

  /** What a live session is asked for; undefined: it would be somebody else's. */
  #wishes(id) {
    const take = this.get(id);
    if (take && !this.own(take)) return undefined;
    const { language, hotwords } = trimmed(this.#store.state.options);
    return { ...(take && { name: take.name }), ...(language && { language }), ...(hotwords && { hotwords }) };
  }

  /** Nobody's recording becomes the job of another who has signed in meanwhile. */
  #over(id, event, change) {
    const take = this.get(id);
    this.#going.delete(id);
    if (!take?.sound.count) return this.drop(id);
    this.#step(id, this.own(take) ? event : "captioned", { ...this.#sending.anew(take), ...change });
    this.#sending.next();
  }

  #told(id, event) {
    const [talk, before] = [this.#going.get(id), this.get(id)];
    if (!talk || !before) return;
    const { state: live, error, revision } = talk;
    const segments = before.revision === revision && before.live === live ? before.segments : talk.segments;
    const { options } = error === before.error ? before : this.#store.state;
    const { gaps } = talk.captions;
    this.#mark(id, { talk, live, error, options, revision, segments, gaps, tail: tailOf(talk.captions) });
    if (gaps.length !== (before.gaps ?? []).length) this.#keep(id);
    if (event?.type === "notice") this.#say(event.message);
    if (talk.made.length !== before.made?.length) this.#mark(id, { made: [...talk.made] });
    if (event?.job) this.#mark(id, { part: event.job });
    if (event?.job) call(event.job, before.name);
    if (before.live !== live || ["final", "speakers_revised", "summary"].includes(event?.type)) this.#keep(id);
    if (before.live === live) return;
    if (live === "paused") this.#say("Paused.");
    if (live === "live" && before.live === "paused") this.#say("Resumed.");
    if (live !== "over") return;
    this.#say(`Ended: ${counted(segments.length, "line")}.`);
    this.#overTalk(id, talk);
  }

  /** What it becomes: the job that its only session made, one that is to be made of its sound, or neither. */
  async #overTalk(id, talk) {
    const file = await this.file(id).catch(() => undefined); // it is asked for again where it is wanted
    const { sound, part = "" } = this.get(id);
    const end = endOf(talk, sound.seconds);
    const isMade = end === "made" && { job: part, since: performance.now() };
    this.#over(id, end, { file, error: talk.error, ...(end !== "captioned" && { part }), ...isMade });
    if (isMade) client().job(part).then((job) => this.get(id) && this.#sent(job, file, this.get(id)), () => {}); // else it is found in the list
  }

  /** What sessions of a talk that broke off are as jobs is not needed beside the job of all of it. */
  #replaceAll(sessions, whole) {
    for (const part of new Set(sessions)) {
      if (!part || part === whole) continue;
      replacePart(part, whole);
      this.#replaceOne(part, whole);
    }
  }

  #replaceOne(part, whole) {
    this.#replaced(part, whole).then((there) => there && replacePart(part, null), () => {}); // else it is told again at a later look
  }

  /** What became of takes whose tab is no more is this tab's to ask, from when it has them. */
  #find = alone(async () => {
    const { about } = this.#store.state;
    for (const { id, owner } of about ? await heads() : []) {
      if (this.get(id) || (owner && !isTheirs({ owner }, about)) || !(await held(id))) continue;
      const head = (await heads()).find((one) => one.id === id); // as it is now that nobody else has it
      if (!head) continue;
      const sound = await Sound.found(head);
      const key = head.state === "sending" && head.key; // the service may have it
      this.#list({ ...head, key, owner: about.owner, found: true, since: performance.now(), sound });
      this.#step(id, sound.count || head.segments?.length ? "found" : "deleted");
    }
  });

  /** @returns {boolean} whether that means something to it */
  #step(id, event, change = {}) {
    const take = this.get(id);
    const state = take && after(take.state, event);
    if (!take || state === take.state) return false;
    this.#mark(id, { ...change, state });
    if (state !== "gone" && state !== "done") this.#keep(id);
    else take.sound?.drop();
    if (state !== "gone") return true;
    this.#going.get(id)?.close();
    this.#going.delete(id);
    this.#store.set({ takes: this.#store.state.takes.filter((one) => one.id !== id) });
    return true;
  }

  #list(...takes) {
    const { about, takes: before } = this.#store.state;
    this.#store.set({ takes: [...before, ...takes.map((one) => ({ ...one, owner: one.owner ?? about?.owner }))] });
  }

  #mark(id, change) {
    const { takes } = this.#store.state;
    this.#store.set({ takes: takes.map((one) => (one.id === id ? { ...one, ...change } : one)) });
  }

  /** What is said of it goes to the browser's storage. */
  #keep(id) {
    const take = this.get(id);
    if (take.source !== "file") keepHead(Object.fromEntries(HEAD.map((key) => [key, take[key]])));
  }
}

/** Live talks of this page: one goes on at a time; those that are over stay until they are thrown away. */

import { Capture } from "./capture.js";
import { keepsTalks } from "./memory.js";
import { refusal } from "./recorder.js";
import { Talk } from "./talk.js";
import { counted, nameOf } from "./words.js";

export class Talks {
  /** By id, with what only this page knows of them. */
  #talks = new Map();
  #store;
  #say;
  #made;
  #count = 0;

  /**
   * @param {import("./store.js").Store} store @param {(text: string) => void} say
   * @param {(id: string, job: string, file: File, name: string) => void} made what a talk is as a job
   */
  constructor(store, say, made) {
    [this.#store, this.#say, this.#made] = [store, say, made];
  }

  /** @returns {Talk | undefined} the one that goes on */
  get going() {
    return [...this.#talks.values()].find(({ state }) => state !== "over");
  }

  /** @param {string} id @returns {Talk | undefined} */
  get(id) {
    return this.#talks.get(id);
  }

  /** @returns {Promise<{ id?: string, wrong?: string }>} */
  async begin() {
    const wrong = Capture.why();
    if (wrong) return { wrong };
    const { language, hotwords } = this.#store.state.options;
    const at = new Date().toLocaleString("sv").replace(/:\d\d$/, "").replaceAll(":", ".");
    const id = `talk-${(this.#count += 1)}`;
    const talk = new Talk(`Live ${at}`, (event) => this.#changed(id, event));
    const keep = keepsTalks();
    const options = { ...(keep && { keep }), ...(language && { language }), ...(hotwords && { prompt: hotwords }) };
    try {
      await talk.begin(options);
    } catch (error) {
      return { wrong: refusal(error) };
    }
    this.#talks.set(id, talk);
    const shown = { id, name: `Live ${at}`, created: Date.now(), state: talk.state, segments: [], saved: false, job: "" };
    this.#store.set({ talks: [...this.#store.state.talks, shown] });
    this.#say("The microphone is on.");
    return { id };
  }

  /** What the page has of it is safe elsewhere. @param {string} id @param {string} [job] */
  saved(id, job = "") {
    this.#mark(id, { saved: true, ...(job && { job }) });
  }

  /** @param {string} id */
  drop(id) {
    const talk = this.#talks.get(id);
    this.#talks.delete(id);
    this.#store.set({ talks: this.#store.state.talks.filter((one) => one.id !== id) });
    talk?.close();
  }

  #changed(id, event) {
    const talk = this.#talks.get(id);
    if (!talk) return;
    const { state, error, captions, revision, seconds, behind, file, keeps, muted } = talk;
    const before = this.#store.state.talks.find((one) => one.id === id);
    const segments = before?.revision === revision ? before.segments : talk.segments;
    this.#mark(id, { state, error, captions, revision, segments, seconds, behind, file, keeps, muted });
    if (event?.type === "notice") this.#say(event.message);
    if (before?.state === state) return;
    if (state === "paused") this.#say("Paused.");
    if (state === "live" && before?.state === "paused") this.#say("Resumed.");
    if (state === "over") this.#say(`Ended: ${counted(segments.length, "line")}.`);
    if (state === "over" && talk.job) this.#made(id, talk.job, file, before.name);
  }

  #mark(id, change) {
    this.#store.set({ talks: this.#store.state.talks.map((one) => (one.id === id ? { ...one, ...change } : one)) });
  }
}

/** Text for a word processor: a paragraph for each turn, without times. Pure. */
export function textOf(segments, named = true) {
  const turns = [];
  for (const one of segments) {
    const turn = turns.at(-1);
    if (turn?.speaker === one.speaker) turn.text += ` ${one.text}`;
    else turns.push({ speaker: one.speaker, text: named ? `${nameOf(one)}: ${one.text}` : one.text });
  }
  return turns.length ? `${turns.map(({ text }) => text).join("\n\n")}\n` : "";
}

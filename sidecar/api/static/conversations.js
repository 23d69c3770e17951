/** The conversation of this page: what it needs is fetched when somebody wants one. What is said goes to the browser's
 * storage meanwhile, and stays there until it is a job or somebody deletes it: the next visit offers it. */

import { newKey } from "./client/world.js";
import { dropHead, held, keepHead } from "./storage.js";
import { alone } from "./store.js";
import { stamp } from "./words.js";

/** What is selected where a conversation is shown. */
export const CONVERSATION = "conversation";

export class Conversations {
  /** Who is to speak and think, "" for whoever the service is set to. */
  wishes = { voice: "", model: "" };
  /** The one that goes on, or was the last. */
  going = null;
  /** When it began, as it is called. */
  at = "";
  /** What is typed and not sent. */
  draft = "";
  #store;
  #made;
  /** The last one that became a job. */
  #kept = null;
  /** What the browser has of it; null once it is a job, or nothing. */
  #head = null;
  /** When each line began and was last changed, and its text then. @type {Map<number, { from_s: number, to_s: number, text: string }>} */
  #times = new Map();

  /** `made` is told what it is as a job, its name, and what the browser has of it, if that is all of it. */
  constructor(store, made) {
    [this.#store, this.#made] = [store, made];
  }

  async begin(wishes) {
    const { Conversation } = await import("./conversation/conversation.js");
    this.going?.close();
    const carried = this.#store.state.conversation?.saved === false ? this.going.told : { lines: [] };
    if (!carried.lines.length) this.#isNew();
    const one = new Conversation(() => this.#changed(one), carried);
    this.going = one;
    this.#show({ saved: false });
    await one.begin(wishes);
  }

  /** The person has it as a file, if their browser has written that: what it stores itself stays. */
  saved() {
    this.#show({ saved: true });
  }

  #drop() {
    this.saved();
    if (this.#head) dropHead(this.#head.id);
    this.#head = null;
  }

  #isNew() {
    this.at = stamp();
    this.#times.clear();
    this.#head = { id: newKey(), source: "conversation", name: `Conversation ${this.at}`, state: "kept", options: {}, began: performance.now() };
    held(this.#head.id);
  }

  /** As often as the storage takes it. */
  #keep = alone(async () => {
    for (let lines; this.#head && lines !== this.going.told.lines; ) {
      if (!(this.#head.owner ??= this.#store.state.about?.owner)) return; // whose it is will be known
      lines = this.going.told.lines;
      await keepHead({ ...this.#head, segments: this.#segments(lines) });
    }
  });

  /** As of a transcript of two speakers. Of a line it is known when it was seen. */
  #segments(lines) {
    const now_s = (performance.now() - this.#head.began) / 1000;
    return lines.filter(({ text }) => text.trim()).map(({ key, who, text }) => {
      const before = this.#times.get(key) ?? { from_s: now_s };
      const { from_s, to_s } = before.text === text ? before : { ...before, to_s: now_s };
      this.#times.set(key, { from_s, to_s, text });
      const [speaker, name] = who === "machine" ? ["Speaker_1", "Assistant"] : ["Speaker_0", "You"];
      return { speaker, name, text, start_time: from_s, end_time: to_s };
    });
  }

  #changed(one) {
    if (one !== this.going) return;
    const { state, told, ended } = one;
    this.#show({});
    if (told.lines.length) this.#keep();
    if (state === "over" && ended?.job && this.#kept !== one) {
      this.#kept = one;
      const take = !one.carries && this.#head && { ...this.#head, segments: this.#segments(told.lines) };
      if (take) this.#head = null; // it is the recorder's now
      if (!one.carries) this.#drop();
      this.#made(ended.job, `Conversation ${this.at}`, take);
    }
    if (state === "over" && !told.lines.length) this.#drop();
  }

  #show(change) {
    const before = this.#store.state.conversation;
    const { state } = this.going;
    this.#store.set({ conversation: { ...before, state, ...change } });
  }
}

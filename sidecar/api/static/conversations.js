/** The conversation of this page: what it needs is fetched when somebody wants one. */

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
  #store;
  #made;
  /** The last one that became a job. */
  #kept = null;

  /** `made` is told what it is as a job, and its name. */
  constructor(store, made) {
    [this.#store, this.#made] = [store, made];
  }

  async begin(wishes) {
    const { Conversation } = await import("./conversation/conversation.js");
    this.going?.close();
    const carried = this.#store.state.conversation?.saved === false ? this.going.told : { lines: [] };
    if (!carried.lines.length) this.at = stamp();
    const one = new Conversation(() => this.#changed(one), carried);
    this.going = one;
    this.#show({ saved: false });
    await one.begin(wishes);
  }

  /** What the page has of it is safe elsewhere. */
  saved() {
    this.#show({ saved: true });
  }

  #changed(one) {
    if (one !== this.going) return;
    const { state, told, ended } = one;
    this.#show({});
    if (state === "over" && ended?.job && this.#kept !== one) {
      this.#kept = one;
      if (!one.carries) this.saved();
      this.#made(ended.job, `Conversation ${this.at}`);
    }
    if (state === "over" && !told.lines.length) this.saved();
  }

  #show(change) {
    const before = this.#store.state.conversation;
    const { state } = this.going;
    this.#store.set({ conversation: { ...before, state, ...change } });
  }
}

/** Recordings on their way to the service: two at a time, each once. */

import { client } from "./session.js";
import { trouble } from "./words.js";

const AT_ONCE = 2;
/** Of a file that is gone, was written on after it was chosen, or may not be read. */
export const UNREADABLE = {
  detail: "The browser cannot read this file: it was moved, changed or deleted, or may not be read.",
  hint: "Choose it again once it is complete.",
  code: "unreadable",
};

export class Sending {
  #store;
  #say;
  #sent;
  #stopped = new Set();

  /**
   * @param {import("./store.js").Store} store @param {(text: string) => void} say
   * @param {(job: import("./client/wire.js").Job, file: File, name: string) => void} sent it is a job now
   */
  constructor(store, say, sent) {
    [this.#store, this.#say, this.#sent] = [store, say, sent];
  }

  /** @param {File[]} files */
  send(files) {
    const { uploads, options } = this.#store.state;
    const fresh = files.map((file) => ({ key: key(), file, name: file.name, options, state: "waiting" }));
    this.#store.set({ uploads: [...uploads, ...fresh] });
    this.#sendNext();
  }

  /** @param {string} name of a file that cannot be read */
  refuse(name) {
    const one = { key: key(), name, state: "failed", error: UNREADABLE };
    this.#store.set({ uploads: [...this.#store.state.uploads, one] });
  }

  /** @param {string} which the key of one that was not sent */
  drop(which) {
    this.#stopped.add(which);
    this.#store.set({ uploads: this.#store.state.uploads.filter((one) => one.key !== which) });
    this.#sendNext();
  }

  /** @param {string} which */
  retry(which) {
    this.#mark(which, { state: "waiting", error: null });
    this.#sendNext();
  }

  #sendNext() {
    const { uploads } = this.#store.state;
    let free = AT_ONCE - uploads.filter((one) => one.state === "sending").length;
    for (const one of uploads) {
      if (free <= 0) return;
      if (one.state !== "waiting") continue;
      free -= 1;
      this.#mark(one.key, { state: "sending" });
      this.#sendOne(one);
    }
  }

  async #sendOne({ key: which, file, name, options }) {
    try {
      if (!(await isReadable(file))) throw UNREADABLE;
      const { about } = this.#store.state;
      const kept = { ...(about?.engine.words && { words: true }), ...(about?.people_consent && { voiceprints: true }) };
      const job = await client().submit(file, { ...kept, ...options }, { key: which, name });
      if (this.#stopped.has(which)) {
        await client().cancel(job.id);
        return;
      }
      this.#store.set({ uploads: this.#store.state.uploads.filter((one) => one.key !== which) });
      this.#sent(job, file, name);
    } catch (error) {
      if (error.status === 401) this.#store.set({ locked: true });
      const wrong = (await isReadable(file)) ? trouble(error) : UNREADABLE;
      this.#mark(which, { state: "failed", error: wrong });
      this.#say(`${name} was rejected: ${wrong.detail}`);
    } finally {
      this.#sendNext();
    }
  }

  #mark(which, change) {
    const { uploads } = this.#store.state;
    this.#store.set({ uploads: uploads.map((one) => (one.key === which ? { ...one, ...change } : one)) });
  }
}

/** Whether the first bytes can be read; a slice of a file that is gone is empty, and can. */
async function isReadable(file) {
  const reader = file.stream().getReader();
  return reader.read().then(() => (reader.cancel().catch(() => {}), true), () => false);
}

const key = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

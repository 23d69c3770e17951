/** Takes on their way to the service, from when they wait until they are jobs, or were refused. */

import { ServiceUnreachable } from "./client/index.js";
import { newKey } from "./client/world.js";
import { client } from "./session.js";
import { trouble } from "./words.js";

const AT_ONCE = 2;
/** Its tab sent it under this key otherwise, as before the service had another engine. */
const REUSED = "idempotency_key_reused";
/** Of a file that is gone, was written on after it was chosen, or may not be read. */
export const UNREADABLE = {
  detail: "The browser cannot read this file: it was moved, changed or deleted, or may not be read.",
  hint: "Choose it again once it is complete.",
  code: "unreadable",
};

export class Sending {
  #store;
  #say;
  #recorder;
  #step;
  #sent;

  /**
   * @param {import("./recorder.js").Recorder} recorder @param {(id: string, event: string, change?: object) => boolean} step
   * @param {(job: import("./client/wire.js").Job, file: File, take: Take) => void} sent it is a job now
   */
  constructor(store, say, recorder, step, sent) {
    [this.#store, this.#say, this.#recorder, this.#step, this.#sent] = [store, say, recorder, step, sent];
  }

  /** What is to be known of one that is sent: each time anew. A found one has its own options unless there are any, and with these the
   * key of its tab, if that was sending it. */
  anew({ found, options, key }) {
    const { options: now } = this.#store.state;
    const same = found && !Object.keys(now).length;
    return { options: same ? options : now, key: (same && key) || newKey(), job: undefined, since: undefined, error: null, later: false, found: false, lacks: false };
  }

  /** Those that wait, as many at once as may be. */
  next() {
    let free = AT_ONCE - this.#store.state.takes.filter((one) => one.state === "sending").length;
    for (const { id, state } of this.#store.state.takes.filter(this.#recorder.own)) {
      if (free <= 0 || state !== "waiting") continue;
      free -= 1;
      this.#step(id, "begun");
      this.#one(this.#recorder.get(id));
    }
  }

  async #one(take) {
    const { id, key, name, options } = take;
    const asking = client(); // of whoever is signed in now
    try {
      const file = await this.#recorder.file(id);
      if (!(await isReadable(file))) throw UNREADABLE;
      const { about } = this.#store.state;
      const kept = { ...(about?.engine.words && { words: true }), ...(about?.people_consent && { voiceprints: true }) };
      const job = await asking.submit(file, { ...kept, ...trimmed(options) }, { key, name });
      const now = this.#recorder.get(id); // whose it is may have been learnt meanwhile
      if (!now) return void (await asking.cancel(job.id));
      this.#step(id, "sent", { file, job: job.id, since: performance.now() });
      if (this.#recorder.own(now)) this.#sent(job, file, now);
    } catch (error) {
      if (error.status === 401 && this.#recorder.own(take)) this.#store.set({ locked: true });
      const { file } = take;
      const wrong = !file || (await isReadable(file)) ? trouble(error) : UNREADABLE;
      const reused = error.code === REUSED && { key: newKey() };
      this.#step(id, "refused", { error: wrong, later: Boolean(reused) || error.status === 401 || error instanceof ServiceUnreachable, ...reused });
      this.#say(`${name} was rejected: ${wrong.detail}`);
    } finally {
      this.next();
    }
  }
}

/** Options without the spaces around them. */
export const trimmed = (options) => Object.fromEntries(Object.entries(options).map(([name, text]) => [name, text.trim()]).filter(([, text]) => text));

/** Whether the first bytes can be read; a slice of a file that is gone is empty, and can. */
async function isReadable(file) {
  const reader = file.stream().getReader();
  return reader.read().then(() => (reader.cancel().catch(() => {}), true), () => false);
}

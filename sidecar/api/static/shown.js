/** The recording that is shown: followed while it is heard, read from its copy where the service has it no more. */

import { CONVERSATION } from "./conversations.js";
import { names } from "./memory.js";
import { isOver, read } from "./reading.js";
import { client } from "./session.js";
import { trouble } from "./words.js";

/** What went wrong with the recording that is shown is tried again after so long. */
const AGAIN_MS = 5000;
/** Of a transcript that the service has no more nothing can be undone. */
const NO_EDITS = { revision: 0, undo: 0, redo: 0 };
const LOST = {
  detail: "The service no longer has this recording.",
  hint: "Upload the recording again.",
  code: "job_not_found",
};

export class Shown {
  #store;
  #say;
  #recordings;
  #put;
  #following = new AbortController();
  /** The job whose end its stream has said, or that is asked for without that. */
  #heard = "";

  /** @param {import("./recordings.js").Recordings} recordings @param {(job: import("./client/wire.js").Job) => void} put it is in the list as it is now */
  constructor(store, say, recordings, put) {
    [this.#store, this.#say, this.#recordings, this.#put] = [store, say, recordings, put];
  }

  /** Ask for what is selected, from the beginning; what is shown of it stays until there is an answer. */
  resume() {
    this.#following.abort();
    this.#following = new AbortController();
    this.#store.set({ problem: null });
    const { copies, jobs, selected: id } = this.#store.state;
    if (!id || id === CONVERSATION || this.#recordings.recorder.get(id)) return;
    if (copies.has(id) && !jobs.some((job) => job.id === id)) this.#showCopy(id, this.#following.signal);
    else this.#follow(id, this.#following.signal);
  }

  /** What is shown and was deleted by the service stays: it is this page's now. In the browser no copy
   * is made for that: somebody may have deleted it, elsewhere. */
  hold(jobs) {
    const { jobs: before, shown } = this.#store.state;
    const gone = before.filter((one) => !jobs.some((job) => job.id === one.id));
    if (!gone.length) return;
    const job = gone.find((one) => one.id === shown?.id);
    this.#recordings.copies.refresh();
    if (!job || !shown.metadata) return;
    this.#recordings.copies.hold(job, shown);
    this.#store.set({ shown: { ...shown, edits: NO_EDITS } });
    this.#say(`The service has deleted the transcript of ${names().get(job.id) || "the recording"}. It is still shown here.`);
  }

  async #showCopy(id, signal) {
    const text = await this.#recordings.copies.edit(id);
    if (signal.aborted) return;
    if (!text) return this.#store.set({ problem: LOST });
    this.#store.set({ shown: { ...text, id, final: true, revision: -1, edits: NO_EDITS } });
  }

  /** What is shown against what there is: edited in another tab, or something went wrong with it. */
  reconcile(jobs) {
    const { problem, selected, shown } = this.#store.state;
    if (problem && problem.code !== LOST.code && performance.now() - problem.at > AGAIN_MS) return this.resume();
    const job = jobs.find((one) => one.id === selected);
    if (job && isOver(job) && shown?.final === false && this.#heard !== selected) {
      this.#heard = selected;
      return this.resume();
    }
    if (job && shown?.edits && shown.id === selected && job.revision > shown.edits.revision) this.#recordings.editing.again(selected, job.revision).then(() => this.#recordings.copies.make());
  }

  /** The transcript of a job, as it grows and as it is in the end. A stream for the job that is
   * shown, and no other: a browser has six connections to a server, for all its tabs. */
  async #follow(id, signal) {
    const segments = [];
    const show = (change) => {
      if (!signal.aborted) this.#store.set({ shown: { id, segments, final: false, revision: 0, ...change } });
    };
    let revision = 0;
    try {
      const job = await client().job(id, { signal });
      if (!isOver(job)) {
        show({});
        this.#heard = "";
        for await (const event of client().events(id, { signal })) {
          if (event.kind === "progress") continue; // the list has it
          if (event.kind === "segment") segments[event.data.index] = event.data.segment;
          show({ revision: (revision += 1) });
        }
        this.#recordings.look();
      }
      this.#heard = id;
      const ended = await client().job(id, { signal });
      this.#put(ended);
      if (ended.error) return show({ final: true, error: ended.error, revision: -1 });
      show({ ...(await read(client(), id, { signal })), final: true, revision: -1 });
    } catch (error) {
      if (signal.aborted) return;
      if (error.code === "job_not_found" && this.#store.state.copies.has(id)) this.#showCopy(id, signal);
      else if (error.code === "job_not_found") this.#store.set({ problem: LOST });
      else this.#store.set({ problem: { ...trouble(error), at: performance.now() } });
    }
  }
}

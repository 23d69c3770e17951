/** Copies of transcripts in this browser (IndexedDB), for a service that deletes its own after a time.
 * One owner sees none of another's: what is stored is kept apart by whom the service knows the
 * visitor for. */

import { newKey } from "./client/world.js";
import { noteDisplaced } from "./deleted.js";
import { isTheirs, keepCopies, keepsCopies } from "./memory.js";
import { read } from "./reading.js";
import { client } from "./session.js";
import { Database } from "./storage.js";
import { alone } from "./store.js";

/** Of one owner; the oldest go first, but none in which somebody wrote. */
const COPIES_AT_MOST = 200;
/** Answers that say nothing of other jobs: it was deleted meanwhile, or cannot be read. */
const OF_ONE_JOB = new Set([404, 409, 500]);
/** The newest first; of the same time in an order that is always the same, so that none takes turns. */
const newestFirst = (one, other) => other.at - one.at || (one.id < other.id ? 1 : -1);

/** Of a head `job` is its body, as it was last; `at`: when it ended, or was last read or corrected here; `kept`: whether it is in the browser, or in this tab alone; `corrected`: somebody wrote in it since; `text`: of one that was open when the service had deleted it. */

const asItIs = (text) => text;

const database = new Database("vibevoice-copies", { heads: "id", texts: "id" });

export class Copies {
  #store;
  /** As whom the service knows the visitor. */
  #about = { owner: "" };
  /** Whose copies are known by now. */
  #known = "";

  /** The `copies` of the store are the heads of all of the owner, and of all that is in this tab, by id. They are set behind a
   * transaction, never before it: so they follow each other as those do, and none that was on its way brings back what is deleted. */
  constructor(store) {
    this.#store = store;
  }

  /** What other tabs did, and what there is of an owner, as whom the service knows the visitor. */
  async refresh(about = this.#about) {
    this.#about = about;
    const found = await database.transact("readonly", (heads) => heads.getAll()).catch(() => []); // a browser may store nothing
    const theirs = (one) => isTheirs(one, this.#about);
    const own = [...found.filter(theirs), ...this.#held()].map((one) => (theirs(one) ? { ...one, owner: this.#owner } : one));
    this.#store.set({ copies: new Map(own.map((one) => [one.id, one])) });
    this.#known = about.owner;
  }

  /** The jobs of which a copy is due: it is not as they are, and has room among the newest. What the browser did not take comes last, in turns. */
  due(jobs) {
    if (!this.#owner || this.#known !== this.#owner || !keepsCopies(this.#about)) return [];
    const { copies } = this.#store.state;
    const ended = jobs.filter((job) => job.state === "done" && job.expires_in !== null);
    const all = new Map(this.#kept().map(({ id, at }) => [id, { id, at }]));
    for (const job of ended) all.set(job.id, { id: job.id, at: this.#time(job) });
    const fits = new Set([...all.values()].sort(newestFirst).slice(0, COPIES_AT_MOST).map(({ id }) => id));
    const isDue = ({ id, revision }) => fits.has(id) && !(copies.get(id)?.kept && copies.get(id).revision >= revision);
    const tried = ({ id }) => copies.get(id)?.tried ?? 0;
    return ended.filter(isDue).sort((one, other) => tried(one) - tried(other));
  }

  /**
   * @param {number} [at] when somebody had it before them; else it is as old as its recording
   * @param {boolean} [anew] whether a copy is made where there is none: else somebody has deleted it, in another tab
   * @returns {Promise<boolean>} whether the browser has it
   */
  async put(job, { segments, metadata }, revision, at = this.#time(job), anew = true) {
    if (!this.#owner || !keepsCopies(this.#about)) return false;
    const { revision: newest, kept, corrected } = this.#store.state.copies.get(job.id) ?? {};
    if (corrected || newest > revision) return kept; // an edit came meanwhile
    const head = { id: job.id, owner: this.#owner, job, revision, at, kept: true };
    const old = this.#kept().filter(({ id }) => id !== job.id).sort(newestFirst).slice(COPIES_AT_MOST - 1);
    const set = (now) => {
      const text = this.#store.state.copies.get(job.id)?.text;
      if (head.owner === this.#owner) this.#set({ ...now, owner: head.owner, ...(text && { text }) });
    };
    try {
      const there = await database.transact("readwrite", (heads, texts) => {
        const before = heads.get(job.id);
        before.onsuccess = () => {
          const { result } = before;
          if (result ? !result.corrected && !(result.revision >= revision) : anew) heads.put(head), texts.put({ id: job.id, segments, metadata });
        };
        return before;
      });
      set(there?.corrected || there?.revision > revision ? there : { ...head, kept: Boolean(there) || anew });
      await this.#displace(old.filter((one) => !one.text));
      return true;
    } catch {
      set({ ...head, kept: false, tried: performance.now() });
      return false;
    }
  }

  /** Delete copies for a newer one, but those that another tab read or wrote in since this one knows of them. */
  async #displace(old) {
    const gone = [];
    await database.transact("readwrite", (heads, texts) => {
      for (const { id, at } of old) {
        const there = heads.get(id);
        there.onsuccess = () => {
          if (!there.result || there.result.corrected || there.result.at !== at) return;
          heads.delete(id);
          texts.delete(id);
          gone.push(there.result);
        };
      }
    });
    const { jobs, copies } = this.#store.state;
    noteDisplaced(gone.filter(({ id }) => !jobs.some((one) => one.id === id)));
    const left = new Map(copies);
    for (const { id } of gone) left.delete(id);
    this.#store.set({ copies: left });
    if (gone.length < old.length) await this.refresh();
  }

  /** Copies of what the service will delete, one after the other, until all are of the newest revision
   * that is known. What fails is asked for again at the next look. */
  make = alone(async () => {
    const tried = new Map();
    const isNew = ({ id, revision }) => !(tried.get(id) >= revision);
    for (let job; (job = this.due(this.#store.state.jobs).find(isNew)); ) {
      tried.set(job.id, job.revision);
      if ((await this.#makeOne(job)) === false) return; // the others are tried at the next looks
    }
  });

  /** A copy of the one that is shown as it is, of another by asking for it. Nobody reads it by that: it is
   * deleted when it would have been. @throws {Error} the service gives none at all now */
  async #makeOne(job) {
    const { shown } = this.#store.state;
    try {
      const whole = shown?.id === job.id && shown.metadata ? shown : await read(client({ attempts: 1 }), job.id, { renew: false });
      if (this.#store.state.jobs.some(({ id }) => id === job.id)) return await this.put(job, whole, whole.edits.revision);
    } catch (error) {
      if (!OF_ONE_JOB.has(error.status)) throw error;
    }
  }

  /** Whether a transcript outlasts the service and this tab: as the browser has it, or as its owner and the service want it. */
  async outlasts(job, whole) {
    const { about } = this.#store.state;
    return job.expires_in === null || !keepsCopies(about) || (await this.put(job, whole, whole.edits.revision)) || about.keeps_jobs;
  }

  /** An edit goes into the copy of its transcript with the answer that has it, and waits for no other copy. */
  async edited(id, text, revision) {
    const job = this.#store.state.jobs.find((one) => one.id === id);
    if (!job) return;
    const [due] = this.due([{ ...job, revision }]);
    if (due) await this.put(due, text, revision);
  }

  /** Keep in this tab what the service has deleted, and in the browser where a copy is there already. */
  hold(job, { segments, metadata, edits: { revision } }) {
    const kept = this.#store.state.copies.get(job.id)?.kept ?? false;
    const [at, text] = [Date.now(), { segments, metadata }];
    this.#set({ id: job.id, owner: this.#owner, job, revision, at, kept, text });
    if (kept) this.put(job, text, revision, at, false);
  }

  /** What the service has deleted, changed as it is in the browser: another tab may have changed it, too, or deleted it: then what this one holds stays in this tab. */
  async edit(id, change = asItIs) {
    const { text: held, ...head } = this.#store.state.copies.get(id);
    let text = held && change(held);
    head.at = Date.now();
    head.corrected ||= change !== asItIs;
    const work = (heads, texts) => {
      const before = heads.get(id);
      before.onsuccess = () => (head.corrected ||= before.result?.corrected);
      const there = texts.get(id);
      there.onsuccess = () => {
        head.kept = Boolean(there.result);
        if (!head.kept) return;
        text = change(there.result);
        heads.put(head);
        texts.put(text);
      };
    };
    if (head.kept) await database.transact("readwrite", work).catch(() => (head.kept = false));
    if (text) this.#set({ ...head, text });
    return text;
  }

  /**
   * Of jobs that the service has again, the copies in which somebody wrote get ids of their own, and stay beside them.
   *
   * @param {(id: string, own: string) => void} told the id that one had and has
   */
  async setAside(jobs, told) {
    for (const { id } of jobs) {
      const { text, ...head } = this.#store.state.copies.get(id) ?? {};
      if (!head.corrected) continue;
      const own = newKey();
      const moved = { ...head, id: own, job: { ...head.job, id: own } };
      let done = !head.kept; // in this tab alone
      const work = (heads, texts) => {
        const there = texts.get(id);
        there.onsuccess = () => {
          if (!there.result) return; // another tab has moved it, or deleted it
          done = true;
          heads.put(moved), texts.put({ ...there.result, id: own }), heads.delete(id), texts.delete(id);
        };
      };
      try {
        if (head.kept) await database.transact("readwrite", work);
      } catch {
        continue; // it stays where it is until the next look
      }
      const copies = new Map(this.#store.state.copies);
      copies.delete(id);
      if (done) copies.set(own, text ? { ...moved, text } : moved);
      this.#store.set({ copies });
      if (done) told(id, own);
    }
    await this.refresh();
  }

  /** Whether another tab wrote in a copy since this one knows of it; from now on this one does. */
  async wasCorrected(id) {
    const { at, kept } = this.#store.state.copies.get(id) ?? {};
    const there = kept && (await database.transact("readonly", (heads) => heads.get(id)).catch(() => null));
    if (!there?.corrected || there.at === at) return false;
    await this.refresh();
    return true;
  }

  async drop(...ids) {
    await database.transact("readwrite", (heads, texts) => ids.forEach((id) => (heads.delete(id), texts.delete(id)))).catch(() => {});
    const copies = new Map(this.#store.state.copies);
    for (const id of ids) copies.delete(id);
    this.#store.set({ copies });
  }

  /** @param {boolean} wanted whether the owner is to have any; else all of theirs go, but what is open in this tab */
  async allow(wanted) {
    const about = this.#about; // another may sign in meanwhile
    keepCopies(about.owner, wanted);
    if (wanted) return;
    const theirs = (one) => isTheirs(one, about);
    const work = (heads, texts) => {
      const found = heads.getAll();
      found.onsuccess = () => found.result.filter(theirs).forEach(({ id }) => (heads.delete(id), texts.delete(id)));
    };
    await database.transact("readwrite", work).catch(() => {});
    const left = [...this.#store.state.copies.values()].filter((one) => one.text || !theirs(one));
    this.#store.set({ copies: new Map(left.map((one) => [one.id, theirs(one) ? { ...one, kept: false, corrected: false } : one])) });
  }

  get #owner() {
    return this.#about.owner;
  }

  #held() {
    return [...this.#store.state.copies.values()].filter((one) => one.text);
  }

  #kept() {
    return [...this.#store.state.copies.values()].filter((one) => one.kept && !one.corrected && one.owner === this.#owner);
  }

  #time(job) {
    return Math.max(Date.parse(job.ended) || 0, this.#store.state.copies.get(job.id)?.at ?? 0);
  }

  #set(head) {
    this.#store.set({ copies: new Map(this.#store.state.copies).set(head.id, head) });
  }
}

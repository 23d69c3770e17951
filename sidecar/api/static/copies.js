/** Copies of transcripts in this browser (IndexedDB), for a service that deletes its own after a time.
 * One owner sees none of another's: what is stored is kept apart by whom the service knows the
 * visitor for. */

import { keepCopies, keepsCopies } from "./memory.js";

const NAME = "vibevoice-copies";
const [HEADS, TEXTS] = ["heads", "texts"];
/** Of one owner; the oldest go first. */
const COPIES_AT_MOST = 200;
/** The newest first; of the same time in an order that is always the same, so that none takes turns. */
const newestFirst = (one, other) => other.at - one.at || (one.id < other.id ? 1 : -1);

/**
 * `job`: its body, as it was last; `at`: when it ended, or was last read or corrected here; `kept`: whether it is in the browser, or in this tab alone.
 *
 * @typedef {{ id: string, owner: string, job: any, revision: number, at: number, kept: boolean }} Head
 * @typedef {{ segments: any[], metadata: any }} Text
 */

let opening;

function database() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, 1);
    request.onupgradeneeded = () => {
      for (const store of [HEADS, TEXTS]) request.result.createObjectStore(store, { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opening;
}

/** What the request comes to that `work` makes in one transaction, once that is complete. */
async function transact(mode, work) {
  const transaction = (await database()).transaction([HEADS, TEXTS], mode);
  const request = work(transaction.objectStore(HEADS), transaction.objectStore(TEXTS));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

export class Copies {
  #store;
  #owner = "";
  /** Whole, by id: those that were open when the service had deleted them. @type {Map<string, Head & Text>} */
  #held = new Map();

  /** @param {import("./store.js").Store} store its `copies` are the heads of all, by id */
  constructor(store) {
    this.#store = store;
  }

  /** @param {string} owner as whom the service knows the visitor */
  async open(owner) {
    this.#owner = owner;
    await this.refresh();
  }

  /** What other tabs did. */
  async refresh() {
    if (!this.#owner) return;
    let found = [];
    try {
      found = (await transact("readonly", (heads) => heads.getAll())).filter(({ owner }) => owner === this.#owner);
    } catch {
      // A browser that stores nothing has no copies.
    }
    const heads = [...found, ...this.#held.values()];
    this.#store.set({ copies: new Map(heads.map((one) => [one.id, one])) });
  }

  /**
   * The jobs of which a copy is due: it is not as they are, and has room among the newest.
   *
   * @param {any[]} jobs
   */
  due(jobs) {
    if (!this.#owner || !keepsCopies()) return [];
    const { copies } = this.#store.state;
    const ended = jobs.filter((job) => job.state === "done" && job.expires_in !== null);
    const all = new Map(this.#kept().map(({ id, at }) => [id, { id, at }]));
    for (const job of ended) all.set(job.id, { id: job.id, at: this.#time(job) });
    const fits = new Set([...all.values()].sort(newestFirst).slice(0, COPIES_AT_MOST).map(({ id }) => id));
    return ended.filter((job) => fits.has(job.id) && !(copies.get(job.id)?.revision >= job.revision));
  }

  /**
   * @param {any} job
   * @param {Text} text
   * @param {number} revision
   * @param {number} [at] when somebody had it before them; else it is as old as its recording
   */
  async put(job, { segments, metadata }, revision, at = this.#time(job)) {
    const owner = this.#owner;
    if (!owner || !keepsCopies()) return;
    const head = { id: job.id, owner, job, revision, at, kept: true };
    const old = this.#kept().filter(({ id }) => id !== job.id).sort(newestFirst).slice(COPIES_AT_MOST - 1);
    const copies = new Map(this.#store.state.copies).set(job.id, head); // at once: nobody makes it twice
    for (const { id } of old) if (!this.#held.has(id)) copies.delete(id);
    this.#store.set({ copies });
    try {
      await transact("readwrite", (heads, texts) => {
        heads.put(head);
        texts.put({ id: job.id, segments, metadata });
        for (const { id } of old) (heads.delete(id), texts.delete(id));
      });
    } catch {
      this.#set({ ...head, kept: false });
    }
  }

  /**
   * Keep in this tab what the service has deleted, and in the browser where a copy is there already.
   *
   * @param {any} job @param {Text} text @param {boolean} [stores] whether one is made there, too
   */
  hold(job, { segments, metadata }, stores = false) {
    const { revision, kept } = this.#store.state.copies.get(job.id) ?? { revision: job.revision, kept: false };
    const head = { id: job.id, owner: this.#owner, job, revision, at: Date.now(), kept };
    this.#held.set(job.id, { ...head, segments, metadata });
    this.#set(head);
    if (stores || kept) this.put(job, { segments, metadata }, revision, head.at);
  }

  /** @param {string} id @returns {Promise<Text | undefined>} */
  async read(id) {
    return this.#held.get(id) ?? (await transact("readonly", (_, texts) => texts.get(id)).catch(() => undefined));
  }

  /** @param {string[]} ids */
  async drop(...ids) {
    const copies = new Map(this.#store.state.copies);
    for (const id of ids) (copies.delete(id), this.#held.delete(id));
    this.#store.set({ copies });
    await transact("readwrite", (heads, texts) => ids.forEach((id) => (heads.delete(id), texts.delete(id)))).catch(() => {});
  }

  /** @param {boolean} wanted whether there are to be any; else all go, of all owners, but what is open in this tab */
  async allow(wanted) {
    keepCopies(wanted);
    if (wanted) return;
    this.#store.set({ copies: new Map() });
    for (const one of this.#held.values()) this.hold(one.job, one);
    await transact("readwrite", (heads, texts) => (heads.clear(), texts.clear())).catch(() => {}); // of all owners
  }

  #kept() {
    return [...this.#store.state.copies.values()].filter((one) => one.kept);
  }

  #time(job) {
    return Math.max(Date.parse(job.ended) || 0, this.#store.state.copies.get(job.id)?.at ?? 0);
  }

  #set(head) {
    this.#store.set({ copies: new Map(this.#store.state.copies).set(head.id, head) });
  }
}

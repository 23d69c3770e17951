/** Recordings of the service, listed again and again, and who is signed in there. */

import { CONVERSATION, Conversations } from "./conversations.js";
import { Copies } from "./copies.js";
import { forget, note } from "./deleted.js";
import { CHANGED, Editing } from "./editing.js";
import { names, call, isTheirs, lastShown, showLast } from "./memory.js";
import { isOver, newest } from "./reading.js";
import { Recorder } from "./recorder.js";
import { client, keep, token } from "./session.js";
import { Shown } from "./shown.js";
import { alone } from "./store.js";
import { spoken, trouble } from "./words.js";

const BUSY_MS = 1000;
const IDLE_MS = 4000;
const HIDDEN_MS = 15000;
/** At least so often within a retention. */
const LOOKS = 20;
/** A service that says nothing for so long is taken for gone. */
const SILENCE_MS = 20000;
/** In the first part of its retention a transcript that is read is not asked for again, */
const RENEW_BELOW = 0.5;
/** and nobody is taken to read who has done nothing for so much of it. */
const IDLE_SHARE = 0.25;
/** Seconds by which a whole talk may be shorter than a part of it: both are rounded, and a session hears a little silence more. */
const SHORTER_S = 0.5;
/** What tells that somebody is there. Sound that plays does, too. */
const SIGNS = ["pointerdown", "pointermove", "keydown", "wheel", "scroll", "input", "timeupdate"];

/** Everything that is asked of the service, and what it says, put into the store. */
export class Recordings {
  /** The person's own files, by job: they are played, and sent again where a job was lost. */
  files = new Map();
  /** The conversations of others who were signed in, by owner. */
  parted = new Map();
  #store;
  #say;
  #talks = () => new Conversations(this.#store, (...given) => this.#made(...given));
  #tick = () => {};
  #shown;
  /** The start of the service that the list is of. */
  #instance = "";
  /** The start that `about` is of. */
  #learnt = "";
  /** When somebody was last seen to read. */
  #attended = performance.now();
  /** When jobs were ended here: a list that was asked for before then is older. */
  #ended = new Map();

  constructor(store, say) {
    this.#store = store;
    this.#say = say;
    this.copies = new Copies(store);
    this.editing = new Editing(store, say, (...given) => this.copies.edit(...given), (...given) => this.copies.edited(...given));
    this.#shown = new Shown(store, say, this, (job) => this.#put(job));
    this.conversations = this.#talks();
    this.recorder = new Recorder(store, say, (...given) => this.#sent(...given), (...given) => this.#replaced(...given), (...given) => this.copies.outlasts(...given));
  }

  /** Look at the service, again and again, as long as the page is there. */
  async watch() {
    document.addEventListener("visibilitychange", () => this.look());
    for (const sign of SIGNS) document.addEventListener(sign, () => (this.#attended = performance.now()), { capture: true, passive: true });
    for (;;) {
      await this.#look();
      const { about, jobs, takes, offline } = this.#store.state;
      const busy = offline || takes.some((one) => one.state === "sending") || jobs.some((job) => !isOver(job));
      const usual = document.hidden ? HIDDEN_MS : busy ? BUSY_MS : IDLE_MS;
      const pause = Math.min(usual, ((about?.keeps_seconds ?? Infinity) * 1000) / LOOKS);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pause);
        this.#tick = () => (clearTimeout(timer), resolve());
      });
    }
  }

  /** Go on with a token; what the page has of somebody else is hidden until they are signed in again. */
  async enter(given) {
    try {
      if (!/^[ -~]+$/.test(given)) throw MISTYPED;
      const about = await client({}, undefined, given).question("/v1/page/about", { once: true });
      keep(given);
      const known = this.#store.state.about;
      if (known && !isTheirs(known, about)) {
        this.select("");
        this.#say("");
        this.conversations.going?.close();
        this.parted.set(known.owner, { talks: this.conversations, conversation: this.#store.state.conversation });
        const { talks = this.#talks(), conversation = null } = this.parted.get(about.owner) ?? {};
        this.parted.delete(about.owner);
        this.conversations = talks;
        this.#store.set({ jobs: [], deleted: [], conversation, options: {} });
      }
      this.#store.set({ about, arrival: null, locked: false });
      this.recorder.enter(about.owner);
      await this.copies.refresh(about);
      this.look();
    } catch (error) {
      this.#store.set({ arrival: { ...trouble(error), hint: waits(error) || error.hint } });
    }
  }

  /** Look now. */
  look() {
    this.#tick();
  }

  /** @param {string} id the job, take or conversation that is shown; "" for none */
  select(id) {
    if (id === this.#store.state.selected) return;
    this.#store.set({ selected: id, shown: null });
    showLast(id);
    this.#shown.resume();
  }

  /** Have the service keep a transcript longer: it counts from when it was last asked for. */
  async renew(id) {
    try {
      this.#put(await client({ attempts: 1 }).job(id));
    } catch {
      this.look(); // which finds what is wrong
    }
  }

  /** End a job, or forget one that has ended, unless somebody has changed its transcript since `revision`. @throws then, and nothing is deleted */
  async end(id, revision, job = this.#store.state.jobs.find((one) => one.id === id)) {
    if (job) await client().cancel(id, { revision });
    else if (await this.copies.wasCorrected(id)) throw CHANGED;
    for (const one of this.#store.state.takes) if (one.job === id && one.state === "sent" && job?.state === "done") this.recorder.drop(one.id);
    call(id, null);
    this.forget(id);
    this.files.delete(id);
    this.editing.fields.delete(id);
    if (this.#store.state.selected === id) this.select("");
    this.#ended.set(id, performance.now());
    this.#store.set({ jobs: this.#store.state.jobs.filter((job) => job.id !== id) });
    await this.copies.drop(id);
    this.look();
  }

  /** Nobody is told any more that the service deleted these. */
  forget(...ids) {
    forget(...ids);
    this.#store.set({ deleted: this.#store.state.deleted.filter(({ id }) => !ids.includes(id)) });
  }

  /** @param {boolean} wanted whether this browser stores copies; whoever deletes them deletes their names, too */
  allowCopies(wanted) {
    if (!wanted) this.forget(...this.#store.state.copies.keys());
    this.copies.allow(wanted);
    this.look();
  }

  /** Send the recording that comes with the service. */
  async trySample() {
    const how = token() ? { headers: { Authorization: `Bearer ${token()}` } } : {};
    const answer = await fetch("/v1/page/sample", how);
    if (!answer.ok) throw await answer.json();
    this.recorder.add([new File([await answer.blob()], "sample.wav", { type: "audio/wav" })]);
  }

  /** @param {string} id @param {File} file the recording itself, to be heard */
  attach(id, file) {
    this.files.set(id, file);
    this.#store.set({ attached: (this.#store.state.attached || 0) + 1 });
  }

  async #look() {
    const asks = token();
    try {
      const asking = client({ attempts: 1 }, SILENCE_MS);
      const asked = performance.now();
      const health = await asking.health();
      this.#store.set({ health, offline: false });
      this.#learn(startOf(health));
      const listed = await allJobs(asking);
      if (token() !== asks) return; // it is of who was signed in before
      const jobs = newest(this.#store.state.jobs, listed).filter(({ id }) => !(this.#ended.get(id) > asked)).map(dated);
      const { about } = this.#store.state;
      const first = !this.#instance;
      const forgot = !first && this.#instance !== health.instance && !about?.keeps_jobs; // of one that keeps its jobs there may be several
      this.#instance = health.instance; // only now: had there been no list, it would still be new
      this.#shown.hold(jobs);
      this.#note(jobs, health);
      if (jobs.some(({ id }) => this.#store.state.copies.get(id)?.corrected)) await this.copies.setAside(jobs, (...given) => this.#setAside(...given));
      this.#set(jobs, { names: names(), locked: false, loaded: true, refused: null });
      this.recorder.look(jobs, asked, forgot);
      this.#shown.reconcile(jobs);
      if (first && !this.#store.state.selected && jobs.some(({ id }) => id === lastShown())) this.select(lastShown()); // who loads the page again reads on
      this.copies.make();
      this.#attend(jobs);
    } catch (error) {
      if (error.status === 401 && token() === asks) this.#store.set({ locked: true, loaded: true, ...(error.code === "token_invalid" && !this.#store.state.locked ? { arrival: trouble(error) } : {}) });
      else if (error.status === 401) this.#store.set({ locked: false, loaded: true });
      else if (error.code) this.#store.set({ offline: false, refused: error, loaded: true }); // it answers
      else if (!document.hidden) this.#store.set({ offline: true, loaded: true });
    }
  }

  /** What the service can do: asked once for each start and engine of it, and nothing waits for the answer. */
  #learn = alone(async (engine) => {
    if (this.#learnt === engine) return;
    const asks = token();
    const about = await client().question("/v1/page/about", { once: true });
    if (token() !== asks) return;
    this.#store.set({ about });
    this.#learnt = engine;
    this.recorder.enter(about.owner);
    await this.copies.refresh(about);
    this.look();
  });

  /** The jobs as they are now; what has ended meanwhile is said, once. */
  #set(jobs, more) {
    const going = new Set(this.#store.state.jobs.filter((job) => !isOver(job)).map(({ id }) => id));
    for (const job of jobs) {
      if (!going.has(job.id) || !isOver(job)) continue;
      const name = names().get(job.id) || "The recording";
      this.#say(job.state === "done" ? `${name} is done.` : `${name}: ${job.state}.`);
    }
    this.#store.set({ jobs, ...more });
  }

  /** What the service has deleted since it was seen last; of its settings the page may not know yet. */
  #note(jobs, health) {
    const { about, takes } = this.#store.state;
    if (this.#learnt !== startOf(health)) return;
    const sent = new Set(takes.filter((one) => one.state === "sent").map((one) => one.job));
    this.#store.set({ deleted: note(jobs, about, health.instance, sent) });
  }

  #setAside(id, own) {
    call(own, `${names().get(id) ?? "Recording"}, as corrected here`);
    if (this.#store.state.selected === id) this.select(own);
  }

  /** Whoever reads a transcript, or is writing in it, has it kept. */
  #attend(jobs) {
    const { about, selected } = this.#store.state;
    const job = jobs.find((one) => one.id === selected);
    const keeps = about?.keeps_seconds;
    if (!keeps || !job || job.expires_in === null || job.expires_in > keeps * RENEW_BELOW) return;
    const reads = !document.hidden && performance.now() - this.#attended < keeps * 1000 * IDLE_SHARE;
    if (reads || document.querySelector(".correcting")) this.renew(job.id);
  }

  #put(job) {
    this.#set(this.#store.state.jobs.map((one) => (one.id === job.id ? dated(job) : one)));
  }

  /** A conversation is a job now; `take`: what the browser has of it, if that is all of it. */
  async #made(id, name, take) {
    if (take) this.recorder.follow({ ...take, job: id });
    try {
      this.#sent(await client().job(id), null, { id: CONVERSATION, name });
    } catch {
      this.look(); // it is found in the list
    }
  }

  /** A take is a job now. */
  #sent(job, file, { id, name }) {
    this.files.set(job.id, file);
    this.#list(job, name);
    const { copies, jobs, selected } = this.#store.state;
    const shown = selected === CONVERSATION || copies.has(selected) || this.recorder.get(selected) || jobs.find((one) => one.id === selected);
    if (!shown || shown.state === "failed" || selected === id) this.select(job.id);
    this.look();
  }

  /** The job of all of a talk is in the list instead of that of a part, unless somebody has written or writes in that, or
   * only this browser has it. @returns whether there is one @throws that is not known now, or cannot be done */
  async #replaced(part, job) {
    await Promise.all([this.editing.settled(), this.copies.refresh()]);
    const isThere = (id) => client().job(id).catch((error) => (error.status === 404 ? null : Promise.reject(error))); // as it is now: the list is older
    const [there, whole] = await Promise.all([isThere(part), isThere(job)]);
    if (there && !(there.duration <= whole?.duration + SHORTER_S)) return true; // it has more
    await this.editing.settled();
    const { copies, selected } = this.#store.state;
    const copy = copies.get(part);
    if (this.editing.fields.has(part) || (there ? there.revision || copy?.corrected : copy)) return Boolean(there);
    if (selected === part) this.select(job);
    if (there) await this.end(part, there.revision, there).catch((error) => error.code === CHANGED.code || Promise.reject(error));
    else this.forget(part);
    return Boolean(there);
  }

  #list(job, name) {
    const { jobs } = this.#store.state;
    call(job.id, name);
    this.#set([...jobs.filter((one) => one.id !== job.id), job], { names: names() });
  }
}

/** Of a token that no request can carry. */
const MISTYPED = { detail: "A token has only letters, digits and signs of the English keyboard.", hint: "Copy it again, whole." };

/** When a token can be tried again, if the service says so. */
const waits = ({ retryAfter }) => (retryAfter ? `Try again in ${spoken(Math.ceil(retryAfter))}.` : "");

/** A job with when, by this page's clock, the service deletes it. */
const dated = (job) => ({ ...job, expires_at: typeof job.expires_in === "number" ? performance.now() + job.expires_in * 1000 : null });

/** A start of the service, with its engine. */
const startOf = ({ instance, engine }) => `${instance} ${engine}`;

async function allJobs(asking) {
  const jobs = [];
  for (let after; ; ) {
    const page = await asking.jobs({ limit: 500, after });
    jobs.push(...page.jobs);
    if (!page.next) return jobs;
    after = page.next;
  }
}

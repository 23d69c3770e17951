/** The transcript that is shown, changed: one edit after the other, each for the revision that was
 * seen. What the service made of it is shown; nothing is shown that it did not take. */

import { read } from "./reading.js";
import { client } from "./session.js";
import { html, icon, Trouble, useEvents, useState } from "./view.js";
import { counted, trouble } from "./words.js";

export const CHANGED = {
  detail: "This transcript was changed meanwhile, so your change was not made.",
  hint: "It is shown as it is now. If your change still makes sense, make it again.",
  code: "transcript_changed",
};

const DELETED = {
  detail: "The service has deleted this transcript, so only names and lines can be changed here.",
  hint: "To give lines to another speaker, send the recording again.",
  code: "job_not_found",
};

const COPY_MS = 2000;
const STEPS = new Set(["undo", "redo"]);

export class Editing {
  #store;
  #say;
  #hold;
  #copy;
  /** Grows where lines and speakers may get other numbers. */
  #order = 0;
  #turn = Promise.resolve(true);
  /** Why the last edit of each transcript was refused, until somebody has read it, also of those that are not shown now. */
  #wrong = new Map();
  /** What was said of the edits made here, by job and their number. @type {Map<string, string>} */
  #made = new Map();
  /** The fields in which lines are corrected, by job, also of those that are not shown now. @type {Map<string, import("./line.js").LineEditor>} */
  fields = new Map();

  /** `hold` changes what only this browser has; `copy` brings the browser's copy up to a revision, if there is to be one. */
  constructor(store, say, hold, copy) {
    [this.#store, this.#say, this.#hold, this.#copy] = [store, say, hold, copy];
  }

  /**
   * Do it, behind what is on its way.
   *
   * @param {string | ((answer: any, id: string) => string)} said what is said once it is done
   * @returns {Promise<boolean>} whether it is
   */
  apply(operations, said, ask) {
    const [order, id] = [this.#order, this.#store.state.shown?.id];
    const stands = () => this.#store.state.shown?.id === id && (order === this.#order || STEPS.has(operations[0].op));
    this.#turn = this.#turn.then(() => (stands() ? this.#apply(operations, said, ask) : this.refuse(id)));
    return this.#turn;
  }

  /** Why the last edit of what is shown was refused; undefined if it was not. */
  get wrong() {
    return this.#wrong.get(this.#store.state.shown?.id);
  }

  /** What was to be done until now is done, or was refused. */
  settled() {
    return this.#turn;
  }

  step(op) {
    if (!this.#store.state.shown?.edits?.[op]) return Promise.resolve(false);
    return this.apply([{ op }], ({ undo }, id) => {
      const [done, number] = op === "undo" ? ["Undone", undo + 1] : ["Redone", undo];
      const what = this.#made.get(`${id} ${number}`);
      return what ? `${done}: ${what}` : `${done}.`;
    });
  }

  /** The transcript as it is now, if somebody else made this revision of it. Edits on their way end
   * first, because their revisions are ours. */
  async again(id, revision) {
    await this.#turn;
    if (this.#isOlder(id, revision)) await this.#reread(id, () => this.#turn);
  }

  /** `settled` ends once no edit is on its way: one may have begun while this read. */
  async #reread(id, settled = () => null) {
    const fresh = await read(client(), id).catch(() => null); // the next look says what is wrong
    await settled();
    if (!fresh || !this.#isOlder(id, fresh.edits.revision)) return;
    this.#made.clear(); // the numbers are of other edits now
    this.#order += 1;
    this.#show(id, fresh);
  }

  /** Whether an older revision of this transcript is shown. */
  #isOlder(id, revision) {
    const { shown } = this.#store.state;
    return shown?.id === id && revision > (shown.edits?.revision ?? 0);
  }

  refuse(id = this.#store.state.shown?.id, wrong = CHANGED) {
    this.#wrong.set(id, wrong);
    this.#store.set({});
    return false;
  }

  /** What was wrong is read. */
  forgive() {
    this.#wrong.delete(this.#store.state.shown?.id);
    this.#store.set({});
  }

  async #apply(operations, said, ask = (id, revision) => client().edit(id, operations, { revision })) {
    const { shown } = this.#store.state;
    if (!shown?.edits) return false;
    const { id } = shown;
    const { jobs, copies } = this.#store.state;
    try {
      if (copies.has(id) && !jobs.some((job) => job.id === id)) return await this.#here(operations, said);
      const answer = await ask(id, shown.edits.revision);
      const { revision, undo, redo, segments: changed, segment_count: count } = answer;
      const segments = shown.segments.slice(0, count);
      for (const { index, segment } of changed) segments[index] = segment;
      // before it is shown as done: the tab may be closed then; but a storage that does not answer holds no edit
      await Promise.race([this.#copy(id, { segments, metadata: shown.metadata }, revision), new Promise((over) => setTimeout(over, COPY_MS))]);
      this.#wrong.delete(id);
      this.#show(id, { segments, edits: { revision, undo, redo } });
      const text = typeof said === "string" ? said : said(answer, id);
      const [{ op }] = operations;
      if (!STEPS.has(op)) this.#made.set(`${id} ${undo}`, text);
      if (STEPS.has(op) || op === "diarize") this.#order += 1;
      this.#say(text);
      return true;
    } catch (error) {
      const changed = error.code === CHANGED.code;
      if (changed) await this.#reread(id);
      return this.refuse(id, changed ? CHANGED : trouble(error));
    }
  }

  /** In a transcript that the service has deleted lines are corrected and speakers named; the rest is
   * its work. */
  async #here([{ op, segment, text, speaker, name }], said) {
    const { shown } = this.#store.state;
    if (op !== "text" && op !== "rename") return this.refuse(shown.id, DELETED);
    const isMeant = (one, index) => (op === "text" ? index === segment : one.speaker === speaker);
    const [field, change] = op === "text" ? [op, { text, words: undefined }] : ["name", { name: name ?? undefined }];
    const at = shown.segments.findIndex(isMeant);
    let wrong;
    const { segments } = await this.#hold(shown.id, (there) => {
      wrong = there.segments[at][field] === shown.segments[at][field] ? null : CHANGED;
      return wrong ? there : { ...there, segments: there.segments.map((one, index) => (isMeant(one, index) ? { ...one, ...change } : one)) };
    });
    this.#show(shown.id, { segments });
    if (wrong) return this.refuse(shown.id, wrong);
    this.#wrong.delete(shown.id);
    this.#say(said.replace(/( now)?\.$/, "$1, in this browser only."));
    return true;
  }

  #show(id, change) {
    const { shown } = this.#store.state;
    if (id && shown?.id === id) this.#store.set({ shown: { ...shown, ...change } });
  }
}

const NEW = "";

/** Undo and redo. They keep the focus where there is nothing more to be undone. */
export function Steps({ edits, editing }) {
  useEvents({
    keydown: (event) => {
      const [key, typing] = [event.key.toLowerCase(), event.target.closest?.("input, textarea, select, dialog")];
      if (!(event.ctrlKey || event.metaKey) || event.altKey || typing || (key !== "z" && key !== "y")) return;
      event.preventDefault();
      editing.step(key === "y" || event.shiftKey ? "redo" : "undo");
    },
  });
  return html`<div class="steps" role="group" aria-label="Changes">
    ${[["undo", "Undo", "Control+Z"], ["redo", "Redo", "Control+Shift+Z"]].map(([op, label, keys]) => html`
      <button type="button" class="bare" aria-label=${`${label}, ${edits[op]}`} title=${label} aria-keyshortcuts=${keys} aria-disabled=${edits[op] ? "false" : "true"} onClick=${() => editing.step(op)}>${icon(op)}</button>`)}
  </div>`;
}

/** The lines that are chosen, given to another speaker or to a new one. */
export function Chosen({ chosen, lanes, editing, view }) {
  const [to, setTo] = useState(NEW);
  const there = lanes.some((one) => one.speaker === to) ? to : NEW;
  const give = async (event) => {
    event.preventDefault();
    const operation = there === NEW ? { op: "split", segments: chosen } : { op: "move", segments: chosen, speaker: there };
    const name = lanes.find((one) => one.speaker === there)?.name ?? "a new speaker";
    if (await editing.apply([operation], `${counted(chosen.length, "line")} given to ${name}.`)) leave();
  };
  const leave = () => (view.current.clear(), view.current.focus());
  const pressed = (event) => {
    const busy = event.target.closest?.("input, textarea, dialog") || document.querySelector(":popover-open");
    if (event.key === "Escape" && !busy) leave();
  };
  useEvents(chosen.length ? { keydown: pressed } : {}, [!chosen.length]);
  if (!chosen.length) return null;
  return html`<form class="chosen-lines" aria-label="Selected lines" onSubmit=${give}>
    <strong role="status">${counted(chosen.length, "line")} chosen</strong>
    <label for="give">Assign to</label>
    <select id="give" value=${there} onChange=${(event) => setTo(event.target.value)}>
      <option value=${NEW}>a new speaker</option>
      ${lanes.map((one) => html`<option value=${one.speaker}>${one.name}</option>`)}
    </select>
    <button type="submit" class="main">Assign</button>
    <button type="button" onClick=${leave}>Clear selection</button>
  </form>`;
}

/** Why a change was not made. */
export const NotDone = ({ wrong, editing }) =>
  wrong && html`<${Trouble} error=${wrong}><p><button type="button" onClick=${() => editing.forgive()}>Read</button></p><//>`;

/** One line of a transcript: how it stands in the document, what can be done to it, and the field in
 * which it is corrected. */

import { html, icon, render } from "./view.js";
import { clock, composes, nameOf, numberOf } from "./words.js";

export function element(name, kind, text) {
  const made = document.createElement(name);
  made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** The row of a segment that stands behind another. `chosen`: for something that is done to several. */
export function rowOf(index, segment, before, { current, chosen, now }) {
  const row = element("div", "row");
  row.setAttribute("role", "listitem");
  row.dataset.index = String(index);
  const number = numberOf(segment.speaker);
  if (number !== null) row.dataset.voice = String(number % 8);
  const speaker = nameOf(segment);
  if (!before || before.speaker !== segment.speaker) {
    row.classList.add("turn");
    const who = element("div", "who");
    const badge = element("span", "badge", number === null ? "?" : String(number));
    badge.setAttribute("aria-hidden", "true");
    who.append(badge, element("span", "name", speaker));
    row.append(who);
  }
  const at = element("button", "at", clock(segment.start_time));
  at.type = "button";
  at.tabIndex = current ? 0 : -1;
  row.append(at, element("p", "said", segment.text));
  for (const words of row.querySelectorAll(".said, .name")) words.dir = "auto"; // right to left where they are
  if (segment.flags?.length) row.dataset.flags = segment.flags.join(" ");
  if (now) row.classList.add("now");
  choose(row, segment, chosen);
  return row;
}

/** Show that a row is chosen, or that it is not. */
export function choose(row, segment, chosen) {
  row.classList.toggle("chosen", chosen);
  const at = row.querySelector(".at");
  at.setAttribute("aria-label", `${clock(segment.start_time)}, ${nameOf(segment)}, play${chosen ? ", chosen" : ""}`);
}

/** What can be done to a line: one for all rows, in the row that has the pointer or the focus. */
export class Acts {
  #node = element("div", "acts");
  #edit;
  #choose;

  constructor(edit, choose) {
    [this.#edit, this.#choose] = [edit, choose];
  }

  /** Whether somebody is at it by keys; a click leaves the focus here, too, and holds nothing. */
  get held() {
    return this.#node.querySelector(":focus-visible") !== null;
  }

  /** Whether they stand in no row any more. */
  get lost() {
    return !this.#node.isConnected;
  }

  to(row) {
    if (this.#node.parentElement !== row && row.isConnected) row.append(this.#node);
    this.show();
  }

  /** After what is shown was chosen, or is so no more. */
  show() {
    const row = this.#node.parentElement;
    const chosen = row?.classList.contains("chosen") ?? false;
    const button = (shape, label, key, act, more) => html`<button type="button" class="bare" aria-label=${label} aria-keyshortcuts=${key} title=${`${label} (${key} on the line's time)`} onClick=${() => act(Number(row.dataset.index))} ...${more}>${icon(shape)}</button>`;
    const select = button(chosen ? "ticked" : "box", "Select this line", "X", this.#choose, { "aria-pressed": String(chosen) });
    render(html`${button("edit", "Edit this line", "E", this.#edit)}${select}`, this.#node);
  }

  away() {
    this.#node.remove();
  }
}

const EMPTY = "A line cannot be empty. To leave it as it was, press Escape.";

/** The field in which a line is corrected, in the place of its text. It outlives the list in which it stands. */
export class LineEditor {
  index;
  /** The line as it was in sight. */
  seen;
  /** The list in which it stands, or stood last. @type {import("./transcript.js").TranscriptView} */
  view;
  #text;
  #box = element("div", "corrected");

  constructor(index, row, seen) {
    const { text } = seen;
    [this.index, this.seen, this.#text] = [index, seen, text];
    const field = { current: null };
    let saving = false;
    const end = async (change) => {
      if (saving) return;
      if (!change) return this.view.leave();
      const said = field.current.value.trim();
      field.current.setCustomValidity(said ? "" : EMPTY);
      if (!field.current.reportValidity()) return;
      saving = true;
      const done = await this.view.correct(said);
      saving = false;
      if (done) this.#text = said;
      if (done && field.current.value.trim() === said) this.view.leave();
      else field.current.focus(); // more was typed meanwhile
    };
    const pressed = (event) => {
      if (composes(event)) return;
      if (event.key === "Enter" && !event.shiftKey) end(true);
      else if (event.key === "Escape") end(false);
      else return;
      event.preventDefault();
      event.stopPropagation();
    };
    this.into(row);
    render(html`<textarea class="correcting" dir="auto" ref=${field} defaultValue=${text} rows="1" aria-label=${`Line at ${row.querySelector(".at").textContent}`} onKeyDown=${pressed}></textarea>
      <div class="choice">
        <button type="button" class="main" onClick=${() => end(true)}>Save</button>
        <button type="button" onClick=${() => end(false)}>Cancel</button>
      </div>`, this.#box);
    field.current.focus();
    field.current.setSelectionRange(text.length, text.length);
  }

  /** Whether there is something to be saved. */
  get changed() {
    const { value, defaultValue } = this.#box.querySelector("textarea");
    return value !== defaultValue;
  }

  isIn(row) {
    return this.#box.parentElement === row;
  }

  /** @param {HTMLElement} row the row that stands there now */
  into(row) {
    const said = row.querySelector(".said");
    said.hidden = said.textContent === this.#text;
    row.classList.add("edited");
    row.append(this.#box);
  }
}

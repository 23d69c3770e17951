/** One line of a transcript: how it stands in the document, what can be done to it, and the field in
 * which it is corrected. */

import { html, icon, render } from "./view.js";
import { clock, nameOf, numberOf } from "./words.js";

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

/** The field in which a line is corrected, in the place of its text. */
export class LineEditor {
  index;
  #field = element("textarea", "correcting");
  #box = element("div", "corrected");
  #text;
  #saving = false;

  /** @param {(text: string) => Promise<boolean>} save whether it is done */
  constructor(index, row, text, save, closed) {
    [this.index, this.#text] = [index, text];
    this.#field.defaultValue = text;
    this.#field.rows = 1;
    this.#field.setAttribute("aria-label", `Line at ${row.querySelector(".at").textContent}`);
    const keep = element("button", "main", "Save");
    const leave = element("button", "", "Cancel");
    const end = async (change) => {
      if (this.#saving) return;
      const said = this.#field.value.trim();
      if (change && said && said !== this.#text) {
        this.#saving = true;
        const done = await save(said);
        this.#saving = false;
        if (!done) return this.#field.focus();
      }
      closed();
    };
    for (const [each, change] of [[keep, true], [leave, false]]) {
      each.type = "button";
      each.addEventListener("click", () => end(change));
    }
    this.#field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) end(true);
      else if (event.key === "Escape") end(false);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    const choice = element("div", "choice");
    choice.append(keep, leave);
    this.#box.append(this.#field, choice);
    this.into(row);
    this.#field.focus();
    this.#field.setSelectionRange(text.length, text.length);
  }

  /** @param {HTMLElement} row the row that stands there now */
  into(row) {
    row.querySelector(".said").hidden = true;
    row.classList.add("edited");
    row.append(this.#box);
  }
}

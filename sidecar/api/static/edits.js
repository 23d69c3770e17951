/** Edits by button: undo and redo, and what is done to the lines that were chosen. */

import { html, icon, Trouble, useEffect, useState } from "./view.js";
import { counted } from "./words.js";

const NEW = "";

/** Undo and redo. They keep the focus where there is nothing more to be undone. */
export function Steps({ edits, editing }) {
  useEffect(() => {
    const pressed = (event) => {
      const [key, typing] = [event.key.toLowerCase(), event.target.closest?.("input, textarea, select, dialog")];
      if (!(event.ctrlKey || event.metaKey) || event.altKey || typing || (key !== "z" && key !== "y")) return;
      event.preventDefault();
      editing.step(key === "y" || event.shiftKey ? "redo" : "undo");
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [editing]);
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
    if (!(await editing.apply([operation], `${counted(chosen.length, "line")} given to ${name}.`))) return;
    view.current.clear();
    view.current.focus();
  };
  const leave = () => (view.current.clear(), view.current.focus());
  useEffect(() => {
    if (!chosen.length) return undefined;
    const pressed = (event) => {
      const busy = event.target.closest?.("input, textarea, dialog") || document.querySelector(":popover-open");
      if (event.key === "Escape" && !busy) leave();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [!chosen.length]);
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

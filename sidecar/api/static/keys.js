/** The keys that do something: told by ?, unless somebody switched that off. */

import { showsKeys, showKeys } from "./memory.js";
import { html, icon, useEvents, useRef, useState } from "./view.js";

const KEYS = {
  "In the list of lines, on a time": [
    ["↑ ↓", "Another line"], ["← →", "Another word"], ["Enter", "Play from there"], ["E", "Correct the line; Enter saves, Escape leaves"],
    ["X", "Select the line; with Shift, ↑ and ↓ select more"], ["Escape", "Select none"],
  ],
  "On the timeline": [["← →", "5 seconds"], ["Page Up, Page Down", "A minute"], ["Home, End", "Beginning, end"], ["Space", "Play or pause"]],
  "In the search field": [["Enter", "Next match; with Shift, the one before"], ["Escape", "Clear"]],
  "In a conversation": [["Space, Escape", "Interrupt the answer"]],
  "Everywhere": [["Ctrl+Z", "Undo"], ["Ctrl+Shift+Z, Ctrl+Y", "Redo"]],
};

export function Keys() {
  const dialog = useRef(null);
  const [on, setOn] = useState(showsKeys());
  const [open, setOpen] = useState(false);
  const show = () => {
    setOpen(true);
    dialog.current.showModal();
  };
  useEvents({
    keydown: (event) => {
      if (event.key !== "?" || !showsKeys() || event.target.closest?.("input, textarea, select, dialog") || document.querySelector(".cover")) return;
      event.preventDefault();
      show();
    },
  });
  const change = (event) => {
    showKeys(event.target.checked);
    setOn(event.target.checked);
  };
  return html`<button type="button" class="bare keys" aria-haspopup="dialog" title="Keys (?)" aria-label="Keys" onClick=${show}>${icon("keys")}</button>
    <dialog ref=${dialog} aria-labelledby="keys" onClose=${() => setOpen(false)} onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
      ${open && html`<div class="top"><h2 id="keys">Keys</h2>
        <button type="button" class="bare" aria-label="Close" onClick=${() => dialog.current.close()}>${icon("close")}</button></div>
      ${Object.entries(KEYS).map(([where, keys]) => html`<h3>${where}</h3>
        <dl class="facts">${keys.map(([key, does]) => html`<dt>${key}</dt><dd>${does}</dd>`)}</dl>`)}
      <p><label class="check"><input type="checkbox" checked=${on} onChange=${change} /> The key ? shows this list</label></p>`}
    </dialog>`;
}

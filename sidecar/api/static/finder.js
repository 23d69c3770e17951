/** Looking for words in the transcript. */

import { html, icon, useEffect, useState } from "./view.js";

export function Search({ view, revision, segments }) {
  const [text, setText] = useState("");
  const [found, setFound] = useState({ count: 0, number: 0 });
  useEffect(() => {
    if (text) setFound(view.current.searched());
  }, [revision, segments]);
  const look = (event) => {
    setText(event.target.value);
    setFound(view.current.search(event.target.value));
  };
  const pressed = (event) => {
    if (event.key === "Enter") setFound(view.current.next(event.shiftKey ? -1 : 1));
    else if (event.key === "Escape") (setText(""), setFound(view.current.search("")));
    else return;
    event.preventDefault();
  };
  return html`<div class="search" role="search">
    ${icon("search")}
    <input type="search" aria-label="Search in the transcript" placeholder="Search" value=${text} onInput=${look} onKeyDown=${pressed} />
    <span class="quiet found" role="status">${text && (found.count ? `${found.number} of ${found.count}` : "none")}</span>
    <button type="button" class="bare" aria-label="Previous match" disabled=${!found.count} onClick=${() => setFound(view.current.next(-1))}>${icon("up")}</button>
    <button type="button" class="bare" aria-label="Next match" disabled=${!found.count} onClick=${() => setFound(view.current.next(1))}>${icon("next")}</button>
  </div>`;
}

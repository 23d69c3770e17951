/** What all parts of the page are drawn with. */

import { h } from "./vendor/preact.js";
import { useEffect, useLayoutEffect, useRef, useState } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";
import { clock, trouble } from "./words.js";

export const html = htm.bind(h);
export { render } from "./vendor/preact.js";
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/hooks.js";

/** Do something before each frame is drawn, while `on` and while what `there` refers to is there. */
export function useFrames(on, there, show) {
  const now = useRef(show);
  now.current = show;
  useEffect(() => {
    if (!on) return undefined;
    let frame = 0;
    const step = () => {
      if (there.current) now.current();
      frame = requestAnimationFrame(step);
    };
    step();
    return () => cancelAnimationFrame(frame);
  }, [on]);
}

/** Keep a phone awake: asleep it hears nothing. A browser lets go of that whenever the page is hidden. */
export function useAwake(on) {
  useEffect(() => {
    if (!on) return undefined;
    let held = null;
    const hold = async () => (held = await navigator.wakeLock?.request("screen").catch(() => null));
    hold();
    document.addEventListener("visibilitychange", hold);
    return () => (document.removeEventListener("visibilitychange", hold), held?.release());
  }, [on]);
}

/** How long something goes on, and how loud it is: `source` knows, and `seen` is called with each frame. */
export function Meter({ source, label = "Loudness", timed = true, seen }) {
  const meter = useRef(null);
  const time = useRef(null);
  useFrames(source, meter, () => {
    meter.current.value = source.level;
    if (timed) time.current.textContent = clock(source.seconds);
    seen?.();
  });
  return html`<span class="dot" aria-hidden="true"></span>${timed && html`<span ref=${time} class="time">0:00</span>`}
    <meter ref=${meter} min="0" max="1" aria-label=${label}></meter>`;
}

/** What was wrong at the last attempt, what makes one, and what is being attempted. */
export function useAttempt() {
  const [{ busy = "", wrong }, set] = useState({});
  const attempt = (work, what = "it") => {
    set({ busy: what });
    return work().then(() => set({}), (error) => set({ wrong: trouble(error) }));
  };
  return [wrong, attempt, busy];
}

/** What covers the page has the focus, which goes back to what had it. */
export function useCover() {
  const cover = useRef(null);
  useLayoutEffect(() => {
    const before = document.activeElement;
    cover.current.focus();
    return () => setTimeout(() => before.focus()); // once the page takes it again
  }, []);
  return cover;
}

/** Have what happens in the window acted on. */
export function useEvents(on, deps = []) {
  useEffect(() => {
    for (const [name, act] of Object.entries(on)) addEventListener(name, act, { passive: name === "scroll" });
    return () => Object.entries(on).forEach(([name, act]) => removeEventListener(name, act));
  }, deps);
}

/** So near the end of the page somebody reads along, and the page goes along, too. */
const NEAR_PX = 140;

/** What stands at the end: it comes in sight with every `change` while somebody reads along. */
export function useEnd(change) {
  const near = useRef(true);
  const end = useRef(null);
  useEvents({ scroll: () => end.current && (near.current = end.current.getBoundingClientRect().top <= innerHeight + NEAR_PX) });
  useLayoutEffect(() => {
    if (near.current) end.current.scrollIntoView({ block: "nearest", behavior: "instant" });
  }, [change]);
  return end;
}

const READ_MS = 10000;

/** Something of this page as a file of the person's, which has its own name or this. */
export function save(content, name = content.name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([content])), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), READ_MS);
}

/** What can be taken away: `items` are what it is called, how its name ends, and its content. */
export const Downloads = ({ items, children }) => html`
  <button type="button" popovertarget="formats" aria-haspopup="true">${icon("down")} <span class=${children ? "label" : ""}>Download</span></button>
  <div id="formats" popover class="menu" role="group" aria-label="Download as">
    ${children}
    ${items.filter(Boolean).map(([words, ending, take]) => html`<button type="button" onClick=${() => (document.getElementById("formats").hidePopover?.(), take(ending))}>${words} <span class="quiet">.${ending}</span></button>`)}
  </div>`;

/** The question before something is gone for good. */
export const Sure = ({ id, title, act, children }) => html`<dialog id=${id} aria-label=${`${title}?`} class="small">
  <p>${children} This cannot be undone.</p>
  <form method="dialog" class="choice">
    <button type="submit">Keep it</button>
    <button type="submit" class="danger" onClick=${act}>${title}</button>
  </form>
</dialog>`;

const SHAPES = {
  box: "M4 4h16v16H4z",
  ticked: "M4 4h16v16H4zM8 12l3 3 5-6",
  add: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  down: "M12 4v11m-5-5 5 5 5-5M5 20h14",
  back: "M15 5l-7 7 7 7",
  edit: "M4 20l1-5L16 4l4 4L9 19zM13.5 6.5l4 4",
  folder: "M3 6h6l2 2h10v11H3z",
  keys: "M2 6h20v12H2zM6 10h1M10 10h1M14 10h1M18 10h1M6 14h1M10 14h5M18 14h1",
  people: "M9 4a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM2.5 20a6.5 6.5 0 0 1 13 0M16 4.5a3.5 3.5 0 0 1 0 6M18 14.5a6.5 6.5 0 0 1 3.5 5.5",
  listen: "M4 10v4h4l5 4V6l-5 4zM17 9a4 4 0 0 1 0 6",
  live: "M4 5h16v11h-9l-4 4v-4H4zM8 9h8M8 12h5",
  mic: "M12 3a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3zM6 11a6 6 0 0 0 12 0M12 17v4",
  moon: "M20 14.5A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.5z",
  pause: "M8 5v14M16 5v14",
  play: "M8 5l11 7-11 7z",
  quiet: "M4 10v4h4l5 4V6l-5 4zM16 9.5l5 5M21 9.5l-5 5",
  redo: "M15 5l5 5-5 5M20 10H9a5 5 0 0 0 0 10h4",
  say: "M4 10v4h4l5 4V6l-5 4zM17 9a4 4 0 0 1 0 6M19.5 6.5a8 8 0 0 1 0 11",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.5 15.5L21 21",
  stop: "M7 7h10v10H7z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5M17.5 17.5L19 19M19 5l-1.5 1.5M6.5 17.5L5 19",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  undo: "M9 5l-5 5 5 5M4 10h11a5 5 0 0 1 0 10h-4",
  up: "M6 15l6-6 6 6",
  next: "M6 9l6 6 6-6",
};

export const icon = (name) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${SHAPES[name]} /></svg>`;

/** The head of what is shown, and the way back on a phone. */
export const Head = ({ kind = "", title, facts, recordings, children }) => html`<div class=${`head ${kind}`}>
  <button type="button" class="bare back" aria-label="Back to the recordings" onClick=${() => recordings.select("")}>${icon("back")}</button>
  <div class="title"><h1 dir="auto">${title}</h1><p class="quiet">${facts}</p></div>
  ${children}
</div>`;

/** What was wrong, and what to do. */
export const Trouble = ({ error, children }) => html`<div class="trouble" role="alert">
  <p><strong>${error.detail}</strong></p>
  ${error.hint && html`<p>${error.hint}</p>`}
  ${children}
</div>`;

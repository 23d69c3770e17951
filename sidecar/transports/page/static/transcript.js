/** A transcript of any length as a list in the document: read, searched, walked by key, played by
 * word. Built a few rows at a time, so that nothing waits for it; what is out of sight costs no
 * layout (`content-visibility`), and stays there for the browser's own search and for screen readers.
 *
 * Words are no elements: where one was clicked is asked of the browser, and marks are drawn by
 * `CSS.highlights`. A row is made by `row` alone, from a segment and its number: where editing comes,
 * it comes there and in `update`.
 */

import { called, clock, numberOf } from "./words.js";

const SLICE_MS = 8;
const CHUNK = 30;
/** Marks beyond the rows in sight are not drawn; of one letter there may be ten thousand. */
const MOST_MARKS = 2000;
const pause = () =>
  globalThis.scheduler?.yield ? scheduler.yield() : new Promise((resolve) => setTimeout(resolve));

export class TranscriptView {
  /** How many rows stand. */
  built = 0;
  #list;
  #seek;
  #segments = [];
  #rows = [];
  #chunks = [];
  #seen = new Set();
  #building = false;
  #cursor = 0;
  #word = -1;
  #now = -1;
  #query = null;
  #hits = [];
  #hit = -1;
  #quiet = matchMedia("(prefers-reduced-motion: reduce)");
  #watching;
  #drawing = 0;

  /**
   * @param {HTMLElement} list it is filled here, and by nobody else
   * @param {(seconds: number, play: boolean) => void} seek
   */
  constructor(list, seek) {
    [this.#list, this.#seek] = [list, seek];
    list.addEventListener("click", (event) => this.#clicked(event));
    list.addEventListener("keydown", (event) => this.#pressed(event));
    list.addEventListener("focusin", (event) => this.#focused(event));
    this.#watching = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries)
        this.#seen[isIntersecting ? "add" : "delete"](target);
      this.#draw();
    }, { rootMargin: "300px" });
  }

  close() {
    this.#watching.disconnect();
    for (const name of ["word", "found", "found-now"]) globalThis.CSS?.highlights?.delete(name);
  }

  /** The segments as they are now; rows that say the same stay. */
  update(segments) {
    const before = this.#segments;
    this.#segments = segments.slice();
    for (let i = 0; i < Math.min(this.built, segments.length); i += 1)
      if (before[i] !== segments[i] || before[i - 1]?.speaker !== segments[i - 1]?.speaker) this.#replace(i);
    while (this.built > segments.length) this.#rows[(this.built -= 1)]?.remove();
    this.#rows.length = this.built;
    this.#build();
  }

  async #build() {
    if (this.#building) return;
    this.#building = true;
    try {
      let begun = performance.now();
      while (this.built < this.#segments.length) {
        this.#append(this.built);
        this.built += 1;
        if (performance.now() - begun > SLICE_MS) {
          await pause();
          begun = performance.now();
        }
      }
    } finally {
      this.#building = false;
    }
    this.#list.dataset.built = String(this.built);
    if (this.#query) this.#find();
    this.#draw();
  }

  #append(index) {
    let chunk = this.#chunks[Math.floor(index / CHUNK)];
    if (!chunk) {
      chunk = document.createElement("div");
      chunk.className = "chunk";
      chunk.setAttribute("role", "presentation");
      this.#chunks.push(chunk);
      this.#list.append(chunk);
      this.#watching.observe(chunk);
    }
    this.#rows[index] = this.row(index);
    chunk.append(this.#rows[index]);
  }

  #replace(index) {
    const fresh = this.row(index);
    this.#rows[index].replaceWith(fresh);
    this.#rows[index] = fresh;
  }

  /** The row of a segment. */
  row(index) {
    const segment = this.#segments[index] ?? { speaker: "", start_time: 0, text: "" };
    const before = this.#segments[index - 1];
    const row = element("div", "row");
    row.setAttribute("role", "listitem");
    row.dataset.index = String(index);
    const number = numberOf(segment.speaker);
    if (number !== null) row.dataset.voice = String(number % 8);
    const speaker = called(segment.speaker);
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
    at.tabIndex = index === this.#cursor ? 0 : -1;
    at.setAttribute("aria-label", `${clock(segment.start_time)}, ${speaker}, play`);
    row.append(at, element("p", "said", segment.text));
    if (segment.flags?.length) row.dataset.flags = segment.flags.join(" ");
    if (index === this.#now) row.classList.add("now");
    return row;
  }

  /** Where playback is; `follow`: bring it into sight. */
  at(seconds, follow = false) {
    const index = this.#indexAt(seconds);
    if (index !== this.#now) {
      this.#rows[this.#now]?.classList.remove("now");
      this.#rows[index]?.classList.add("now");
      this.#now = index;
      if (follow && this.#rows[index]) this.#reveal(this.#rows[index]);
    }
    const segment = this.#segments[index];
    const word = segment?.words?.findIndex((one) => seconds >= one.start_time && seconds < one.end_time);
    this.#mark("word", word >= 0 ? [this.#rangeOf(index, word)] : []);
  }

  /** Look for words; what is told is how many there are and which is the one in sight. */
  search(text) {
    const wanted = text.trim();
    this.#query = wanted ? new RegExp(wanted.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\s+/g, "\\s+"), "giu") : null;
    this.#hit = -1;
    this.#find();
    return this.next(1);
  }

  /** The next match, or with -1 the one before. */
  next(step) {
    const count = this.#hits.length;
    if (count) {
      this.#hit = (this.#hit + step + count) % count;
      const row = this.#rows[this.#hits[this.#hit].index];
      if (row) this.#reveal(row);
    }
    this.#draw();
    return { count, number: count ? this.#hit + 1 : 0 };
  }

  #find() {
    this.#hits = [];
    for (let index = 0; this.#query && index < this.#segments.length; index += 1)
      for (const found of this.#segments[index]?.text.matchAll(this.#query) ?? [])
        this.#hits.push({ index, start: found.index, end: found.index + found[0].length });
  }

  /** Draws the marks of what is in sight, in the next frame. */
  #draw() {
    if (this.#drawing) return;
    this.#drawing = requestAnimationFrame(() => {
      this.#drawing = 0;
      const ranges = [];
      for (const hit of this.#hits) {
        const row = this.#rows[hit.index];
        if (row && this.#seen.has(row.parentElement)) ranges.push(this.#range(hit));
        if (ranges.length >= MOST_MARKS) break;
      }
      this.#mark("found", ranges);
      this.#mark("found-now", this.#hit >= 0 ? [this.#range(this.#hits[this.#hit])] : []);
    });
  }

  #mark(name, ranges) {
    const known = ranges.filter(Boolean);
    if (!globalThis.CSS?.highlights) return;
    if (known.length) CSS.highlights.set(name, new Highlight(...known));
    else CSS.highlights.delete(name);
  }

  #range({ index, start, end }) {
    const node = this.#rows[index]?.querySelector(".said")?.firstChild;
    if (!node || end > node.length) return null;
    const range = new StaticRange({ startContainer: node, startOffset: start, endContainer: node, endOffset: end });
    return range;
  }

  #rangeOf(index, word) {
    const place = this.#places(index)[word];
    return place ? this.#range({ index, ...place }) : null;
  }

  /** Where each word of a segment stands in its text. */
  #places(index) {
    const { text, words = [] } = this.#segments[index];
    let from = 0;
    return words.map((word) => {
      const said = word.text.trim();
      const start = text.indexOf(said, from);
      if (start < 0 || !said) return null;
      from = start + said.length;
      return { start, end: from };
    });
  }

  #indexAt(seconds) {
    let [low, high] = [0, this.#segments.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#segments[middle]?.start_time ?? Infinity) <= seconds) low = middle;
      else high = middle - 1;
    }
    return this.#segments[low]?.start_time <= seconds ? low : -1;
  }

  #clicked(event) {
    const row = event.target.closest(".row");
    if (!row || !getSelection().isCollapsed) return;
    const index = Number(row.dataset.index);
    if (event.target.closest(".at")) return this.#go(index, -1, true);
    if (!event.target.closest(".said")) return;
    const caret = document.caretPositionFromPoint?.(event.clientX, event.clientY);
    const offset = caret?.offset ?? document.caretRangeFromPoint?.(event.clientX, event.clientY)?.startOffset ?? 0;
    const word = this.#places(index).findIndex((place) => place && offset >= place.start && offset <= place.end);
    this.#go(index, word, true);
  }

  #go(index, word, play) {
    const segment = this.#segments[index];
    this.#stand(index, word);
    this.#seek(segment.words?.[word]?.start_time ?? segment.start_time, play);
  }

  #stand(index, word) {
    const before = this.#rows[this.#cursor]?.querySelector(".at");
    if (before) before.tabIndex = -1;
    [this.#cursor, this.#word] = [index, word];
    const at = this.#rows[index].querySelector(".at");
    at.tabIndex = 0;
  }

  #focused(event) {
    const row = event.target.closest(".row");
    if (row && Number(row.dataset.index) !== this.#cursor) this.#stand(Number(row.dataset.index), -1);
  }

  /** Up and down by segment, left and right by word; Enter plays from there. */
  #pressed(event) {
    if (!event.target.closest(".at") || event.altKey || event.ctrlKey || event.metaKey) return;
    const last = this.built - 1;
    const words = this.#segments[this.#cursor]?.words?.length ?? 0;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -last, End: last };
    if (event.key in steps) {
      const index = Math.min(last, Math.max(0, this.#cursor + steps[event.key]));
      this.#stand(index, -1);
      this.#rows[index].querySelector(".at").focus({ preventScroll: true });
      this.#reveal(this.#rows[index]);
    } else if ((event.key === "ArrowRight" || event.key === "ArrowLeft") && words) {
      const word = Math.min(words - 1, Math.max(0, this.#word + (event.key === "ArrowRight" ? 1 : -1)));
      this.#go(this.#cursor, word, false);
      this.#mark("word", [this.#rangeOf(this.#cursor, word)]);
    } else if (event.key === "Enter" || event.key === " ") {
      this.#go(this.#cursor, this.#word, true);
    } else return;
    event.preventDefault();
  }

  #reveal(row) {
    row.scrollIntoView({ block: "center", behavior: this.#quiet.matches ? "instant" : "auto" });
  }
}

function element(name, kind, text) {
  const made = document.createElement(name);
  made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

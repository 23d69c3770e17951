/** A transcript of any length as a list in the document, built a few rows at a time. What is out of
 * sight costs no layout (`content-visibility`), and stays there for the browser's search and for screen
 * readers. Words are no elements: where one was clicked is asked of the browser. */

import { Acts, choose, LineEditor, rowOf } from "./line.js";
import { Marks, placesOf } from "./marks.js";

const SLICE_MS = 8;
const CHUNK = 30;
const NOTHING = { speaker: "", start_time: 0, end_time: 0, text: "" };
const pause = () =>
  globalThis.scheduler?.yield ? scheduler.yield() : new Promise((resolve) => setTimeout(resolve));

export class TranscriptView {
  /** How many rows stand. */
  built = 0;
  #list;
  #doing;
  #marks;
  #acts = null;
  #segments = [];
  #rows = [];
  #chunks = [];
  #dirty = new Set();
  #seen = new Set();
  #chosen = new Set();
  #building = false;
  #cursor = 0;
  #word = -1;
  #now = -1;
  #quiet = matchMedia("(prefers-reduced-motion: reduce)");
  #watching;

  /** `doing` is done elsewhere: `text` corrects a line that was `seen` as it is, or else refuses; `fields`: by `id`. */
  constructor(list, doing) {
    [this.#list, this.#doing] = [list, doing];
    this.#marks = new Marks(
      () => this.#segments,
      (index) => this.#rows[index]?.querySelector(".said")?.firstChild,
      (index) => this.#seen.has(this.#rows[index]?.parentElement),
    );
    list.addEventListener("click", (event) => this.#clicked(event));
    list.addEventListener("keydown", (event) => this.#pressed(event));
    list.addEventListener("focusin", (event) => this.#focused(event));
    list.addEventListener("pointerover", (event) => this.#pointed(event));
    this.#watching = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries)
        this.#seen[isIntersecting ? "add" : "delete"](target);
      this.#marks.draw();
    }, { rootMargin: "300px" });
  }

  close() {
    this.#watching.disconnect();
    this.#marks.close();
  }

  /** Whether lines may be corrected and chosen. */
  set editable(wanted) {
    if (wanted === (this.#acts !== null)) return;
    this.#acts?.away();
    this.#acts = wanted ? new Acts((index) => this.#edit(index), (index) => this.toggle(index)) : null;
    if (this.#rows[this.#cursor]) this.#acts?.to(this.#rows[this.#cursor]);
  }

  /** The segments as they are now; rows that say the same stay. */
  update(segments) {
    const before = this.#segments;
    this.#segments = segments.slice();
    for (let i = 0; i < Math.min(this.built, segments.length); i += 1)
      if (before[i] !== segments[i] || before[i - 1]?.speaker !== segments[i - 1]?.speaker) this.#dirty.add(i);
    this.#carry();
    while (this.built > segments.length) this.#rows[(this.built -= 1)]?.remove();
    this.#rows.length = this.built;
    if ([...this.#chosen].some((index) => segments[index]?.end_time !== before[index].end_time)) this.clear(); // they are other lines now
    if (this.built && this.#cursor >= this.built) this.#stand(this.built - 1, -1);
    if (this.#dirty.delete(this.#cursor)) this.#replace(this.#cursor); // whoever acted sees it first
    this.#build();
  }

  async #build() {
    if (this.#building) return;
    this.#building = true;
    try {
      let begun = performance.now();
      while (this.#dirty.size || this.built < this.#segments.length) {
        const [index] = this.#dirty;
        if (index === undefined) {
          this.#append(this.built);
          this.built += 1;
        } else if (this.#dirty.delete(index) && index < this.built) this.#replace(index);
        if (performance.now() - begun > SLICE_MS) {
          await pause();
          begun = performance.now();
        }
      }
    } finally {
      this.#building = false;
    }
    this.#carry();
    this.#list.dataset.built = String(this.built);
    this.#marks.again();
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
    this.#rows[index] = this.#row(index);
    chunk.append(this.#rows[index]);
    if (index === this.#cursor) this.#acts?.to(this.#rows[index]); // seen before anybody points
  }

  #replace(index) {
    const old = this.#rows[index];
    const held = old.contains(document.activeElement) ? document.activeElement : null;
    const fresh = this.#row(index);
    old.replaceWith(fresh);
    this.#rows[index] = fresh;
    if (this.#editor?.index === index) this.#editor.into(fresh);
    if (held || this.#acts?.lost) this.#acts?.to(fresh);
    if (!held) return;
    if (fresh.contains(held)) held.focus();
    else fresh.querySelector(".at").focus({ preventScroll: true });
  }

  #row(index) {
    const [segment, before] = [this.#segments[index] ?? NOTHING, this.#segments[index - 1]];
    const how = { current: index === this.#cursor, chosen: this.#chosen.has(index), now: index === this.#now };
    return rowOf(index, segment, before, how);
  }

  /** Where playback is; `follow`: bring it into sight. */
  at(seconds, follow = false) {
    const index = this.#indexAt(seconds);
    if (index !== this.#now) {
      this.#rows[this.#now]?.classList.remove("now");
      this.#rows[index]?.classList.add("now");
      this.#now = index;
      if (follow && this.#rows[index] && !this.#editor) this.#reveal(this.#rows[index]);
    }
    const segment = this.#segments[index];
    const word = segment?.words?.findIndex((one) => seconds >= one.start_time && seconds < one.end_time);
    this.#markWord(index, word ?? -1);
  }

  /** Look for words; what is told is how many there are and which is the one in sight. */
  search(text) {
    this.#marks.look(text);
    return this.next(1);
  }

  /** The words are looked for in what there is now. */
  searched() {
    this.#marks.again();
    return this.#marks.next(0);
  }

  /** The next match, or with -1 the one before. */
  next(step) {
    const found = this.#marks.next(step);
    if (this.#rows[found.index]) this.#reveal(this.#rows[found.index]);
    return found;
  }

  /** Choose a line, or do so no more. */
  toggle(index, chosen = !this.#chosen.has(index)) {
    this.#chosen[chosen ? "add" : "delete"](index);
    if (this.#rows[index]) choose(this.#rows[index], this.#segments[index], chosen);
    this.#acts?.show();
    this.#doing.chosen([...this.#chosen].sort((one, other) => one - other));
  }

  /** Nothing is chosen any more; where somebody was at it, the focus is back in the list. */
  clear() {
    const chosen = [...this.#chosen];
    this.#chosen.clear();
    for (const index of chosen) if (this.#rows[index]) choose(this.#rows[index], this.#segments[index], false);
    this.#acts?.show();
    this.#doing.chosen([]);
  }

  /** The focus to the line that had it last. */
  focus() {
    this.#rows[this.#cursor]?.querySelector(".at").focus({ preventScroll: true });
  }

  #edit(index) {
    if (!this.#acts || this.#editor) return;
    this.#stand(index, -1);
    const editor = new LineEditor(index, this.#rows[index], this.#segments[index]);
    editor.view = this;
    this.#doing.fields.set(this.#doing.id, editor);
  }

  /** @returns {Promise<boolean>} whether the line reads so */
  async correct(text) {
    const editor = this.#editor;
    const { text: now } = this.#segments[editor.index];
    const done = text === now || (await this.#doing.text(editor.index, text, editor.seen.text === now));
    editor.seen = this.#segments[editor.index]; // it is in sight now
    return done;
  }

  /** The field is left. */
  leave() {
    const { index } = this.#editor;
    this.#doing.fields.delete(this.#doing.id);
    this.#replace(index);
    this.focus();
  }

  get #editor() {
    return this.#doing.fields.get(this.#doing.id);
  }

  /** The field goes with its line, whose number may be another now, or which was shown in another list. */
  #carry() {
    const editor = this.#editor;
    if (!editor || !this.built) return;
    const stays = this.#segments[editor.index]?.start_time === editor.seen.start_time;
    const index = Math.min(this.built - 1, stays ? editor.index : Math.max(0, this.#indexAt(editor.seen.start_time)));
    if (editor.isIn(this.#rows[index])) return;
    const held = document.activeElement;
    [editor.view, editor.index] = [this, index];
    editor.into(this.#rows[index]);
    held.focus();
  }

  #markWord(index, word) {
    const place = word >= 0 ? placesOf(this.#segments[index])[word] : null;
    this.#marks.word(place && { index, ...place });
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
    if (event.target.closest(".at")) {
      if (this.#acts && (event.ctrlKey || event.metaKey)) return this.toggle(index);
      return this.#go(index, -1, true);
    }
    if (this.#acts && event.target.closest(".who")) return this.#doing.speaker(this.#segments[index].speaker);
    if (!event.target.closest(".said")) return;
    const caret = document.caretPositionFromPoint?.(event.clientX, event.clientY);
    const offset = caret?.offset ?? document.caretRangeFromPoint?.(event.clientX, event.clientY)?.startOffset ?? 0;
    const word = placesOf(this.#segments[index]).findIndex((place) => place && offset >= place.start && offset <= place.end);
    this.#go(index, word, true);
  }

  #go(index, word, play) {
    const segment = this.#segments[index];
    this.#stand(index, word);
    this.#doing.seek(segment.words?.[word]?.start_time ?? segment.start_time, play);
  }

  #stand(index, word) {
    const before = this.#rows[this.#cursor]?.querySelector(".at");
    if (before) before.tabIndex = -1;
    [this.#cursor, this.#word] = [index, word];
    this.#rows[index].querySelector(".at").tabIndex = 0;
    if (!this.#acts?.held) this.#acts?.to(this.#rows[index]);
  }

  #focused(event) {
    const row = event.target.closest(".row");
    if (!row) return;
    if (Number(row.dataset.index) !== this.#cursor) this.#stand(Number(row.dataset.index), -1);
    if (event.target.closest(".at")) this.#acts?.to(row);
  }

  #pointed(event) {
    const row = event.target.closest(".row");
    if (row && this.#acts && !this.#acts.held && !this.#editor) this.#acts.to(row);
  }

  /** Up and down by segment, left and right by word; Enter plays from there, E corrects, X chooses. */
  #pressed(event) {
    if (!event.target.closest(".at") || event.altKey || event.ctrlKey || event.metaKey) return;
    const last = this.built - 1;
    const words = this.#segments[this.#cursor]?.words?.length ?? 0;
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -last, End: last };
    if (event.key in steps) {
      const index = Math.min(last, Math.max(0, this.#cursor + steps[event.key]));
      if (event.shiftKey && this.#acts) {
        const [from, to] = [Math.min(index, this.#cursor), Math.max(index, this.#cursor)];
        for (let i = from; i <= to; i += 1) this.toggle(i, true);
      }
      this.#stand(index, -1);
      this.focus();
      this.#reveal(this.#rows[index]);
    } else if ((event.key === "ArrowRight" || event.key === "ArrowLeft") && words) {
      const word = Math.min(words - 1, Math.max(0, this.#word + (event.key === "ArrowRight" ? 1 : -1)));
      this.#go(this.#cursor, word, false);
      this.#markWord(this.#cursor, word);
    } else if (event.key === "Enter" || event.key === " ") {
      this.#go(this.#cursor, this.#word, true);
    } else if (this.#acts && event.key.toLowerCase() === "e") {
      this.#edit(this.#cursor);
    } else if (this.#acts && event.key.toLowerCase() === "x") {
      this.toggle(this.#cursor);
    } else return;
    event.preventDefault();
  }

  #reveal(row) {
    row.scrollIntoView({ block: "center", behavior: this.#quiet.matches ? "instant" : "auto" });
  }
}

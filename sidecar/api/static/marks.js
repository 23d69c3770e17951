/** Words that are looked for, that are perhaps wrong, and the word that is heard, marked in the text without any element:
 * drawn by `CSS.highlights`, and only where the rows are in sight. */

/** Marks beyond the rows in sight are not drawn; of one letter there may be ten thousand. */
const MOST = 2000;
/** Of the words below this confidence more than one in four is wrong (the service's WebVTT has it, too). */
const DOUBTFUL_CONFIDENCE = 0.7;

export class Marks {
  #textOf;
  #nodeOf;
  #isSeen;
  #query = null;
  #hits = [];
  #doubtful = [];
  #hit = -1;
  #drawing = 0;

  /** What may be looked through, where a line stands, and whether it is in sight, or nearly. */
  constructor(textOf, nodeOf, isSeen) {
    [this.#textOf, this.#nodeOf, this.#isSeen] = [textOf, nodeOf, isSeen];
  }

  close() {
    for (const name of ["word", "found", "found-now", "doubtful"]) globalThis.CSS?.highlights?.delete(name);
  }

  /** Look for words, from the first again. */
  look(text) {
    const wanted = text.trim();
    this.#query = wanted ? new RegExp(wanted.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/\s+/g, "\\s+"), "giu") : null;
    this.#hit = -1;
    this.again();
  }

  /** The lines are others now. */
  again() {
    this.#doubtful = this.#textOf().flatMap(doubtfulOf);
    this.#hits = [];
    if (this.#query)
      this.#textOf().forEach((line, index) => {
        for (const found of line?.text.matchAll(this.#query) ?? [])
          this.#hits.push({ index, start: found.index, end: found.index + found[0].length });
      });
    this.draw();
  }

  /** The next match, with -1 the one before, with 0 the same: how many there are, which it is, and its line. */
  next(step) {
    const count = this.#hits.length;
    if (!step) this.#hit = Math.min(Math.max(this.#hit, 0), count - 1);
    else if (count) this.#hit = (this.#hit + step + count) % count;
    this.draw();
    return { count, number: count ? this.#hit + 1 : 0, index: this.#hits[this.#hit]?.index ?? -1 };
  }

  /** Marks what is in sight, in the next frame. */
  draw() {
    if (this.#drawing) return;
    this.#drawing = requestAnimationFrame(() => {
      this.#drawing = 0;
      mark("doubtful", this.#rangesInSight(this.#doubtful));
      mark("found", this.#rangesInSight(this.#hits));
      const now = this.#hits[this.#hit];
      mark("found-now", now ? [this.#range(now)] : []);
    });
  }

  /** The word that is heard; null for none. */
  word(place) {
    mark("word", place ? [this.#range(place)] : []);
  }

  #rangesInSight(places) {
    const ranges = [];
    for (const place of places) {
      if (this.#isSeen(place.index)) ranges.push(this.#range(place));
      if (ranges.length >= MOST) break;
    }
    return ranges;
  }

  #range({ index, start, end }) {
    const node = this.#nodeOf(index);
    if (!node || end > node.length) return null;
    return new StaticRange({ startContainer: node, startOffset: start, endContainer: node, endOffset: end });
  }
}

function mark(name, ranges) {
  const known = ranges.filter(Boolean);
  if (!globalThis.CSS?.highlights) return;
  if (known.length) CSS.highlights.set(name, new Highlight(...known));
  else CSS.highlights.delete(name);
}

/** Where the words of a segment stand that are perhaps wrong. Pure. */
export function doubtfulOf(segment, index) {
  if (!segment?.words?.some(({ confidence }) => confidence < DOUBTFUL_CONFIDENCE)) return [];
  return placesOf(segment)
    .filter((place, number) => place && segment.words[number].confidence < DOUBTFUL_CONFIDENCE)
    .map((place) => ({ index, ...place }));
}

/** Where each word of a segment stands in its text; null for one that is not in it. Pure. */
export function placesOf({ text, words = [] }) {
  let from = 0;
  return words.map((word) => {
    const said = word.text.trim();
    const start = text.indexOf(said, from);
    if (start < 0 || !said) return null;
    from = start + said.length;
    return { start, end: from };
  });
}

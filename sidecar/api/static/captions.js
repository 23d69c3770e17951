/** What a live session has told so far, out of its events. Pure. */

import { numberOf } from "./words.js";

const NOTICES = 3;
/** Seconds between two sessions that are no gap: times are rounded. */
const ROUNDED_S = 0.2;

/**
 * `lines` are final, by piece; `partials` are what pieces seem to say; `summary` is the transcript,
 * in the end, and `job` what that was kept as. `past` are the lines of the sessions before, and `from` is where this one begins, in seconds.
 * `again` are lines that were shown and are heard again; `gaps` are stretches, in seconds, that no session is asked for again.
 */
export const NOTHING = { lines: new Map(), partials: new Map(), notices: [], summary: null, job: "", past: [], again: [], gaps: [], from: 0 };

/** Words that were shown last where the engine died: they may not be all. */
const isUnheard = ({ flags = [] }) => flags.includes("unheard");

/** What the next session goes on from, which begins at `from`, behind the `told` of those before: nothing that was shown goes away. */
export function continued(before, from, told = from) {
  const lines = [...segmentsOf(before), ...shownOf(before)];
  const isAgain = (one) => isUnheard(one) && one.end_time > from;
  const whole = Math.min(told, before.summary ? before.from + wholeUntil(before.summary) : told);
  const gaps = from - whole > ROUNDED_S ? [...before.gaps, [whole, from]] : before.gaps;
  return { ...NOTHING, past: lines.filter((one) => !isAgain(one)), again: lines.filter(isAgain), gaps, from };
}

/** What was being said where a session broke off. */
const shownOf = ({ partials, from }) =>
  [...partials.values()].map(({ start, end, text, tail }) => ({ speaker: null, text: tail ? `${text} ${tail}` : text, start_time: start + from, end_time: end + from, flags: ["unheard"] }));

/** Seconds of a session in which its summary lacks no word. */
export const wholeUntil = ({ metadata }) => metadata.recognized_s ?? metadata.duration;

/** Until where a session recognized what was said, in seconds of the talk; without a summary the service has said `recognized`. */
export function toldUntil({ lines, summary, from }, recognized) {
  const ends = [...lines.values()].filter((one) => !isUnheard(one)).map((one) => one.end_time);
  return from + Math.max(summary ? wholeUntil(summary) : recognized, ...ends);
}

export function after(before, event) {
  switch (event.type) {
    case "partial":
      return { ...before, partials: new Map(before.partials).set(event.piece, event) };
    case "final": {
      const partials = without(before.partials, (one) => one.piece === event.piece);
      return { ...before, partials, lines: new Map(before.lines).set(event.piece, event.segment) };
    }
    case "turn_ended":
    case "turn_dropped":
      return { ...before, partials: without(before.partials, (one) => one.turn === event.turn) };
    case "speakers_revised":
      return { ...before, lines: revised(before.lines, event.speakers, event.names ?? {}) };
    case "notice":
      return { ...before, notices: [...before.notices.filter((one) => one.code !== event.code), event].slice(-NOTICES) };
    case "summary":
      return { ...before, partials: new Map(), summary: event.transcript, job: event.job ?? "" };
    default:
      return before;
  }
}

/** The lines in their order. Who spoke in a session before may be anybody of this one: voices are counted on. */
export function segmentsOf({ lines, partials, summary, past, again, from }) {
  const own = summary?.segments ?? [...lines.entries()].sort(([one], [other]) => one - other).map(([, segment]) => segment);
  if (!past.length && !again.length && !from) return own;
  const before = Math.max(-1, ...[...past, ...again].map((one) => numberOf(one.speaker) ?? -1)) + 1;
  const moved = (one) => ({ ...one, start_time: one.start_time + from, end_time: one.end_time + from });
  const ends = [...own.map((one) => one.end_time), ...[...partials.values()].map((one) => one.end), summary ? wholeUntil(summary) : 0];
  const heard = from + Math.max(0, ...ends);
  return [...past, ...own.map((one) => {
    const number = numberOf(one.speaker);
    const speaker = number === null ? one.speaker : `Speaker_${before + number}`;
    return { ...moved(one), speaker, ...(one.words && { words: one.words.map(moved) }) };
  }), ...again.filter((one) => heard <= Math.max(from, one.start_time))];
}

/** Lines of a talk as a document; what the service says of all of it is known of one session only. */
export const everythingOf = (segments, { summary, from } = NOTHING) => (from ? { segments } : { ...summary, segments });

/** What is being said: what stays, and what may yet be something else. */
export function tailOf({ partials }) {
  return [...partials.values()]
    .sort((one, other) => one.piece - other.piece)
    .map(({ piece, text, stable, tail }) => {
      const sure = text.startsWith(stable) ? stable : "";
      return { piece, sure, unsure: text.slice(sure.length) + (tail && ` ${tail}`) };
    });
}

function without(partials, gone) {
  return new Map([...partials].filter(([, one]) => !gone(one)));
}

/** The lines by who says them now; a name is the speaker's, so it goes with that. */
function revised(lines, speakers, names) {
  const called = { ...Object.fromEntries([...lines.values()].map((one) => [one.speaker, one.name])), ...names };
  const fresh = new Map(lines);
  for (const [piece, line] of lines) {
    const speaker = speakers[piece] ?? line.speaker;
    const name = called[speaker] ?? undefined;
    if (line.speaker !== speaker || line.name !== name) fresh.set(piece, { ...line, speaker, name });
  }
  return fresh;
}

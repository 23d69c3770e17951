/** What a live session has told so far, out of its events. Pure. */

const NOTICES = 3;

/** @typedef {import("./client/live.js").LiveEvent} LiveEvent */

/**
 * `lines` are final, by piece; `partials` are what pieces seem to say; `summary` is the transcript,
 * in the end.
 */
export const NOTHING = { lines: new Map(), partials: new Map(), notices: [], summary: null };

/** @param {typeof NOTHING} before @param {LiveEvent} event @returns {typeof NOTHING} */
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
      return { ...before, partials: new Map(), summary: event.transcript };
    default:
      return before;
  }
}

/** The lines in their order. */
export function segmentsOf({ lines, summary }) {
  if (summary) return summary.segments;
  return [...lines.entries()].sort(([one], [other]) => one - other).map(([, segment]) => segment);
}

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

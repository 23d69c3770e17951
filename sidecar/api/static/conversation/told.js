/** What a conversation has told so far, out of its messages. Pure. */

/**
 * @typedef {{ key: number, who: "person" | "machine", text: string, open: boolean, turn?: number,
 *   ending?: string, typed?: boolean, stages?: Record<string, number> }} Line
 */

/** `lines` in their order; of the open ones more may come. */
export const NOTHING = { lines: /** @type {Line[]} */ ([]), phase: "idle", wrong: null, began: null, next: 1 };

/** @param {typeof NOTHING} before @param {Record<string, any>} message @returns {typeof NOTHING} */
export function after(before, message) {
  const { type, turn, text } = message;
  switch (type) {
    case "began":
      return { ...before, began: message };
    case "phase":
      return { ...before, phase: message.phase };
    case "person_started":
      return saying(before) ? before : more(before, { who: "person", text: "", open: true });
    case "person_saying":
      return saying(before) ? put(before, isSaying, { text }) : more(before, { who: "person", text, open: true });
    case "person_said":
      return message.typed || !saying(before)
        ? more({ ...before, wrong: null }, { who: "person", text, open: false, typed: message.typed })
        : put({ ...before, wrong: null }, isSaying, { text, open: false });
    case "nothing_said":
      return { ...before, lines: before.lines.filter((line) => !isSaying(line)) };
    case "reply_started":
      return more(before, { who: "machine", text: "", open: true, turn });
    case "reply_written":
      return put(before, is(turn), (line) => ({ text: line.text + text }));
    case "latency":
      return put(before, is(turn), { stages: message });
    case "reply_ended":
    case "reply_truncated":
      return heard(put(before, is(turn), { text, open: false, ...(message.ending && { ending: message.ending }) }));
    case "error":
      return { ...before, wrong: { detail: message.message, hint: message.hint ?? "", code: message.code ?? "" } };
    case "reset":
      return { ...before, lines: [], wrong: null };
    default:
      return before;
  }
}

const isSaying = (line) => line.who === "person" && line.open;
const saying = ({ lines }) => lines.some(isSaying);
const is = (turn) => (line) => line.who === "machine" && line.turn === turn;

function more(before, line) {
  return { ...before, lines: [...before.lines, { key: before.next, ...line }], next: before.next + 1 };
}

function put(before, which, change) {
  const changed = (line) => ({ ...line, ...(typeof change === "function" ? change(line) : change) });
  return { ...before, lines: before.lines.map((line) => (which(line) ? changed(line) : line)) };
}

/** Replies of which nothing was heard were not said. */
function heard(before) {
  return { ...before, lines: before.lines.filter(({ who, open, text }) => who === "person" || open || text) };
}

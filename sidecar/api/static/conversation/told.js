/** What a conversation has told so far, out of its events. Pure. */

/** `lines` in their order; of the open ones more may come. */
export const NOTHING = { lines: [], phase: "idle", wrong: null, began: null, next: 1 };

/** A request that came too late says nothing. */
const LATE = "response_cancel_not_active";
const ENDINGS = { incomplete: "limited", failed: "failed" };

/**
 * The events of the service, and four of the page's own: `typed`: what the service has yet to take; `heard`: all of
 * an `item` was played; `cancelled`: by the person; `latency`. `playing`: sound is still to be heard.
 */
export function after(before, event) {
  const { type, item_id: item, response_id: response, delta, error } = event;
  switch (type) {
    case "session.updated":
      return { ...before, began: { model: event.session.model, spoken: event.session.output_modalities[0] === "audio" } };
    case "input_audio_buffer.speech_started":
      return more({ ...before, phase: "listening" }, { who: "person", text: "", open: true, item });
    case "input_audio_buffer.speech_stopped": // a noise, unless its words follow
      return { ...drop(before, (line) => line.item === item), phase: "idle" };
    case "conversation.item.input_audio_transcription.delta":
      return put(known(before, item), of(item), (line) => ({ text: line.text + delta }));
    case "conversation.item.input_audio_transcription.completed":
      return bare(put({ ...known(before, item), wrong: null }, of(item), () => ({ text: event.transcript, open: false })));
    case "conversation.item.done":
      return event.item.role === "user" && event.item.content[0].type === "input_text"
        ? put({ ...before, wrong: null }, is(before.lines.find(({ typed, open }) => typed && open)), () => ({ open: false }))
        : before;
    case "typed":
      return more(before, { who: "person", text: event.text, typed: true, open: true });
    case "conversation.item.retrieved":
      return bare(put(before, of(event.item.id), () => ({ text: event.item.content[0].transcript ?? event.item.content[0].text })));
    case "response.created":
      return more({ ...before, phase: "generating" }, { who: "machine", text: "", open: true, response: event.response.id });
    case "response.output_audio_transcript.delta":
    case "response.output_text.delta":
      return put(before, by(response), (line) => ({ text: line.text + delta, item }));
    case "response.output_audio.delta":
      return { ...before, phase: "speaking" };
    case "latency":
      return put(before, by(response), () => ({ stages: event.stages }));
    case "cancelled":
      return put(before, (line) => line.who === "machine" && line.open, () => ({ ending: "cancelled" }));
    case "output_audio_buffer.cleared":
      return bare(put({ ...before, phase: "idle" }, by(response), (line) => ({ open: false, ending: line.ending ?? "interrupted" })));
    case "response.done":
      return done(before, event);
    case "heard":
      return event.done ? { ...put(before, of(event.item), () => ({ open: false })), phase: "idle" } : before;
    case "error":
      return error.code === LATE ? before : { ...before, wrong: { detail: error.message, hint: "", code: error.code } };
    default:
      return before;
  }
}

function done(before, { response: { id, status, status_details: why }, playing }) {
  const open = playing && status !== "cancelled";
  const ended = put(before, by(id), (line) => ({ open, ending: line.ending ?? ENDINGS[status] }));
  const wrong = status === "failed" ? { detail: why.error.message, hint: "", code: why.error.code } : before.wrong;
  return { ...bare(ended), wrong, phase: open || before.phase === "listening" ? before.phase : "idle" };
}

const is = (one) => (line) => line === one;
const of = (item) => (line) => line.item === item;
const by = (response) => (line) => line.response === response;
const known = (before, item) => (before.lines.some(of(item)) ? before : more(before, { who: "person", text: "", open: true, item }));

function more(before, line) {
  return { ...before, lines: [...before.lines, { key: before.next, ...line }], next: before.next + 1 };
}

function put(before, which, change) {
  return { ...before, lines: before.lines.map((line) => (which(line) ? { ...line, ...change(line) } : line)) };
}

function drop(before, which) {
  return { ...before, lines: before.lines.filter((line) => !which(line)) };
}

/** Of what is over only what has words: an answer of which nothing was heard was not said. */
const bare = (before) => drop(before, ({ open, text }) => !open && !text.trim());

/** What becomes of a take, a recording or a file, until the service has its transcript: state, event, state. Pure. */

import { wholeUntil } from "./captions.js";

/** A transcript of all of a talk may be shorter by so much. */
export const LESS_S = 0.5;
/** Warnings of a transcript that has not every word of its sound. (`audio_truncated` is no such: what is lost is not in the sound.) */
const LACKING = new Set(["loop_skipped", "output_truncated", "recognition_failed", "sound_lost", "speech_missed", "utterance_dropped"]);
/**
 * `sent`: it is a job that is not done; `kept`: it is in this browser until somebody sends or deletes it, as is one whose job is done and was found `lacking` words.
 * `captioned`: it ended, and is not to be sent; `made`: its session is a job with every word; `found`: its tab is no more; `restarted`: the service has forgotten it.
 */
const TABLE = {
  recording: { ended: "waiting", captioned: "kept", made: "sent", found: "kept", deleted: "gone" },
  waiting: { begun: "sending", found: "kept", deleted: "gone" },
  sending: { sent: "sent", refused: "kept", found: "kept", deleted: "gone" },
  sent: { done: "done", lacking: "kept", failed: "kept", restarted: "waiting", found: "sent", deleted: "gone" },
  kept: { send: "waiting", found: "kept", deleted: "gone" },
  done: { send: "waiting", deleted: "gone" },
};

/** The same state where the event means nothing in it. */
export const after = (state, event) => TABLE[state]?.[event] ?? state;

/** Whether a transcript of so many seconds is known to lack words: then their sound is all that there is of them. */
export const lacksWords = ({ metadata }, seconds = metadata.duration) =>
  wholeUntil({ metadata }) <= seconds - LESS_S || (metadata.warnings ?? []).some(({ code }) => LACKING.has(code));

/** What a talk of so many seconds ends as: where the service's job of it lacks words, its sound is sent. */
export const endOf = ({ keeps, captions: { job, summary } }, seconds) =>
  job && !lacksWords(summary, seconds) ? "made" : keeps ? "ended" : "captioned";

/** Whether somebody who leaves is asked first: it was recorded here, and is nowhere else yet. */
export const asks = ({ source, state, found, saved }) =>
  source === "file" ? state === "waiting" || state === "sending" : !["sent", "done"].includes(state) && !found && !saved;

/** Whether it is in the list: a job stands for itself and for a kept talk, of which a `part` was a job before, or none (""). */
export const isListed = ({ source, state, part }) =>
  ["recording", "waiting", "sending", "kept"].includes(state) || (source === "captions" && part === undefined);

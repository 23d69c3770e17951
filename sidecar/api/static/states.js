/** What becomes of a take, a recording or a file, until the service has its transcript: state, event, state. Pure. */

/**
 * `sent`: it is a job that is not done; `kept`: it is in this browser until somebody sends or deletes it.
 * `captioned`: it ended, and is not to be sent; `found`: its tab is no more; `restarted`: the service has forgotten it.
 */
const TABLE = {
  recording: { ended: "waiting", captioned: "kept", found: "kept", deleted: "gone" },
  waiting: { begun: "sending", found: "kept", deleted: "gone" },
  sending: { sent: "sent", refused: "kept", found: "kept", deleted: "gone" },
  sent: { done: "done", failed: "kept", restarted: "waiting", found: "sent", deleted: "gone" },
  kept: { send: "waiting", found: "kept", deleted: "gone" },
  done: { send: "waiting", deleted: "gone" },
};

/** The same state where the event means nothing in it. */
export const after = (state, event) => TABLE[state]?.[event] ?? state;

/** Whether somebody who leaves is asked first: it was recorded here, and is nowhere else yet. */
export const asks = ({ source, state, found, saved }) =>
  source === "file" ? state === "waiting" || state === "sending" : !["sent", "done"].includes(state) && !found && !saved;

/** Whether it is in the list: the microphone's has its own place while it lasts, and a job stands for itself. */
export const isListed = ({ source, state }) => source === "captions" || ["waiting", "sending", "kept"].includes(state);

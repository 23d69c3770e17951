/** The client of vibevoice-asr: recordings in, transcripts with speakers out. */

export { VibevoiceClient } from "./client.js";
export {
  AnswerNotUnderstood,
  ClientError,
  ConnectionLost,
  ServiceError,
  ServiceUnreachable,
} from "./errors.js";
export { LiveSession } from "./live.js";
export { FORMATS } from "./calls.js";
export { NEVER, PATIENT } from "./retry.js";

/** @typedef {import("./client.js").ClientOptions} ClientOptions */
/** @typedef {import("./client.js").Submission} Submission */
/** @typedef {import("./client.js").Waiting} Waiting */
/** @typedef {import("./calls.js").Audio} Audio */
/** @typedef {import("./calls.js").Format} Format */
/** @typedef {import("./following.js").JobEvent} JobEvent */
/** @typedef {import("./live.js").LiveEvent} LiveEvent */
/** @typedef {import("./live.js").LiveOptions} LiveOptions */
/** @typedef {import("./live.js").LiveSetup} LiveSetup */
/** @typedef {import("./progress.js").Progress} Progress */
/** @typedef {import("./retry.js").Retry} Retry */
/** @typedef {import("./wire.js").Edited} Edited */
/** @typedef {import("./wire.js").Health} Health */
/** @typedef {import("./wire.js").Job} Job */
/** @typedef {import("./wire.js").JobPage} JobPage */
/** @typedef {import("./wire.js").JobState} JobState */
/** @typedef {import("./wire.js").Options} Options */
/** @typedef {import("./wire.js").Segment} Segment */
/** @typedef {import("./wire.js").Transcript} Transcript */

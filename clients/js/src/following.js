/** The events of one job, over as many connections as it takes: none lost, none twice. Pure. */

import { events, EVENT_STREAM, fine, refusalOf } from "./calls.js";
import { AnswerNotUnderstood, ConnectionLost, ServiceError } from "./errors.js";
import { passes, waitMs } from "./retry.js";
import { Parser } from "./sse.js";

const ENDED = new Set(["done", "failed", "cancelled"]);
/** The event of a stream that was read too slowly, its last: it goes on after what was read. */
const BEHIND = "behind";

/**
 * Something that happened to a job, the `id`-th; one without an id is a message in passing. `kind`:
 * begun, segment, progress, crashed, put_back, refused, done, failed, cancelled (docs/queue.md).
 *
 * @typedef {{ kind: string, data: Record<string, any>, id: number | null }} JobEvent
 */

/** @param {{ state: string }} job */
export const hasEnded = (job) => ENDED.has(job.state);

export class Following {
  /** Whether the job's last event has come. */
  ended = false;
  #id;
  #last;
  #retry;
  #failures = 0;
  #heard = false;
  #parser = new Parser();

  /**
   * @param {string} id
   * @param {number | null} after the event that was read last
   * @param {import("./retry.js").Retry} retry
   */
  constructor(id, after, retry) {
    this.#id = id;
    this.#last = after;
    this.#retry = retry;
  }

  /** The request for what comes next. */
  get call() {
    return events(this.#id, this.#last);
  }

  /**
   * There is an answer, whose body comes in pieces.
   *
   * @param {import("./calls.js").Answer} answer with a text only where it is no good one
   * @param {number} nowMs
   * @returns {ServiceError | null} what the service said no with for now
   * @throws {ServiceError | AnswerNotUnderstood} it said no for good, or is something else
   */
  opened(answer, nowMs) {
    [this.#parser, this.#heard] = [new Parser(), false];
    if (!fine(answer.status)) {
      const error = refusalOf(answer, nowMs);
      if (error instanceof ServiceError && passes(answer.status)) return error;
      throw error;
    }
    if (answer.status === 204) this.ended = true; // nothing more will come, as the standard has it
    else if (!answer.headers.get("content-type")?.startsWith(EVENT_STREAM))
      throw new AnswerNotUnderstood("What answers sends no events.");
    return null;
  }

  /**
   * The events that `piece` completes, without those that were there already.
   *
   * @param {Uint8Array} piece
   * @returns {Generator<JobEvent, void, void>}
   */
  *took(piece) {
    for (const frame of this.#parser.feed(piece)) {
      const event = eventOf(frame);
      if (!event || event.kind === BEHIND) continue;
      this.ended ||= ENDED.has(event.kind); // also where it was there: a proxy may drop our header
      if (event.id !== null) {
        if (this.#last !== null && event.id <= this.#last) continue;
        this.#last = event.id;
      }
      [this.#heard, this.#failures] = [true, 0];
      yield event;
    }
  }

  /**
   * The connection is no more; milliseconds to wait before the next.
   *
   * @param {import("./errors.js").ClientError | null} error
   * @param {number} chance
   * @throws {import("./errors.js").ClientError} it has been enough
   */
  closed(error, chance) {
    if (this.#heard && !error) return 0; // it said something new: on from there
    this.#failures += 1;
    const asked = error instanceof ServiceError ? error.retryAfter : null;
    const wait = waitMs(this.#retry, this.#failures, chance, asked);
    if (wait === null)
      throw error ?? new ConnectionLost("The service sends no more events of this job.");
    return Math.max(wait, this.#parser.retryMs);
  }
}

/**
 * @param {import("./sse.js").Frame} frame
 * @returns {JobEvent | null} null where it is none of ours
 */
export function eventOf(frame) {
  try {
    const data = JSON.parse(frame.data);
    if (data === null || typeof data !== "object" || Array.isArray(data)) return null;
    return { kind: frame.event, data, id: /^\d+$/.test(frame.id) ? Number(frame.id) : null };
  } catch {
    return null;
  }
}

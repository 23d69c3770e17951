/**
 * @param {import("./sse.js").Frame} frame
 * @returns {JobEvent | null} null where it is none of ours
 */
export function eventOf(frame: import("./sse.js").Frame): JobEvent | null;
export function hasEnded(job: {
    state: string;
}): boolean;
export class Following {
    /**
     * @param {string} id
     * @param {number | null} after the event that was read last
     * @param {import("./retry.js").Retry} retry
     */
    constructor(id: string, after: number | null, retry: import("./retry.js").Retry);
    /** Whether the job's last event has come. */
    ended: boolean;
    /** The request for what comes next. */
    get call(): import("./calls.js").Call;
    /**
     * There is an answer, whose body comes in pieces.
     *
     * @param {import("./calls.js").Answer} answer with a text only where it is no good one
     * @param {number} nowMs
     * @returns {ServiceError | null} what the service said no with for now
     * @throws {ServiceError | AnswerNotUnderstood} it said no for good, or is something else
     */
    opened(answer: import("./calls.js").Answer, nowMs: number): ServiceError | null;
    /**
     * The events that `piece` completes, without those that were there already.
     *
     * @param {Uint8Array} piece
     * @returns {Generator<JobEvent, void, void>}
     */
    took(piece: Uint8Array): Generator<JobEvent, void, void>;
    /**
     * The connection is no more; milliseconds to wait before the next.
     *
     * @param {import("./errors.js").ClientError | null} error
     * @param {number} chance
     * @throws {import("./errors.js").ClientError} it has been enough
     */
    closed(error: import("./errors.js").ClientError | null, chance: number): number;
    #private;
}
/**
 * Something that happened to a job, the `id`-th; one without an id is a message in passing. `kind`:
 * begun, segment, progress, crashed, put_back, refused, done, failed, cancelled (docs/queue.md).
 */
export type JobEvent = {
    kind: string;
    data: Record<string, any>;
    id: number | null;
};
import { ServiceError } from "./errors.js";

/**
 * @typedef {import("./wire.js").LiveEvent} LiveEvent
 * @typedef {import("./wire.js").Transcript} Transcript
 *
 * @typedef {import("./wire.js").LiveOptions & { onEvent?: (event: LiveEvent) => void }} LiveSetup
 */
/**
 * Transcribe a stream while it lasts, such as that of `navigator.mediaDevices.getUserMedia({ audio: true })`.
 *
 * @param {MediaStream} stream stays the caller's: its tracks are not stopped here
 * @param {LiveSetup} [setup]
 * @returns {Promise<LiveSession>} once the service has taken the session
 */
export function live(stream: MediaStream, { onEvent, ...options }?: LiveSetup): Promise<LiveSession>;
/** One session; `done` has its transcript, or why there is none. */
export class LiveSession {
    /**
     * @param {MediaStream} stream
     * @param {((event: LiveEvent) => void) | undefined} onEvent
     */
    constructor(stream: MediaStream, onEvent: ((event: LiveEvent) => void) | undefined);
    /** @type {Promise<Transcript | null>} the summary; null after `close` */
    done: Promise<Transcript | null>;
    /** @param {import("./wire.js").LiveOptions} options */
    begin(options: import("./wire.js").LiveOptions): Promise<void>;
    /** No more sound: the rest is told; the transcript of all of it. */
    finish(): Promise<import("./wire.js").Transcript | null>;
    /** Leave it; there is no transcript. */
    close(): Promise<void>;
    /** End the turn here. */
    commit: () => Promise<unknown>;
    #private;
}
export type LiveEvent = import("./wire.js").LiveEvent;
export type Transcript = import("./wire.js").Transcript;
export type LiveSetup = import("./wire.js").LiveOptions & {
    onEvent?: (event: LiveEvent) => void;
};

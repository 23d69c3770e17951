/** What to do once it does not. */
export const LOST_HINT: "Begin a new session once the service answers. If interruptions are longer than its live_grace, raise that setting.";
/** @typedef {{ start: number, bytes: Uint8Array }} Sound `start`: its first sample, of the session's */
/** @typedef {{ number: number, text: string }} Order */
export class LiveStream {
    /**
     * @param {string} session
     * @param {{ rate: number, encoding: string }} sound
     * @param {{ channels?: 1 | 2 }} options
     * @param {import("./retry.js").Retry} retry
     * @throws {TypeError} there is no such encoding
     */
    constructor(session: string, { rate, encoding }: {
        rate: number;
        encoding: string;
    }, options: {
        channels?: 1 | 2;
    }, retry: import("./retry.js").Retry);
    /** Its id, by which the service knows it. */
    session: string;
    /** @type {Record<string, any> | null} what the service said when it took the session */
    began: Record<string, any> | null;
    /** The summary has come. */
    ended: boolean;
    finishing: boolean;
    /** Seconds of sound that the service has, of these heard, and of these without a missing word. */
    receivedS: number;
    heardS: number;
    recognizedS: number;
    /** Whether as much waits for the service as may. */
    get full(): boolean;
    /**
     * More sound: whole samples, which stay as they are.
     *
     * @param {Uint8Array} bytes
     * @throws {TypeError} it is none, or the last was said to have come
     */
    sound(bytes: Uint8Array): void;
    /**
     * Something to be done behind the sound that came: commit, cancel, change, finish.
     *
     * @param {string} type
     * @param {object} [options]
     * @throws {TypeError} the last order was given
     */
    order(type: string, options?: object): void;
    /** The first message of a connection. */
    opening(): string;
    /**
     * What goes to the service now; null: nothing, until there is more or it is ready.
     *
     * @returns {Uint8Array | string | null}
     */
    next(): Uint8Array | string | null;
    /**
     * The event in a message; null where it is none, or was there already.
     *
     * @param {unknown} text
     * @returns {import("./live.js").LiveEvent | null}
     * @throws {ServiceError | AnswerNotUnderstood} the service said no, or is something else
     */
    took(text: unknown): import("./live.js").LiveEvent | null;
    /**
     * The connection is no more; milliseconds to wait before the next.
     *
     * @param {import("./errors.js").ClientError | null} error
     * @param {number} chance
     * @param {number} now milliseconds
     * @throws {import("./errors.js").ClientError} there is none
     */
    lost(error: import("./errors.js").ClientError | null, chance: number, now: number): number;
    #private;
}
/**
 * `start`: its first sample, of the session's
 */
export type Sound = {
    start: number;
    bytes: Uint8Array;
};
export type Order = {
    number: number;
    text: string;
};

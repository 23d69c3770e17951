/**
 * One event as it was sent; `id` is the last one that was said, "" if none was.
 *
 * @typedef {{ event: string, data: string, id: string }} Frame
 */
/** Bytes in, frames out, as the HTML standard has it (section 9.2.6). */
export class Parser {
    /** Milliseconds that the server wants to be left alone before a lost connection is made again. */
    retryMs: number;
    /**
     * The frames that `piece` completes.
     *
     * @param {Uint8Array} piece
     * @returns {Generator<Frame, void, void>}
     * @throws {AnswerNotUnderstood} a line or an event has no end
     */
    feed(piece: Uint8Array): Generator<Frame, void, void>;
    #private;
}
/**
 * One event as it was sent; `id` is the last one that was said, "" if none was.
 */
export type Frame = {
    event: string;
    data: string;
    id: string;
};

/**
 * @typedef {object} Service
 * @property {string} url
 * @property {string | undefined} token
 * @property {typeof globalThis.fetch} fetch
 * @property {number} silenceMs the longest silence that is borne
 */
/** Made for one request; `close` ends what is left of it. */
export class Connection {
    /**
     * @param {Service} service
     * @param {AbortSignal} [signal]
     * @throws the signal's reason
     */
    constructor(service: Service, signal?: AbortSignal);
    /**
     * The head of the answer. How long an upload takes, nobody knows: that is for the signal to end.
     *
     * @param {import("./calls.js").Call} call
     * @throws {ServiceUnreachable} there is none
     */
    open(call: import("./calls.js").Call): Promise<Response>;
    /** The rest of the answer, as text. */
    text(): Promise<string>;
    /** The rest of the answer, as it was sent. */
    blob(): Promise<Blob>;
    /**
     * The rest of the answer, as it comes.
     *
     * @returns {AsyncGenerator<Uint8Array, void, void>}
     */
    pieces(): AsyncGenerator<Uint8Array, void, void>;
    /** Let go. */
    close(): void;
    #private;
}
export type Service = {
    url: string;
    token: string | undefined;
    fetch: typeof globalThis.fetch;
    /**
     * the longest silence that is borne
     */
    silenceMs: number;
};

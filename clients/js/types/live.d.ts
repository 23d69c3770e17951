/**
 * One live session, as `VibevoiceClient.live` gives it: it takes sound and is an iterator of events. A
 * connection that is lost is made again, what the service has not got is sent again, and events go on
 * behind the last that came, as long as the service keeps the session (its `live_grace`).
 */
export class LiveSession {
    /**
     * @param {import("./connection.js").Service} service
     * @param {LiveSetup} setup
     * @param {{ retry: import("./retry.js").Retry, world: import("./world.js").World }} how
     */
    constructor(service: import("./connection.js").Service, setup: LiveSetup, { retry, world }: {
        retry: import("./retry.js").Retry;
        world: import("./world.js").World;
    });
    /** Its id, by which the service knows it. */
    get session(): string;
    /** Seconds of sound that the service has. */
    get receivedSeconds(): number;
    /** Seconds of it that were heard. */
    get heardSeconds(): number;
    /** Seconds of it in which no word is missing. */
    get recognizedSeconds(): number;
    /**
     * When the service has taken the session.
     *
     * @throws what the session ended with
     */
    opened(): Promise<void>;
    /**
     * More sound: whole samples of the encoding. Whoever awaits it waits while very much is on its way.
     *
     * @param {ArrayBuffer | ArrayBufferView} sound
     */
    send(sound: ArrayBuffer | ArrayBufferView): Promise<void>;
    /** End the turn behind the sound that was sent. */
    commit(): void;
    /** Drop the turn, and what was sent and not heard. */
    cancel(): void;
    /**
     * Hear on with other options; those that are not named stay.
     *
     * @param {LiveOptions} options
     */
    change(options: LiveOptions): void;
    /** No more sound comes: the rest is told, and then the summary. */
    finish(): void;
    /** Let go. A session that has not told its summary ends without it. */
    close: () => Promise<void>;
    /** @returns {AsyncGenerator<LiveEvent, void, void>} */
    [Symbol.asyncIterator](): AsyncGenerator<LiveEvent, void, void>;
    #private;
}
export type Segment = import("./wire.js").Segment;
/**
 * What is said, the `number`-th; times are seconds on the session's clock, which is its sound
 * (docs/live-wire.md).
 */
export type Spoken = {
    type: "speech_started" | "speech_stopped" | "turn_dropped";
    number: number;
    turn: number;
    at: number;
    channel?: number;
};
/**
 * What is said, the `number`-th; times are seconds on the session's clock, which is its sound
 * (docs/live-wire.md).
 */
export type Partial = {
    type: "partial";
    number: number;
    turn: number;
    piece: number;
    start: number;
    end: number;
    text: string;
    stable: string;
    tail: string;
    channel?: number;
};
/**
 * What is said, the `number`-th; times are seconds on the session's clock, which is its sound
 * (docs/live-wire.md).
 */
export type Final = {
    type: "final";
    number: number;
    turn: number;
    piece: number;
    segment: Segment;
    diarized: boolean;
    language: string;
    wait_s: number;
    work_s: number;
    channel?: number;
};
/**
 * What is said, the `number`-th; times are seconds on the session's clock, which is its sound
 * (docs/live-wire.md).
 */
export type TurnEnded = {
    type: "turn_ended";
    number: number;
    turn: number;
    start: number;
    end: number;
    text: string;
    channel?: number;
};
/**
 * What is said, the `number`-th; times are seconds on the session's clock, which is its sound
 * (docs/live-wire.md).
 */
export type SpeakersRevised = {
    type: "speakers_revised";
    number: number;
    speakers: Record<string, string>;
    names?: Record<string, string | null>;
};
/**
 * What is said, the `number`-th; times are seconds on the session's clock, which is its sound
 * (docs/live-wire.md).
 */
export type Notice = {
    type: "notice";
    number: number;
    code: string;
    message: string;
    channel?: number;
};
/**
 * What is said, the `number`-th; times are seconds on the session's clock, which is its sound
 * (docs/live-wire.md).
 */
export type Summary = {
    type: "summary";
    number: number;
    transcript: import("./wire.js").Transcript;
    job?: string;
};
/**
 * What is said, the `number`-th; times are seconds on the session's clock, which is its sound
 * (docs/live-wire.md).
 */
export type LiveEvent = Spoken | Partial | Final | TurnEnded | SpeakersRevised | Notice | Summary;
/**
 * Options of a session (docs/live-wire.md). What is left out is as the service has it.
 */
export type LiveOptions = {
    /**
     * "auto", or a code such as "en"
     */
    language?: string | undefined;
    /**
     * who ends a turn
     */
    turns?: "client" | "one" | "silence" | undefined;
    /**
     * what counts as speech, and where it ends
     */
    endpointing?: Record<string, number> | undefined;
    /**
     * words while somebody speaks
     */
    partials?: boolean | undefined;
    /**
     * tell speakers apart
     */
    diarize?: boolean | undefined;
    /**
     * say who of the people known somebody is
     */
    recognise?: boolean | undefined;
    /**
     * it becomes a job, whose id the summary has; it is that of the session, also if no summary came
     */
    keep?: boolean | undefined;
    /**
     * of that job
     */
    name?: string | undefined;
    /**
     * times of words in finals
     */
    words?: boolean | undefined;
    translate?: boolean | undefined;
    /**
     * rather right than quick
     */
    accurate?: boolean | undefined;
    /**
     * what it is about
     */
    prompt?: string | undefined;
    /**
     * names and terms that may be said, between commas
     */
    hotwords?: string | undefined;
    /**
     * how far behind the sound it may be
     */
    delay_s?: number | undefined;
};
/**
 * `rate`: samples a second (16000); `encoding`: what one is, little-endian. `channels`: 2 for interleaved
 * samples, left first, with names between commas (`channel_names`). `signal` ends the
 * session. `ticket` of `POST /v1/live/ticket` instead of a token: a word opens one connection, a function
 * is asked for one before each, also to reconnect. `WebSocket`: another one than the platform's.
 */
export type LiveSetup = LiveOptions & {
    rate?: number;
    encoding?: "pcm16" | "float32";
    channels?: 1 | 2;
    channel_names?: string;
    signal?: AbortSignal;
    ticket?: string | (() => string | Promise<string>);
    WebSocket?: typeof globalThis.WebSocket;
};

/**
 * One service and whoever `token` names. Every call may reject with `ServiceUnreachable`,
 * `ServiceError` (by its `code`), `AnswerNotUnderstood`, or the reason of its signal.
 */
export class VibevoiceClient {
    /**
     * @param {ClientOptions} options
     * @throws {ServiceUnreachable} `url` is no address
     */
    constructor({ url, token, fetch, retry, silenceMs, world }: ClientOptions);
    /** The service's address. */
    get url(): string;
    /**
     * How the service is, now: asked once, whatever becomes of it.
     *
     * @param {{ signal?: AbortSignal }} [how]
     * @returns {Promise<import("./wire.js").Health>}
     */
    health({ signal }?: {
        signal?: AbortSignal;
    }): Promise<import("./wire.js").Health>;
    /**
     * Anything else of the service's API (`/docs`) that is answered in JSON. `json` is the body; `once`:
     * not to be tried again; `long`: the answer may take its time.
     *
     * @param {string} path
     * @param {{ method?: string, json?: unknown, once?: boolean, long?: boolean, signal?: AbortSignal }} [how]
     * @returns {Promise<Record<string, any>>}
     */
    question(path: string, { method, json, once, long, signal }?: {
        method?: string;
        json?: unknown;
        once?: boolean;
        long?: boolean;
        signal?: AbortSignal;
    }): Promise<Record<string, any>>;
    /**
     * Send a recording and wait for what was said. The job is forgotten then, and where this is left
     * early it is cancelled.
     *
     * @param {calls.Audio} audio
     * @param {Options} [options]
     * @param {Submission} [how]
     * @returns {Promise<Transcript>}
     * @throws {import("./errors.js").ServiceError} the job failed, or was cancelled by somebody
     */
    transcribe(audio: calls.Audio, options?: Options, how?: Submission): Promise<Transcript>;
    /**
     * Send a recording; the job that works on it, which goes on without us. An answer that was lost
     * costs no second job.
     *
     * @param {calls.Audio} audio
     * @param {Options} [options]
     * @param {Submission} [how]
     * @returns {Promise<Job>}
     */
    submit(audio: calls.Audio, options?: Options, { signal, onProgress, key, name }?: Submission): Promise<Job>;
    /**
     * A job as it stands.
     *
     * @param {string} id
     * @param {{ signal?: AbortSignal }} [how]
     * @returns {Promise<Job>}
     */
    job(id: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<Job>;
    /**
     * The caller's jobs, oldest first; `after`: `next` of the page before.
     *
     * @param {{ state?: string | string[], limit?: number, after?: string, signal?: AbortSignal }} [which]
     * @returns {Promise<import("./wire.js").JobPage>}
     */
    jobs({ signal, ...which }?: {
        state?: string | string[];
        limit?: number;
        after?: string;
        signal?: AbortSignal;
    }): Promise<import("./wire.js").JobPage>;
    /**
     * What happened to a job (after the event `after`) and happens, to its end. A connection that is
     * lost is made again where it was; no event is lost and none comes twice.
     *
     * @param {string} id
     * @param {{ after?: number, signal?: AbortSignal }} [how]
     * @returns {AsyncGenerator<import("./following.js").JobEvent, void, void>}
     */
    events(id: string, { after, signal }?: {
        after?: number;
        signal?: AbortSignal;
    }): AsyncGenerator<import("./following.js").JobEvent, void, void>;
    /**
     * The job, once it has ended in whatever way.
     *
     * @param {string} id
     * @param {Waiting} [how]
     * @returns {Promise<Job>}
     */
    wait(id: string, { signal, onProgress }?: Waiting): Promise<Job>;
    /**
     * What was said; with a `format`, as text in it.
     *
     * @overload
     * @param {string} id
     * @param {undefined} [format]
     * @param {{ signal?: AbortSignal }} [how]
     * @returns {Promise<Transcript>}
     *
     * @overload
     * @param {string} id
     * @param {calls.Format} format
     * @param {{ signal?: AbortSignal }} [how]
     * @returns {Promise<string>}
     *
     * @param {string} id
     * @param {calls.Format} [format]
     * @param {{ signal?: AbortSignal }} [how]
     * @returns {Promise<Transcript | string>}
     */
    transcript(id: string, format?: undefined, how?: {
        signal?: AbortSignal;
    } | undefined): Promise<Transcript>;
    /**
     * What was said; with a `format`, as text in it.
     *
     * @overload
     * @param {string} id
     * @param {undefined} [format]
     * @param {{ signal?: AbortSignal }} [how]
     * @returns {Promise<Transcript>}
     *
     * @overload
     * @param {string} id
     * @param {calls.Format} format
     * @param {{ signal?: AbortSignal }} [how]
     * @returns {Promise<string>}
     *
     * @param {string} id
     * @param {calls.Format} [format]
     * @param {{ signal?: AbortSignal }} [how]
     * @returns {Promise<Transcript | string>}
     */
    transcript(id: string, format: calls.Format, how?: {
        signal?: AbortSignal;
    } | undefined): Promise<string>;
    /**
     * The recording itself, where the service keeps it (`job.recording`).
     *
     * @param {string} id
     * @param {{ signal?: AbortSignal }} [how]
     * @returns {Promise<Blob>}
     */
    recording(id: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<Blob>;
    /**
     * Change what was said and by whom, after the fact; all operations or none. It is sent once, and
     * where the answer is lost the transcript says whether it was done.
     *
     * `operations` as `PATCH /v1/jobs/ID/transcript` takes them, such as
     * `{ op: "rename", speaker: "Speaker_0", name: "Nell" }` or `{ op: "undo" }`. `revision`: reject
     * with `transcript_changed` if it is another by now.
     *
     * @param {string} id
     * @param {readonly Record<string, unknown>[]} operations
     * @param {{ revision?: number, signal?: AbortSignal }} [how]
     * @returns {Promise<import("./wire.js").Edited>}
     */
    edit(id: string, operations: readonly Record<string, unknown>[], { revision, signal }?: {
        revision?: number;
        signal?: AbortSignal;
    }): Promise<import("./wire.js").Edited>;
    /**
     * Take a speaker apart that is several people, by what its segments sound like: as many as there
     * seem to be, or `into`. Which segments went where is in `parts` of the answer; it can be undone.
     *
     * @param {string} id
     * @param {string} speaker such as `Speaker_0`
     * @param {{ into?: number, revision?: number, signal?: AbortSignal }} [how]
     * @returns {Promise<import("./wire.js").Edited>}
     */
    splitSpeaker(id: string, speaker: string, { into, ...how }?: {
        into?: number;
        revision?: number;
        signal?: AbortSignal;
    }): Promise<import("./wire.js").Edited>;
    /**
     * Tell the speakers of a transcript apart again, with another number of them; without one, as many
     * as there seem to be. Corrected texts and names stay, `not_carried` of the answer has what does
     * not, and it can be undone. Rejects with `diarization_not_kept` where nothing was kept of the job
     * to tell them by.
     *
     * @param {string} id
     * @param {import("./wire.js").SpeakerCounts & { revision?: number, signal?: AbortSignal }} [how]
     * @returns {Promise<import("./wire.js").Diarized>}
     */
    diarize(id: string, { revision, signal, ...counts }?: import("./wire.js").SpeakerCounts & {
        revision?: number;
        signal?: AbortSignal;
    }): Promise<import("./wire.js").Diarized>;
    /**
     * End a job, or forget one that has ended: it and its words are gone then. `revision`: not if it is
     * another by now (`transcript_changed`).
     *
     * @param {string} id
     * @param {{ revision?: number, signal?: AbortSignal }} [how]
     */
    cancel(id: string, { revision, signal }?: {
        revision?: number;
        signal?: AbortSignal;
    }): Promise<void>;
    /**
     * The models that can be used or downloaded there.
     *
     * @param {{ signal?: AbortSignal }} [how]
     * @returns {Promise<import("./wire.js").LocalModel[]>}
     */
    models({ signal }?: {
        signal?: AbortSignal;
    }): Promise<import("./wire.js").LocalModel[]>;
    /**
     * Download a model: its events `progress` (`bytes_done`, `bytes_total`) and `notice`, then `done`.
     * Leaving them ends the download, and another one resumes it.
     *
     * @param {string} name as in `models`, or OWNER/NAME
     * @param {{ revision?: string, signal?: AbortSignal }} [how]
     * @returns {AsyncGenerator<import("./following.js").JobEvent, void, void>}
     * @throws {import("./errors.js").ServiceError} it failed, or was refused
     */
    pullModel(name: string, { revision, signal }?: {
        revision?: string;
        signal?: AbortSignal;
    }): AsyncGenerator<import("./following.js").JobEvent, void, void>;
    /**
     * Delete a downloaded model.
     *
     * @param {string} name
     * @param {{ signal?: AbortSignal }} [how]
     */
    deleteModel(name: string, { signal }?: {
        signal?: AbortSignal;
    }): Promise<void>;
    /**
     * A live session: sound goes up while it is spoken, and words come back.
     *
     * @param {import("./live.js").LiveSetup} [setup]
     * @returns {LiveSession}
     */
    live(setup?: import("./live.js").LiveSetup): LiveSession;
    /**
     * What is said of a recording as if it were spoken now: a plain wav of 16 bits, mono, or stereo with
     * `channels: 2`. `pace`: seconds of it that go up in a second, 0: as fast as they are taken.
     *
     * @param {Blob} recording a `File` from a page, or `fs.openAsBlob` of Node
     * @param {import("./live.js").LiveSetup & { pace?: number }} [setup]
     * @returns {AsyncGenerator<import("./live.js").LiveEvent, void, undefined>}
     * @throws {TypeError} it is another kind of file, or has another number of channels
     */
    liveFile(recording: Blob, { pace, ...setup }?: import("./live.js").LiveSetup & {
        pace?: number;
    }): AsyncGenerator<import("./live.js").LiveEvent, void, undefined>;
    #private;
}
export type Job = import("./wire.js").Job;
export type Options = import("./wire.js").Options;
export type Transcript = import("./wire.js").Transcript;
/**
 * `url`: the service's address. `token`: identifies the client. `fetch`: another one, such as Tauri's. `silenceMs`:
 * the longest silence of the service that is borne, a minute if unset. `world`: time and chance.
 */
export type ClientOptions = {
    url: string;
    token?: string | undefined;
    fetch?: typeof fetch | undefined;
    retry?: Partial<import("./retry.js").Retry> | undefined;
    silenceMs?: number | undefined;
    world?: Partial<import("./world.js").World> | undefined;
};
export type Waiting = {
    /**
     * ends the call, which then rejects with its reason
     */
    signal?: AbortSignal | undefined;
    onProgress?: ((progress: import("./progress.js").Progress) => void) | undefined;
};
/**
 * `key`: whatever is sent with the same one is the same job (`Idempotency-Key`); a new one if unset.
 * `name`: what the recording is called; a `File` has one.
 */
export type Submission = Waiting & {
    key?: string;
    name?: string;
};
import * as calls from "./calls.js";
import { LiveSession } from "./live.js";

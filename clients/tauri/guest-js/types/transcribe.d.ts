/**
 * @typedef {import("./wire.js").Transcript} Transcript
 * @typedef {import("./wire.js").Segment} Segment
 *
 * How far it is: 0 to 1, and seconds until it is done; null where that is not known.
 * @typedef {{ fraction: number | null, secondsLeft: number | null, secondsDone: number, secondsTotal: number | null }} Progress
 *
 * @typedef {import("./wire.js").Options & {
 *   onQueued?: (position: number | null, seconds: number | null) => void,
 *   onProgress?: (progress: Progress) => void,
 *   onSegment?: (index: number, segment: Segment) => void,
 *   onAgain?: (code: "engine_crashed" | "service_crashed") => void,
 *   signal?: AbortSignal,
 * }} TranscribeOptions `onSegment` gets what was understood so far, perhaps again with the same index;
 *   `onAgain`: something crashed, and the recording is transcribed from the beginning.
 *
 * @typedef {Promise<Transcript> & { cancel: () => Promise<void> }} Transcription
 */
/**
 * Transcribe a file by its path, or a `File`, `Blob` or bytes.
 *
 * @param {string | Blob | Uint8Array} source
 * @param {TranscribeOptions} [setup]
 * @returns {Transcription} rejected with a `SpeechError`, of code "cancelled" if it was
 */
export function transcribe(source: string | Blob | Uint8Array, setup?: TranscribeOptions): Transcription;
export function cancel(transcription: Transcription): Promise<void>;
export type Transcript = import("./wire.js").Transcript;
/**
 * How far it is: 0 to 1, and seconds until it is done; null where that is not known.
 */
export type Segment = import("./wire.js").Segment;
export type Progress = {
    fraction: number | null;
    secondsLeft: number | null;
    secondsDone: number;
    secondsTotal: number | null;
};
/**
 * `onSegment` gets what was understood so far, perhaps again with the same index;
 * `onAgain`: something crashed, and the recording is transcribed from the beginning.
 */
export type TranscribeOptions = import("./wire.js").Options & {
    onQueued?: (position: number | null, seconds: number | null) => void;
    onProgress?: (progress: Progress) => void;
    onSegment?: (index: number, segment: Segment) => void;
    onAgain?: (code: "engine_crashed" | "service_crashed") => void;
    signal?: AbortSignal;
};
export type Transcription = Promise<Transcript> & {
    cancel: () => Promise<void>;
};

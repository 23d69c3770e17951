/**
 * @typedef {object} Wave
 * @property {Blob} samples
 * @property {number} rate samples a second
 * @property {number} channels two are interleaved
 */
/**
 * The samples of a recording, without reading them.
 *
 * @param {Blob} recording
 * @param {number} [channels]
 * @returns {Promise<Wave>}
 * @throws {TypeError} it is another kind of file, or has another number of channels
 */
export function waveOf(recording: Blob, channels?: number): Promise<Wave>;
/**
 * All of a recording, `pace` seconds of it in a second (0: as fast as it goes).
 *
 * @param {import("./live.js").LiveSession} live
 * @param {Wave} wave
 * @param {number} pace
 */
export function carry(live: import("./live.js").LiveSession, { samples, rate, channels }: Wave, pace: number): Promise<void>;
export type Wave = {
    samples: Blob;
    /**
     * samples a second
     */
    rate: number;
    /**
     * two are interleaved
     */
    channels: number;
};

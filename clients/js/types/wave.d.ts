/**
 * @typedef {object} Wave
 * @property {Blob} samples
 * @property {number} rate samples a second
 */
/**
 * The samples of a recording, without reading them.
 *
 * @param {Blob} recording
 * @returns {Promise<Wave>}
 * @throws {TypeError} it is another kind of file
 */
export function waveOf(recording: Blob): Promise<Wave>;
/**
 * All of a recording, `pace` seconds of it in a second (0: as fast as it goes).
 *
 * @param {import("./live.js").LiveSession} live
 * @param {Wave} wave
 * @param {number} pace
 */
export function carry(live: import("./live.js").LiveSession, { samples, rate }: Wave, pace: number): Promise<void>;
export type Wave = {
    samples: Blob;
    /**
     * samples a second
     */
    rate: number;
};

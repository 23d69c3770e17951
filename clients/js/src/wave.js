/** A recording that is sent as if it were spoken now: a plain wav of 16 bits, a piece at a time. */

/** Seconds of sound in a message. */
const PIECE_S = 0.1;
const HEAD = 12;

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
export async function waveOf(recording, channels = 1) {
  const head = await viewOf(recording, 0, HEAD);
  if (head.byteLength < HEAD || wordAt(head, 0) !== "RIFF" || wordAt(head, 8) !== "WAVE") throw new TypeError("This is no wav file.");
  let rate = 0;
  for (let at = HEAD; at + 8 <= recording.size; ) {
    const chunk = await viewOf(recording, at, 8);
    const [name, size] = [wordAt(chunk, 0), chunk.getUint32(4, true)];
    if (name === "fmt ") {
      const form = await viewOf(recording, at + 8, 16);
      const plain = form.byteLength === 16 && form.getUint16(0, true) === 1 && form.getUint16(14, true) === 16;
      if (!plain || form.getUint16(2, true) !== channels)
        throw new TypeError(`This wav is not ${channels === 1 ? "mono" : "stereo"} with 16 bits: convert it, or send samples with live().`);
      rate = form.getUint32(4, true);
    } else if (name === "data" && rate) {
      const most = Math.min(size, recording.size - at - 8); // who was cut off says more than there is
      return { samples: recording.slice(at + 8, at + 8 + most - (most % (2 * channels))), rate, channels };
    }
    at += 8 + size + (size % 2);
  }
  throw new TypeError("There is no sound in this wav file.");
}

/**
 * All of a recording, `pace` seconds of it in a second (0: as fast as it goes).
 *
 * @param {import("./live.js").LiveSession} live
 * @param {Wave} wave
 * @param {number} pace
 */
export async function carry(live, { samples, rate, channels }, pace) {
  const width = 2 * channels;
  const size = width * Math.max(1, Math.round(PIECE_S * rate));
  const began = performance.now();
  for (let at = 0; at < samples.size; at += size) {
    await live.send(await samples.slice(at, at + size).arrayBuffer());
    const due = pace ? began + ((at + size) / width / rate / pace) * 1000 : 0;
    const early = due - performance.now();
    if (early > 0) await new Promise((resolve) => setTimeout(resolve, early));
  }
  live.finish();
}

/**
 * @param {Blob} recording
 * @param {number} at
 * @param {number} size
 */
async function viewOf(recording, at, size) {
  return new DataView(await recording.slice(at, at + size).arrayBuffer());
}

/**
 * @param {DataView} view
 * @param {number} at
 */
function wordAt(view, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((place) => view.getUint8(at + place)));
}

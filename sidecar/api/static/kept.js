/** What the microphone heard, as the file that it is in the end. */

const HEAD = 44;
/** Pieces that lie apart, at most; those before are the browser's, which may put them on a disk. */
const APART = 600;

export class Kept {
  /** How loud each piece is, 0 to 255. */
  peaks = [];
  #rate;
  #samples = 0;
  #pieces = [];
  #before = new Blob();

  /** @param {number} rate samples a second */
  constructor(rate) {
    this.#rate = rate;
  }

  get seconds() {
    return this.#samples / this.#rate;
  }

  /** @param {Int16Array} piece */
  add(piece) {
    let loudest = 0;
    for (const one of piece) loudest = Math.max(loudest, Math.abs(one));
    this.peaks.push(loudest >> 7);
    this.#samples += piece.length;
    this.#pieces.push(piece);
    if (this.#pieces.length < APART) return;
    this.#before = new Blob([this.#before, ...this.#pieces]);
    this.#pieces = [];
  }

  /** @param {string} name @returns {File} a wav */
  file(name) {
    const head = headOf(this.#samples * 2, this.#rate);
    return new File([head, this.#before, ...this.#pieces], `${name}.wav`, { type: "audio/wav" });
  }
}

/** The head of a wav: mono, 16 bit. */
function headOf(bytes, rate) {
  const head = new DataView(new ArrayBuffer(HEAD));
  const words = [[0, "RIFF"], [8, "WAVEfmt "], [36, "data"]];
  for (const [at, word] of words) [...word].forEach((one, i) => head.setUint8(at + i, one.charCodeAt(0)));
  const numbers = [[4, HEAD - 8 + bytes], [16, 16], [24, rate], [28, rate * 2], [40, bytes]];
  for (const [at, number] of numbers) head.setUint32(at, number, true);
  for (const [at, number] of [[20, 1], [22, 1], [32, 2], [34, 16]]) head.setUint16(at, number, true);
  return head;
}

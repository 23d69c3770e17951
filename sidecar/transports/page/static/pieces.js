/** On the thread of the sound: what comes in, as pieces of a tenth of a second, pcm16. */

const PIECE_S = 0.1;
const HIGHEST = 32767;

class Pieces extends AudioWorkletProcessor {
  #piece = new Int16Array(Math.round(sampleRate * PIECE_S));
  #at = 0;

  process([[samples = []]]) {
    for (const one of samples) {
      this.#piece[this.#at] = Math.max(-1, Math.min(1, one)) * HIGHEST;
      this.#at += 1;
      if (this.#at < this.#piece.length) continue;
      this.port.postMessage(this.#piece.slice());
      this.#at = 0;
    }
    return true;
  }
}

registerProcessor("pieces", Pieces);

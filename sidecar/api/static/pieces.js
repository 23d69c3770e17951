/** On the thread of the sound: what comes in, as pieces of so many seconds, pcm16. */

const HIGHEST = 32767;

class Pieces extends AudioWorkletProcessor {
  #piece;
  #at = 0;

  constructor({ processorOptions: { seconds } }) {
    super();
    this.#piece = new Int16Array(Math.round(sampleRate * seconds));
  }

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

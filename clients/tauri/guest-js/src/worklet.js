/** Runs in the audio thread: samples of the first channel as pieces of a tenth of a second of PCM, 16 bits. */

const PIECE = 1600;

class Pcm extends AudioWorkletProcessor {
  #piece = new Int16Array(PIECE);
  #filled = 0;

  /** @param {Float32Array[][]} inputs */
  process([input]) {
    for (const sample of input?.[0] ?? []) {
      this.#piece[this.#filled++] = Math.max(-1, Math.min(1, sample)) * 32767;
      if (this.#filled === PIECE) {
        const whole = this.#piece.slice().buffer;
        this.port.postMessage(whole, [whole]);
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("vibevoice-pcm", Pcm);

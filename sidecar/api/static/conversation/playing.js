/** On the thread of the sound: what is to be heard, one answer at a time; dropped within 5 ms. */

/** How often it says how much of it was heard. */
const TOLD_S = 0.1;
/** A cut is no click: so long sound takes to fade. */
const FADE_S = 0.005;
const HIGHEST = 32768;

class Playing extends AudioWorkletProcessor {
  #line = [];
  #at = 0;
  #item = "";
  #played = 0;
  #told = 0;
  #gain = 1;
  #dropping = false;

  constructor() {
    super();
    this.port.onmessage = ({ data: { item, sound } }) => (sound ? this.#more(item, sound) : this.#line.length ? (this.#dropping = true) : this.#tell(true));
  }

  #more(item, sound) {
    if (item !== this.#item) [this.#line, this.#at, this.#item, this.#played, this.#told, this.#gain] = [[], 0, item, 0, 0, 1];
    this.#line.push(sound);
  }

  #tell(dropped = false) {
    if (dropped) [this.#line, this.#at, this.#dropping, this.#gain] = [[], 0, false, 1];
    this.#told = this.#played;
    this.port.postMessage({ item: this.#item, seconds: this.#played / sampleRate, left: this.#line.length > 0, dropped });
  }

  process(_, [[out]]) {
    const before = this.#played;
    for (let i = 0; i < out.length && this.#line.length; i += 1) {
      if (this.#dropping) this.#gain = Math.max(0, this.#gain - 1 / (FADE_S * sampleRate));
      if (this.#gain === 0) break;
      const [piece] = this.#line;
      out[i] = (piece[this.#at] / HIGHEST) * this.#gain;
      this.#played += 1;
      this.#at += 1;
      if (this.#at < piece.length) continue;
      this.#line.shift();
      this.#at = 0;
    }
    if (this.#dropping && (this.#gain === 0 || !this.#line.length)) this.#tell(true);
    else if (before !== this.#played && (!this.#line.length || this.#played - this.#told >= TOLD_S * sampleRate)) this.#tell();
    return true;
  }
}

registerProcessor("playing", Playing);

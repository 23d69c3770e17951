/** On the thread of the sound: what is to be heard, one reply at a time; held or dropped within 5 ms. */

/** How often it says how much of it was heard. */
const TOLD_S = 0.1;
/** A cut is no click: so long sound takes to fade. */
const FADE_S = 0.005;
const HIGHEST = 32768;

class Playing extends AudioWorkletProcessor {
  #line = [];
  #at = 0;
  #turn = 0;
  #played = 0;
  #told = 0;
  #gain = 1;
  #held = false;
  #dropping = "";

  constructor() {
    super();
    this.port.onmessage = ({ data }) => this.#take(data);
  }

  #take({ order, turn, sound }) {
    if (order === "sound") this.#more(turn, sound);
    else if (order === "hold") this.#held = true;
    else if (order === "release") this.#held = false;
    else if (!this.#line.length) this.port.postMessage({ turn: 0, seconds: 0, why: order }); // all was heard
    else if (this.#gain > 0) this.#dropping = order;
    else this.#drop(order);
  }

  #more(turn, sound) {
    if (turn !== this.#turn) {
      [this.#line, this.#at, this.#turn, this.#played, this.#told] = [[], 0, turn, 0, 0];
      [this.#held, this.#dropping, this.#gain] = [false, "", 1];
    }
    this.#line.push(sound);
  }

  #drop(why) {
    [this.#line, this.#at, this.#held, this.#dropping, this.#gain] = [[], 0, false, "", 1];
    this.#tell(why);
  }

  #tell(why = "") {
    this.#told = this.#played;
    this.port.postMessage({ turn: this.#turn, seconds: this.#played / sampleRate, why });
  }

  process(_, [[out]]) {
    const before = this.#played;
    for (let i = 0; i < out.length && this.#line.length; i += 1) {
      const wanted = this.#held || this.#dropping ? -1 : 1;
      this.#gain = Math.max(0, Math.min(1, this.#gain + wanted / (FADE_S * sampleRate)));
      if (this.#gain === 0) break;
      const [piece] = this.#line;
      out[i] = (piece[this.#at] / HIGHEST) * this.#gain;
      this.#played += 1;
      this.#at += 1;
      if (this.#at < piece.length) continue;
      this.#line.shift();
      this.#at = 0;
    }
    if (this.#dropping && (this.#gain === 0 || !this.#line.length)) this.#drop(this.#dropping);
    else if (before !== this.#played && (!this.#line.length || this.#played - this.#told >= TOLD_S * sampleRate)) this.#tell();
    return true;
  }
}

registerProcessor("playing", Playing);

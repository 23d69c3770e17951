/** What the machine says, as it is heard: sound in, and how much of which reply was played out. */

export class Player {
  #context;
  #node;
  #dropped = 0;

  /**
   * @param {AudioContext} context
   * @param {(turn: number, seconds: number, why: string) => void} played so much by now; `why`: it was
   *   dropped there, because of that; then the turn is 0 where nothing was left of it
   */
  async begin(context, played) {
    this.#context = context;
    await context.audioWorklet.addModule(new URL("playing.js", import.meta.url));
    this.#node = new AudioWorkletNode(context, "playing", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#node.port.onmessage = ({ data: { turn, seconds, why } }) => played(turn, this.#heard(seconds), why);
    this.#node.connect(context.destination);
  }

  /** @param {number} turn @param {ArrayBuffer} buffer samples of 16 bits */
  sound(turn, buffer) {
    if (turn === this.#dropped) return; // it was on its way
    this.#node?.port.postMessage({ order: "sound", turn, sound: new Int16Array(buffer) }, [buffer]);
  }

  /** @param {"hold" | "release"} what stop where it is; go on */
  order(what) {
    this.#node?.port.postMessage({ order: what });
  }

  /** Drop that reply's sound, and what still comes of it; `played` is told. @param {number} turn @param {string} why */
  drop(turn, why) {
    this.#dropped = turn;
    this.#node?.port.postMessage({ order: why });
  }

  /** What was played has still to come out of the loudspeaker. */
  #heard(seconds) {
    return Math.max(0, seconds - (this.#context.outputLatency || 0));
  }
}

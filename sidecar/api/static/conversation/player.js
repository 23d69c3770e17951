/** What the machine says, as it is heard: sound in, and how much of which answer was played out. */

export class Player {
  /** The answer of which something is still to be heard. */
  item = "";
  #context;
  #node;
  #dropped = "";
  #seconds = 0;
  #waiting = [];

  /** @param {AudioContext} context @param {(item: string) => void} heard all that came of it was played */
  async begin(context, heard) {
    this.#context = context;
    await context.audioWorklet.addModule(new URL("playing.js", import.meta.url));
    this.#node = new AudioWorkletNode(context, "playing", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#node.port.onmessage = ({ data: { item, seconds, left, dropped } }) => {
      this.#seconds = seconds;
      if (dropped) for (const resolve of this.#waiting.splice(0)) resolve();
      else if (!left && item === this.item) heard((this.item = "", item));
    };
    this.#node.connect(context.destination);
  }

  sound(item, sound) {
    if (item === this.#dropped) return; // it was on its way
    if (item !== this.item) this.#seconds = 0;
    this.item = item;
    this.#node?.port.postMessage({ item, sound }, [sound.buffer]);
  }

  /** Drop what is to be heard, and what still comes of it. @returns {Promise<[string, number]>} of what how much was heard, "" if there was nothing */
  async drop() {
    const { item } = this;
    if (!item) return ["", 0];
    [this.#dropped, this.item] = [item, ""];
    this.#node.port.postMessage({ item });
    if (this.#context.state === "running") await new Promise((resolve) => this.#waiting.push(resolve));
    return [item, Math.max(0, this.#seconds - (this.#context.outputLatency || 0))]; // the rest has still to come out of the loudspeaker
  }
}

/** The microphone as it is spoken into: pieces of sound, a tenth of a second each unless told otherwise. */

/** Samples a second: as many as any engine wants. */
const RATE = 24000;
/** So long the last piece is waited for. */
const LAST_MS = 300;

export class Capture {
  /** Samples a second, once it has begun. */
  rate = 0;
  #stream;
  #context;
  #last = () => {};
  #audio;
  #piece;
  #paused = false;

  /** @param {MediaTrackConstraints | true} [audio] what is wanted of it @param {number} [piece] seconds */
  constructor(audio = true, piece = 0.1) {
    [this.#audio, this.#piece] = [audio, piece];
  }

  /** Where other sound may be put as well, once it has begun. */
  get context() {
    return this.#context;
  }

  /** @returns {string} why it cannot be, "" where it can */
  static why() {
    if (!isSecureContext)
      return "Browsers give the microphone only to pages of this machine or with https.";
    if (!navigator.mediaDevices?.getUserMedia || !globalThis.AudioWorkletNode)
      return "This browser cannot record.";
    return "";
  }

  /**
   * @param {(piece: Int16Array) => void} hear
   * @param {() => void} gone the microphone was pulled out, or taken away
   * @throws {DOMException} there is no microphone, or it may not be used
   */
  async begin(hear, gone) {
    this.#stream = await navigator.mediaDevices.getUserMedia({ audio: this.#audio });
    const source = this.#open();
    await this.#context.audioWorklet.addModule(new URL("pieces.js", import.meta.url));
    this.rate = this.#context.sampleRate;
    const pieces = new AudioWorkletNode(this.#context, "pieces", { channelCount: 1, channelCountMode: "explicit", processorOptions: { seconds: this.#piece } });
    pieces.port.onmessage = ({ data }) => {
      if (!this.#paused) hear(data);
      this.#last();
    };
    source.connect(pieces).connect(this.#context.destination); // silence: else some would not run it
    this.#stream.getAudioTracks()[0].addEventListener("ended", gone);
    await this.#context.resume();
  }

  /**
   * The context goes on: a browser may fail to resume one that was suspended.
   *
   * @param {boolean} wanted whether nothing is to be heard for a while
   */
  async pause(wanted) {
    const tracks = this.#stream.getTracks();
    for (const track of tracks) track.enabled = !wanted;
    if (wanted) await this.#lastPiece();
    this.#paused = tracks.every((track) => !track.enabled); // it may have been resumed meanwhile
  }

  /** Hear the piece out, and let go. */
  async end() {
    await this.#lastPiece();
    this.close();
  }

  #lastPiece() {
    return new Promise((resolve) => {
      this.#last = resolve;
      setTimeout(resolve, LAST_MS);
    });
  }

  /** Let go of the microphone; once more does nothing. */
  close() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    if (this.#context && this.#context.state !== "closed") this.#context.close();
  }

  /** A browser that does not turn one rate into another has its own. */
  #open() {
    try {
      this.#context = new AudioContext({ sampleRate: RATE });
      return this.#context.createMediaStreamSource(this.#stream);
    } catch {
      this.#context?.close();
      this.#context = new AudioContext();
      return this.#context.createMediaStreamSource(this.#stream);
    }
  }
}

/** The microphone: compressed by the browser, or in pieces of samples; how loud it is, meanwhile. */

const FORMS = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4"];

/** A microphone that gives nothing but zeros for so long is taken for muted: rooms are never so quiet. */
const MUTED_MS = 3000;
const LOUDER = 4;

/** @param {string} needs what it is heard by @returns {string} why it cannot be, "" where it can */
export function silentFor(needs) {
  if (!isSecureContext) return "Browsers give the microphone only to pages of this machine or with https.";
  return navigator.mediaDevices?.getUserMedia && globalThis[needs] ? "" : "This browser cannot record.";
}

/** What the browser writes by itself, a second at a time. */
export class Microphone {
  #since = 0;
  #heard = 0;
  #stream;
  #recorder;
  #context;
  #meter;

  /**
   * @param {import("./storage.js").Sound} sound what is heard goes there
   * @param {() => void} ended by `end`, or without a microphone
   * @throws {DOMException} there is no microphone, or it may not be used
   */
  async begin(sound, ended) {
    this.#stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const mimeType = FORMS.find((form) => MediaRecorder.isTypeSupported(form));
    this.#recorder = new MediaRecorder(this.#stream, mimeType ? { mimeType } : {});
    sound.type = this.#recorder.mimeType || mimeType || "audio/webm";
    this.#recorder.addEventListener("dataavailable", ({ data }) => sound.add(data));
    this.#recorder.addEventListener("stop", ended);
    this.#recorder.start(1000);
    this.#since = this.#heard = performance.now();
    this.#context = new AudioContext();
    this.#meter = this.#context.createAnalyser();
    this.#meter.fftSize = 512;
    this.#context.createMediaStreamSource(this.#stream).connect(this.#meter);
  }

  get seconds() {
    return (performance.now() - this.#since) / 1000;
  }

  /** Whether nothing at all has come for a while; known where `level` is asked for. */
  get muted() {
    return performance.now() - this.#heard > MUTED_MS;
  }

  /** 0 to 1. */
  get level() {
    const heard = new Float32Array(this.#meter.fftSize);
    this.#meter.getFloatTimeDomainData(heard);
    if (heard.some((one) => one !== 0)) this.#heard = performance.now();
    return Math.min(1, Math.sqrt(heard.reduce((sum, one) => sum + one * one, 0) / heard.length) * LOUDER);
  }

  /** Let go of the microphone, which ends the recording; once more does nothing. */
  close = () => this.end();

  end() {
    if (this.#recorder?.state !== "inactive") this.#recorder?.stop();
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    if (this.#context && this.#context.state !== "closed") this.#context.close();
  }
}

/** Samples a second: as many as any engine wants. */
const RATE = 24000;
/** So long the last piece is waited for. */
const LAST_MS = 300;

/** Pieces of sound as they are spoken, a tenth of a second each unless told otherwise. */
export class Capture {
  /** How loud it is, 0 to 1. */
  level = 0;
  /** Samples a second, once it has begun. */
  rate = 0;
  #heard = performance.now();
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

  /** Whether nothing at all has come for a while. */
  get muted() {
    return performance.now() - this.#heard > MUTED_MS;
  }

  /**
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
      this.level = this.#paused ? 0 : Math.min(1, LOUDER * Math.sqrt(data.reduce((sum, one) => sum + one * one, 0) / data.length) / 32768);
      if (this.level > 0 || this.#paused) this.#heard = performance.now();
      if (!this.#paused) hear(data);
      this.#last();
    };
    source.connect(pieces).connect(this.#context.destination); // silence: else some would not run it
    this.#context.onstatechange = () => this.#context.state === "suspended" && this.#context.resume(); // a call has ended
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

export const NO_SOUND = "No audio from this microphone. It may be muted, or not the one in use: check the browser's settings for this page.";

/** What a refused microphone means, and what to do. */
export function refusal(error) {
  if (error.name === "NotAllowedError")
    return "The microphone is not allowed for this page. Allow it beside the address, then try again.";
  if (error.name === "NotFoundError") return "There is no microphone. Plug one in, then try again.";
  return `The microphone does not work: ${error.message}`;
}

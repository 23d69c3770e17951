/** The microphone into a file; how loud it is, meanwhile. */

const FORMS = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4"];

export class Recorder {
  /** @type {Promise<File>} what was recorded, once it has ended: by `close`, or without a microphone */
  ended;
  #stream;
  #recorder;
  #context;
  #meter;
  #pieces = [];

  /** @returns {string} why it cannot be, "" where it can */
  static why() {
    if (!isSecureContext)
      return "Browsers give the microphone only to pages of this machine or with https.";
    if (!navigator.mediaDevices?.getUserMedia || !globalThis.MediaRecorder)
      return "This browser cannot record.";
    return "";
  }

  /** @throws {DOMException} there is no microphone, or it may not be used */
  async begin() {
    this.#stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const mimeType = FORMS.find((form) => MediaRecorder.isTypeSupported(form));
    this.#recorder = new MediaRecorder(this.#stream, mimeType ? { mimeType } : {});
    this.#recorder.addEventListener("dataavailable", ({ data }) => this.#pieces.push(data));
    this.ended = new Promise((resolve) => this.#recorder.addEventListener("stop", () => resolve(this.#file())));
    this.#recorder.start(1000);
    this.#context = new AudioContext();
    this.#meter = this.#context.createAnalyser();
    this.#meter.fftSize = 512;
    this.#context.createMediaStreamSource(this.#stream).connect(this.#meter);
  }

  /** 0 to 1. */
  level() {
    const heard = new Float32Array(this.#meter.fftSize);
    this.#meter.getFloatTimeDomainData(heard);
    return Math.min(1, Math.sqrt(heard.reduce((sum, one) => sum + one * one, 0) / heard.length) * 4);
  }

  #file() {
    const type = this.#recorder.mimeType || "audio/webm";
    const kind = type.includes("mp4") ? "m4a" : type.includes("ogg") ? "ogg" : "webm";
    const at = new Date().toLocaleString("sv").replace(/:\d\d$/, "").replaceAll(":", ".");
    return new File(this.#pieces, `Recording ${at}.${kind}`, { type });
  }

  /** Let go of the microphone, which ends the recording; once more does nothing. */
  close() {
    if (this.#recorder?.state !== "inactive") this.#recorder?.stop();
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    if (this.#context && this.#context.state !== "closed") this.#context.close();
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

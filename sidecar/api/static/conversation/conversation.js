/** One spoken conversation: the microphone, the connection, the sound that comes, and what was told. */

import { Capture, refusal, silentFor } from "../microphone.js";
import { trouble } from "../words.js";
import { Player } from "./player.js";
import { after, NOTHING } from "./told.js";
import { Wire } from "./wire.js";

/** Samples a second of what is heard, and of a microphone that has no rate of its own. */
const RATE = 24000;
/** Seconds of sound in a piece: what is said over a reply is known that much later. */
const PIECE_S = 0.04;
/** So often who only types says that they are still there. */
const THERE_MS = 60000;
/** Bytes of a second on the wire for each sample: two, in base64. */
const BYTES = 8 / 3;
/** Beyond so many seconds that the connection has not taken, it is said. */
const BEHIND_S = 3;
/** So much is always on its way. */
const ON_ITS_WAY_S = 0.5;
/** An end that nobody answers is one. */
const ENDING_MS = 30000;

export class Conversation {
  /** `opening`: the service gets ready; then `live`; `ending`: the transcript is waited for; `over`. `ended` is what it became. */
  state = "opening";
  told;
  /** Whether some of it was said in one before. */
  carries;
  ended = null;
  wrong = null;
  /** What keeps the microphone from being heard: then turns are typed. */
  deaf = "";
  /** Whether the connection takes what is said too slowly; it waits, and is sent in its order. */
  late = false;
  /** Seconds at the end of what was said that never were sent. */
  unsentS = 0;
  /** The TTS engine, if there is one. */
  speaks = "";
  #capture = null;
  #context = null;
  #player = new Player();
  #wire = new Wire();
  #changed;
  #timers = [];
  /** The response of which all has come, the answer that was cut, and the times of a turn in seconds. */
  #done = "";
  #cut = "";
  #times = {};

  /** `lines` are of one that broke off and is saved nowhere. */
  constructor(changed, { lines, next = NOTHING.next }) {
    this.#changed = changed;
    const said = lines.filter(({ text }) => text.trim()).map((line) => ({ ...line, open: false, item: "", response: "" }));
    this.carries = said.length > 0;
    this.told = { ...NOTHING, lines: said, next };
  }

  async begin({ voice, model, typed, speaks }) {
    this.speaks = speaks;
    try {
      if (!typed) await this.#listen();
      this.#context = new AudioContext({ sampleRate: RATE });
      await this.#player.begin(this.#context, (item) => this.#tell({ type: "heard", item, done: item === this.#done }));
      this.#context.onstatechange = () => this.#changed();
      this.#context.resume(); // where the browser wants a click first, that is said
      const input = { format: { type: "audio/pcm", rate: this.#capture?.rate ?? RATE } };
      const session = { ...(model && { model }), audio: { input, output: { ...(voice && { voice }) } } };
      await this.#wire.open(session, (event) => this.#hear(event), (error) => this.#over(error));
      if (!this.#capture) this.#timers.push(setInterval(() => this.#wire.sound(new Int16Array(RATE / 10)), THERE_MS));
    } catch (error) {
      this.#over(trouble(error));
    }
  }

  /** How loud it is, 0 to 1. */
  get level() {
    return this.#capture?.level ?? 0;
  }

  /** Whether the browser keeps the sound back: it wants somebody to touch the page first. */
  get mute() {
    return this.state === "live" && this.#context?.state === "suspended";
  }

  /** Somebody did. */
  touched() {
    if (this.mute) this.#context.resume();
  }

  /** A turn of the person's, as text. */
  async say(text) {
    if (!text.trim()) return;
    this.#tell({ type: "typed", text });
    await this.interrupt();
    const item = { type: "message", role: "user", content: [{ type: "input_text", text }] };
    this.#wire.send("conversation.item.create", { item });
    this.#wire.send("response.create");
    this.#times.spoke = this.#times.turn = now();
  }

  /** Interrupt, at once. */
  async interrupt() {
    if (this.told.phase === "idle") return;
    this.#tell({ type: "cancelled" });
    if (!(await this.#drop())) this.#wire.send("output_audio_buffer.clear");
  }

  /** @param {boolean} keep whether it becomes a job of the service */
  async end(keep) {
    if (this.state === "ending") return; // a second click cuts nothing off
    if (this.state !== "live") return this.close();
    this.state = "ending";
    this.#capture?.close();
    this.#timers.push(setTimeout(() => this.#over(null), ENDING_MS));
    this.#changed();
    await this.#drop();
    this.#wire.send("session.end", { keep });
  }

  /** Let go of all of it. */
  close() {
    this.#over(null);
  }

  async #listen() {
    this.deaf = silentFor("AudioWorkletNode");
    if (this.deaf) return;
    const capture = new Capture({ echoCancellation: true, noiseSuppression: true, autoGainControl: true }, PIECE_S);
    try {
      await capture.begin((piece) => this.#said(piece), () => this.#lost());
    } catch (error) {
      capture.close();
      this.deaf = refusal(error);
      return;
    }
    this.#capture = capture;
  }

  #said(piece) {
    if (this.state !== "live") return;
    this.#times.began ??= now() - PIECE_S;
    this.#wire.sound(piece);
    if (this.late === this.#behindS > BEHIND_S) return;
    this.late = !this.late;
    this.#changed();
  }

  get #behindS() {
    return this.#wire.unsent / BYTES / (this.#capture?.rate ?? RATE);
  }

  #lost() {
    this.deaf = "The microphone was disconnected. Type instead, or start again.";
    this.#changed();
  }

  #hear(event) {
    const { type, item_id: item, response } = event;
    if (type === "session.updated" && this.state === "opening") this.state = "live";
    if (type === "response.output_audio.delta") this.#player.sound(item, samples(event.delta));
    if (type === "output_audio_buffer.cleared") this.#drop();
    if (type === "conversation.item.truncated") this.#wire.send("conversation.item.retrieve", { item_id: item });
    if (type === "response.done") {
      const answer = response.output.find((one) => one.type === "message")?.id ?? "";
      this.#done = answer;
      if (response.status === "cancelled" && answer && answer !== this.#cut) this.#wire.send("conversation.item.retrieve", { item_id: answer });
    }
    if (type === "session.ended") [this.ended, this.state] = [event, "ending"];
    if (type === "response.output_audio.delta" && this.told.phase === "speaking") return;
    this.#measure(event);
    this.#tell({ ...event, playing: this.#player.item !== "" });
  }

  /** Where the time goes from the end of what was said to the answer. */
  #measure({ type, response_id, audio_end_ms }) {
    const times = this.#times;
    if (type === "input_audio_buffer.speech_stopped") [times.spoke, times.turn] = [times.began + audio_end_ms / 1000, now()];
    if (type === "response.created") times.words = 0;
    if (type.endsWith("_transcript.delta") || type === "response.output_text.delta") times.words ||= now();
    if (type !== (this.told.began?.spoken ? "response.output_audio.delta" : "response.output_text.delta") || times.told === response_id) return;
    times.told = response_id;
    const stages = { pause_s: times.turn - times.spoke, thought_s: times.words - times.turn, voiced_s: now() - times.words, total_s: now() - times.spoke };
    this.#tell({ type: "latency", response_id, stages });
  }

  #tell(event) {
    this.told = after(this.told, event);
    this.#changed();
  }

  /** Drop what was not heard of an answer, and say how much was. @returns {Promise<boolean>} whether there was any */
  async #drop() {
    this.#cut = this.#player.item || this.#cut;
    const [item, seconds] = await this.#player.drop();
    if (item) this.#wire.send("conversation.item.truncate", { item_id: item, content_index: 0, audio_end_ms: Math.round(1000 * seconds) });
    return item !== "";
  }

  #over(error) {
    if (this.state === "over") return;
    [this.state, this.wrong] = ["over", error];
    if (this.#behindS > ON_ITS_WAY_S) this.unsentS = this.#behindS;
    for (const timer of this.#timers) clearInterval(timer);
    this.#wire.close();
    this.#capture?.close();
    if (this.#context && this.#context.state !== "closed") this.#context.close();
    this.#changed();
  }
}

const now = () => performance.now() / 1000;
/** Of 16 bits in base64. */
const samples = (text) => new Int16Array(Uint8Array.from(atob(text), (one) => one.charCodeAt(0)).buffer);

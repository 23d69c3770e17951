/** Server-sent events, read as they come in pieces of any size. Pure. */

import { AnswerNotUnderstood } from "./errors.js";

/** Characters of one line or one event: ten times the transcript of a day. Nobody needs more. */
const MOST = 64 << 20;

/**
 * One event as it was sent; `id` is the last one that was said, "" if none was.
 *
 * @typedef {{ event: string, data: string, id: string }} Frame
 */

/** Bytes in, frames out, as the HTML standard has it (section 9.2.6). */
export class Parser {
  /** Milliseconds that the server wants to be left alone before a lost connection is made again. */
  retryMs = 0;
  #decoder = new TextDecoder();
  /** @type {string[]} */
  #pieces = [];
  #cr = false;
  #event = "";
  /** @type {string[]} */
  #data = [];
  #held = 0;
  #id = "";

  /**
   * The frames that `piece` completes.
   *
   * @param {Uint8Array} piece
   * @returns {Generator<Frame, void, void>}
   * @throws {AnswerNotUnderstood} a line or an event has no end
   */
  *feed(piece) {
    for (const line of this.#lines(this.#decoder.decode(piece, { stream: true }))) {
      const frame = this.#took(line);
      if (frame) yield frame;
    }
  }

  /** @param {string} text */
  *#lines(text) {
    if (this.#cr && text) {
      // A line ended with \r; a \n that follows belongs to it.
      this.#cr = false;
      if (text.startsWith("\n")) text = text.slice(1);
    }
    if (text.endsWith("\r")) this.#cr = true;
    const lines = text.split(/\r\n|\r|\n/);
    const rest = lines.pop() ?? "";
    for (const line of lines) {
      const whole = this.#pieces.join("") + line;
      this.#pieces = [];
      yield whole;
      this.#held = this.#data.reduce((sum, each) => sum + each.length, 0);
    }
    this.#pieces.push(rest);
    this.#held += rest.length;
    if (this.#held > MOST) throw new AnswerNotUnderstood("An event of the service has no end.");
  }

  /**
   * @param {string} line
   * @returns {Frame | null}
   */
  #took(line) {
    if (!line) {
      const [event, data] = [this.#event || "message", this.#data];
      [this.#event, this.#data] = ["", []];
      return data.length ? { event, data: data.join("\n"), id: this.#id } : null;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    if (name === "event") this.#event = value;
    else if (name === "data") this.#data.push(value);
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value.slice(0, 9));
    return null;
  }
}

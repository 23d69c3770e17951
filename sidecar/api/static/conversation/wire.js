/** The connection of a conversation: `/stream` in our own words (docs/talk-wire.md). */

import { client, token } from "../session.js";

const SPOKEN = "vibevoice-talk";
/** What may stand in a subprotocol; a token with other characters goes by a ticket. */
const PLAIN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Bytes that wait to be sent: beyond them what is said is lost, and not minutes late. */
const BEHIND = 200_000;

const BROKEN = { detail: "The connection to the service broke.", hint: "What was said until then is below. Start again to go on.", code: "connection_lost" };

export class Wire {
  #socket;
  #over = false;

  /**
   * @param {object} begin who speaks and thinks, and at which rate
   * @param {(message: Record<string, any> | ArrayBuffer) => void} hear
   * @param {(trouble: { detail: string, hint: string } | null) => void} ended null: as it was asked to
   */
  async open(begin, hear, ended) {
    const offered = [SPOKEN];
    let address = `ws${location.origin.slice("http".length)}/stream`;
    if (PLAIN.test(token())) offered.push(`bearer.${token()}`);
    else if (token()) {
      const { ticket } = await client().question("/v1/live/ticket", { method: "POST", once: true });
      address += `?ticket=${encodeURIComponent(ticket)}`;
    }
    if (this.#over) return;
    let last = null;
    this.#socket = new WebSocket(address, offered);
    this.#socket.binaryType = "arraybuffer";
    this.#socket.onopen = () => this.send({ type: "begin", ...begin });
    this.#socket.onmessage = ({ data }) => {
      const message = typeof data === "string" ? JSON.parse(data) : data;
      last = message.type === "error" ? message : null;
      hear(message);
    };
    this.#socket.onclose = ({ code }) => {
      if (this.#over) return;
      this.#over = true;
      const said = last && { detail: last.message, hint: last.hint ?? "" };
      ended(code === 1000 ? null : code === 1006 ? BROKEN : said ?? BROKEN);
    };
  }

  /** @param {object} order */
  send(order) {
    if (this.#open) this.#socket.send(JSON.stringify(order));
  }

  /** @param {Int16Array} piece */
  sound(piece) {
    if (this.#open && this.#socket.bufferedAmount < BEHIND) this.#socket.send(piece);
  }

  close() {
    this.#over = true;
    this.#socket?.close(1000);
  }

  get #open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }
}

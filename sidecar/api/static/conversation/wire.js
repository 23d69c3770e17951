/** The connection of a conversation: the Realtime API, with the end that is ours (docs/talk-wire.md). */

import { client, token } from "../session.js";

/** What may stand in a subprotocol; a token with other characters goes by a ticket. */
const PLAIN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

const BROKEN = { detail: "The connection to the service broke.", hint: "What was said until then is below. Start again to go on.", code: "connection_lost" };

export class Wire {
  #socket;
  #over = false;

  /**
   * @param {object} session who speaks and thinks, and at which rate
   * @param {(trouble: { detail: string, hint: string } | null) => void} ended null: as it was asked to
   */
  async open(session, hear, ended) {
    const offered = ["realtime"];
    let address = `ws${location.origin.slice("http".length)}/v1/realtime`;
    if (PLAIN.test(token())) offered.push(`bearer.${token()}`);
    else if (token()) {
      const { ticket } = await client().question("/v1/live/ticket", { method: "POST", once: true });
      address += `?ticket=${encodeURIComponent(ticket)}`;
    }
    if (this.#over) return;
    let last = null;
    this.#socket = new WebSocket(address, offered);
    this.#socket.onopen = () => this.send("session.update", { session: { type: "realtime", ...session } });
    this.#socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      last = event.type === "error" ? { detail: event.error.message, hint: "" } : null;
      hear(event);
    };
    this.#socket.onclose = ({ code }) => {
      if (this.#over) return;
      this.#over = true;
      ended(code === 1000 ? null : code === 1006 ? BROKEN : (last ?? BROKEN));
    };
  }

  send(type, fields = {}) {
    if (this.#open) this.#socket.send(JSON.stringify({ type, ...fields }));
  }

  sound(piece) {
    this.send("input_audio_buffer.append", { audio: btoa(String.fromCharCode(...new Uint8Array(piece.buffer))) });
  }

  /** Bytes that wait to be sent, also once the connection is over: then they never were. */
  get unsent() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  close() {
    this.#over = true;
    this.#socket?.close(1000);
  }

  get #open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }
}

/** OpenAI's own clients of its Realtime API against a real service: `node realtime.mjs CLASS KEY`
 * speaks half a second twice and prints what was understood as JSON. OPENAI_PACKAGE is where the
 * package lies. They speak TLS alone, and the service here has none: hence the two detours. */

import { createRequire } from "node:module";
import net from "node:net";

const { OPENAI_PACKAGE: installed, SERVICE: base } = process.env;
const require = createRequire(`${installed}/`);
const { default: OpenAI } = require("openai");
const { OpenAIRealtimeWS } = require("openai/realtime/ws");
const { OpenAIRealtimeWebSocket } = require("openai/realtime/websocket");

const [, , kind, apiKey] = process.argv;
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey });
const model = "gpt-4o-transcribe";

function opened() {
  if (kind === "ws") {
    const createConnection = ({ host, port }) => net.connect({ host, port });
    return new OpenAIRealtimeWS({ model, options: { createConnection } }, client);
  }
  return new OpenAIRealtimeWebSocket({ model, onURL: (url) => (url.protocol = "ws") }, client);
}

function spoken(level) {
  const samples = new Int16Array(24_000 * 1.2).fill(0);
  samples.fill(level * 32767, 0, 12_000);
  return Buffer.from(samples.buffer).toString("base64");
}

const found = { events: [], texts: [], errors: [] };
const connection = opened();
connection.on("event", ({ type }) => found.events.push(type));
connection.on("error", (error) => found.errors.push(error.error?.code ?? error.message));
connection.on("session.created", () => {
  connection.send({ type: "response.create" });
  connection.send({ type: "session.update", session: { type: "transcription" } });
});
connection.on("session.updated", ({ session }) => {
  found.model = session.audio.input.transcription.model;
  for (const level of [0.1, 0.2]) connection.send({ type: "input_audio_buffer.append", audio: spoken(level) });
});
connection.on("conversation.item.input_audio_transcription.completed", ({ transcript }) => {
  found.texts.push(transcript);
  if (found.texts.length === 2) connection.close();
});
connection.socket.addEventListener("close", () => console.log(JSON.stringify(found)));

/** OpenAI's package for JavaScript: `openai_realtime.mjs PORT`. It speaks TLS alone, and the service here
 * has none: hence the detour. */

import { createRequire } from "node:module";
import net from "node:net";

const require = createRequire(`${process.env.CLIENTS}/`);
const { default: OpenAI } = require("openai");
const { OpenAIRealtimeWS } = require("openai/realtime/ws");

const client = new OpenAI({ baseURL: `http://127.0.0.1:${process.argv[2]}/v1` });
const createConnection = ({ host, port }) => net.connect({ host, port });
const connection = new OpenAIRealtimeWS({ model: "gpt-realtime", options: { createConnection } }, client);
const found = { said: "", errors: [] };
connection.on("error", (error) => found.errors.push(String(error.message)));
connection.on("session.created", () => {
  connection.send({ type: "session.update", session: { type: "realtime", instructions: "Be brief." } });
  const content = [{ type: "input_text", text: "And plain" }];
  connection.send({ type: "conversation.item.create", item: { type: "message", role: "user", content } });
  connection.send({ type: "response.create" });
});
connection.on("response.output_audio_transcript.delta", ({ delta }) => (found.said += delta));
connection.on("response.done", () => connection.close());
connection.socket.addEventListener("close", () => console.log(JSON.stringify(found)));

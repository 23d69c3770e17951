/** OpenAI's agents for JavaScript: `openai_agents_realtime.mjs PORT`, a question that a tool answers. */

import { createRequire } from "node:module";

const require = createRequire(`${process.env.CLIENTS}/`);
const { RealtimeAgent, RealtimeSession, tool } = require("@openai/agents-realtime");

const found = { called: [], errors: [], audio: 0, said: "" };
const weather = tool({
  name: "weather",
  description: "How it is outside.",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
  strict: true,
  execute: async ({ city }) => {
    found.called.push(city);
    return "rain";
  },
});
const agent = new RealtimeAgent({ name: "Ada", instructions: "Be brief.", tools: [weather] });
const session = new RealtimeSession(agent, { transport: "websocket" });
session.on("error", ({ error }) => found.errors.push(String(error?.error?.message ?? error)));
session.on("audio", ({ data }) => (found.audio += data.byteLength));
const done = new Promise((resolve) => session.on("agent_end", (context, agent, said) => said && resolve(said)));

const url = `ws://127.0.0.1:${process.argv[2]}/v1/realtime?model=gpt-realtime`;
await session.connect({ apiKey: "sk-none", url });
session.sendMessage("It asks");
found.said = await done;
session.close();
console.log(JSON.stringify(found));
process.exit(0);

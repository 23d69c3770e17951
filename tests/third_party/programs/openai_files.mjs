/** OpenAI's package for JavaScript, for files and speech: `openai_files.mjs PORT RECORDING`. */

import { createReadStream } from "node:fs";
import { createRequire } from "node:module";

const { default: OpenAI } = createRequire(`${process.env.CLIENTS}/`)("openai");
const [port, recording] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1` });
const ask = (fields = {}) =>
  client.audio.transcriptions.create({ file: createReadStream(recording), model: "whisper-1", ...fields });

const found = { json: (await ask()).text, text: await ask({ response_format: "text" }) };
const timed = await ask({ response_format: "verbose_json", timestamp_granularities: ["word"] });
found.words = timed.words.length;
const diarized = await ask({ response_format: "diarized_json", model: "gpt-4o-transcribe-diarize" });
found.speakers = [...new Set(diarized.segments.map((one) => one.speaker))].sort();
found.streamed = "";
for await (const event of await ask({ stream: true }))
  if (event.type === "transcript.text.delta") found.streamed += event.delta;
found.logprobs = (await ask({ model: "gpt-4o-transcribe", include: ["logprobs"] })).text;
found.models = [];
for await (const model of client.models.list()) found.models.push(model.id);
const said = await client.audio.speech.create({ model: "gpt-4o-mini-tts", voice: "alloy", input: "Good morning." });
found.mp3 = Buffer.from(await said.arrayBuffer()).subarray(0, 2).toString("hex");
console.log(JSON.stringify(found));

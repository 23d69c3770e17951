/** Vercel's AI SDK: `ai_sdk.mjs PORT RECORDING`. */

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const installed = createRequire(`${process.env.CLIENTS}/`);
const use = (name) => import(pathToFileURL(installed.resolve(name)));
const ai = await use("ai");
const { createOpenAI } = await use("@ai-sdk/openai");
const [port, recording] = process.argv.slice(2);
const openai = createOpenAI({ baseURL: `http://127.0.0.1:${port}/v1` });
const transcribe = ai.transcribe ?? ai.experimental_transcribe;
const generateSpeech = ai.generateSpeech ?? ai.experimental_generateSpeech;
const audio = await readFile(recording);

const found = {};
for (const model of ["whisper-1", "gpt-4o-transcribe"]) {
  const heard = await transcribe({ model: openai.transcription(model), audio });
  found[model] = { text: heard.text, segments: heard.segments.length, seconds: heard.durationInSeconds };
}
const said = await generateSpeech({ model: openai.speech("tts-1"), text: "Good morning." });
found.speech = { format: said.audio.format, bytes: said.audio.uint8Array.length };
console.log(JSON.stringify(found));

/** Cases of OpenAI's own package against a real service: `node live.mjs CASE`, which prints what it
 * came to as JSON. OPENAI_PACKAGE is where the package lies. */

import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const { OPENAI_PACKAGE: installed, SERVICE: base, RECORDING: recording } = process.env;
const { default: OpenAI, toFile } = createRequire(`${installed}/`)("openai");
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "sk-whatever", maxRetries: 0 });
const { transcriptions } = client.audio;
const file = () => createReadStream(recording);
const model = "whisper-1";

function said(error) {
  const { status, code, param, type, requestID } = error;
  return { kind: error.constructor.name, status, code, param, type, requestID: Boolean(requestID) };
}

async function caught(promise) {
  return promise.then(() => null, said);
}

const CASES = {
  async formats() {
    const found = {};
    for (const response_format of ["json", "text", "srt", "vtt", "verbose_json", "diarized_json"]) {
      found[response_format] = await transcriptions.create({ file: file(), model, response_format, language: "en" });
    }
    const bytes = await toFile(await readFile(recording), "clip.wav");
    found.again = await transcriptions.create({ file: bytes, model, language: "en" });
    return found;
  },

  async stream() {
    const asked = { file: file(), model, response_format: "diarized_json", stream: true };
    const events = [];
    for await (const event of await transcriptions.create(asked)) events.push(event);
    return events;
  },

  async errors() {
    const empty = await toFile(Buffer.from(""), "a.wav");
    return [
      await caught(transcriptions.create({ file: empty, model })),
      await caught(transcriptions.create({ file: file(), model: "whisper-9" })),
      await caught(client.audio.translations.create({ file: file(), model })),
      await caught(client.models.retrieve("whisper-9")),
    ];
  },

  async models() {
    const ids = [];
    for await (const each of client.models.list()) ids.push(each.id);
    return ids;
  },

  /** A second each; the work takes longer. */
  async retried() {
    const patient = new OpenAI({ baseURL: `${base}/v1`, apiKey: "sk", maxRetries: 2, timeout: 3000 });
    const asked = patient.audio.transcriptions.create({ file: await toFile(await readFile(recording), "clip.wav"), model }, { timeout: 3000 });
    return (await asked).text;
  },

  /** The job runs; then nobody wants it any more. */
  async abort() {
    const waiting = new AbortController();
    const asked = caught(transcriptions.create({ file: file(), model }, { signal: waiting.signal }));
    await state("busy");
    waiting.abort();
    const kind = (await asked).kind;
    await state("ready");
    const stream = await transcriptions.create({ file: file(), model, stream: true });
    for await (const event of stream) if (event.type === "transcript.text.delta") break;
    await state("ready");
    return kind;
  },
};

async function state(wanted) {
  for (;;) {
    const health = await (await fetch(`${base}/health`)).json();
    if (health.engine_state === wanted) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

console.log(JSON.stringify(await CASES[process.argv[2]]()));

/** Cases against a real service: `node live.js CASE`, which prints what it came to as JSON. */

import * as fs from "node:fs";
import { readFile } from "node:fs/promises";

import { FORMATS, ServiceError, VibevoiceClient } from "../src/index.js";

const { SERVICE_URL: url, RECORDING: recording } = process.env;
const client = new VibevoiceClient({ url, retry: { attempts: 100, firstMs: 10, longestMs: 50 } });
const audio = fs.openAsBlob ? await fs.openAsBlob(recording) : new Blob([await readFile(recording)]);

async function all(iterator) {
  const found = [];
  for await (const each of iterator) found.push(each);
  return found;
}

async function spoken(client, more = {}) {
  const live = client.live({ partials: false, diarize: false, encoding: "pcm16", ...more });
  for (const loud of [0, 0.3, 0.2, 0.35, 0.25]) {
    const turn = new Int16Array(16_000 * 2.3).fill(loud * 32767, 0, 16_000 * 1.5);
    for (let at = 0; at < turn.length; at += 1600) await live.send(turn.subarray(at, at + 1600));
  }
  live.commit();
  live.finish();
  return all(live);
}

const CASES = {
  async transcribe() {
    const told = [];
    const options = { language: "de", hotwords: ["Nagg", "Nell"] };
    const transcript = await client.transcribe(audio, options, { onProgress: (at) => told.push(at) });
    const buffer = await client.transcribe(await readFile(recording), options);
    return { transcript, told, again: buffer.segments };
  },

  async jobs() {
    const [one, other] = [await client.submit(audio, {}, { key: "talk-js" }), await client.submit(audio, {}, { key: "talk-js" })];
    const ended = await client.wait(one.id);
    const formats = {};
    for (const format of FORMATS) formats[format] = await client.transcript(one.id, format);
    const edits = [await client.edit(one.id, [{ op: "rename", speaker: "Speaker_0", name: "Nell" }], { revision: 0 })];
    edits.push(await client.edit(one.id, [{ op: "undo" }], { revision: 0 }).catch(({ code }) => code));
    edits.push(await client.diarize(one.id, { num_speakers: 2 }).catch(({ code }) => code));
    edits.push(await client.cancel(one.id, { revision: 0 }).catch(({ code }) => code));
    const page = await client.jobs({ state: ["done", "failed"], limit: 100 });
    await client.cancel(one.id);
    const health = await client.health();
    return { one, other, ended, formats, edits, listed: page.jobs.map(({ id }) => id), health };
  },

  /** SERVICE_URL leads through a network that cuts; DIRECT does not. */
  async resume() {
    const near = new VibevoiceClient({ url: process.env.DIRECT });
    const { id } = await near.submit(audio);
    await near.wait(id);
    const whole = await all(near.events(id));
    const resumed = await all(client.events(id));
    const last = whole.at(-1).id;
    const rest = [await all(near.events(id, { after: last })), await all(near.events(id, { after: last - 1 }))];
    await near.cancel(id);
    return { whole, resumed, rest };
  },

  /** The job runs; then nobody wants it any more. */
  async abort() {
    const aborter = new AbortController();
    const reason = new Error("enough");
    const began = ({ stage, done }) => stage === "running" && done > 0 && aborter.abort(reason);
    const how = { signal: aborter.signal, onProgress: began };
    const caught = await client.transcribe(audio, {}, how).catch((error) => error);
    const { id } = await client.submit(audio);
    const events = [];
    for await (const event of client.events(id)) {
      events.push(event.kind);
      break; // leaves the connection, and not the job
    }
    const { state } = await client.job(id);
    await client.cancel(id);
    return { reason: caught === reason, events, state, left: (await client.jobs()).jobs };
  },

  /** Turns as loud as that, each 1.5 s and a pause; what is said over SERVICE_URL, and by a direct way. */
  async live() {
    const direct = new VibevoiceClient({ url: process.env.DIRECT });
    return { cut: await spoken(client), whole: await spoken(direct) };
  },

  async file() {
    const events = await all(client.liveFile(audio, { pace: 0, partials: false, keep: true }));
    const kept = await client.job(events.at(-1).job);
    await client.cancel(kept.id);
    const live = client.liveFile(audio, { pace: 0.5 });
    await live.next();
    await live.return();
    return { events, kept };
  },

  async unfit() {
    const refused = (blob, setup) => all(client.liveFile(blob, setup)).catch((error) => error.constructor.name);
    return [await refused(new Blob(["RIFF, but no wav"])), await refused(audio, { channels: 2 })];
  },

  async left() {
    const live = client.live({ turns: "client" });
    await live.opened();
    const empty = await live.send(new Uint8Array(3)).catch((error) => error.constructor.name);
    live.close();
    const events = await all(live);
    const aborted = AbortSignal.timeout(50);
    const reason = await all(client.live({ signal: aborted })).catch((error) => error === aborted.reason);
    const refused = await all(client.live({ tempo: 3 })).catch(({ code }) => code);
    const nowhere = new VibevoiceClient({ url: "http://127.0.0.1:1", retry: { attempts: 2, firstMs: 10 } });
    const nobody = await all(nowhere.live()).catch((error) => error.constructor.name);
    return { empty, events, reason, refused, nobody };
  },

  async tokens() {
    const said = {};
    for (const token of [process.env.TOKEN, "x".repeat(20), "/".repeat(20)]) {
      const live = new VibevoiceClient({ url, token, retry: { attempts: 2, firstMs: 10 } }).live();
      said[token] = await live.opened().then(() => "opened", ({ code }) => code);
      await live.close();
    }
    return said;
  },

  /** SERVICE_URL cuts its connections; only DIRECT's client has the token. */
  async tickets() {
    const near = new VibevoiceClient({ url: process.env.DIRECT, token: process.env.TOKEN });
    let asked = 0;
    const ticket = async () => {
      asked += 1;
      if (asked === 2) throw new TypeError("the page's own server is away");
      return (await near.question("/v1/live/ticket", { method: "POST" })).ticket;
    };
    const events = await spoken(client, { ticket });
    const word = await near.question("/v1/live/ticket", { method: "POST" });
    const far = new VibevoiceClient({ url: process.env.DIRECT });
    const opened = async (ticket) => {
      const live = far.live({ ticket });
      const said = await live.opened().then(() => "opened", ({ code }) => code);
      await live.close();
      return said;
    };
    return { asked, events, once: [await opened(word.ticket), await opened(word.ticket)] };
  },

  /** As the package `ws` tells that the handshake was refused. */
  async refused() {
    let made = 0;
    class WebSocket {
      constructor() {
        made += 1;
        setTimeout(() => this.onerror({ message: "Unexpected server response: 403" }));
      }
      close() {}
    }
    const { status, hint } = await all(client.live({ WebSocket })).catch((error) => error);
    return { made, status, hint };
  },

  async errors() {
    const wrong = [
      () => client.submit(new Blob([])),
      () => client.transcribe(Buffer.from("this is no recording".repeat(100))),
      () => client.job("../health"),
      () => all(client.events("0".repeat(32))),
      () => client.submit(audio, { num_speakers: 21 }),
      () => client.transcript("0".repeat(32), "srt"),
      () => client.recording("0".repeat(32)),
    ];
    const said = [];
    for (const call of wrong) {
      const error = await call().catch((caught) => caught);
      if (!(error instanceof ServiceError)) throw error;
      const { code, status, detail, hint, requestId } = error;
      said.push({ code, status, whole: Boolean(detail && hint && requestId) });
    }
    return said;
  },
};

console.log(JSON.stringify(await CASES[process.argv[2]]()));

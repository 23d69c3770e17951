/** The client against an HTTP server that answers as it is told; time is handed in. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, test } from "node:test";

import * as everything from "../src/index.js";
import { NEVER, VibevoiceClient } from "../src/index.js";
import { REAL } from "../src/world.js";

const problem = (code) => JSON.stringify({ code, detail: "No.", hint: "Do." });
const JOB = { id: "j1", state: "queued", progress: { audio_seconds_done: 0 } };
/** What each test's service is to answer, and was asked, by the first part of the path. */
const scenes = new Map();
const server = createServer((request, response) => {
  const [, name, path] = /^\/(\d+)(.*)$/.exec(request.url);
  const scene = scenes.get(name);
  const pieces = [];
  request.on("error", () => {});
  request.on("data", (piece) => pieces.push(piece));
  request.on("end", () => {
    scene.asked.push({ line: `${request.method} ${path}`, headers: request.headers, body: Buffer.concat(pieces) });
    const next = scene.answers.shift() ?? [500, "asked once too often"];
    if (next === "cut") return request.socket.destroy();
    if (next === "silence") return scene.silent();
    const [status, body, headers = {}] = next;
    response.writeHead(status, headers);
    return response.end(typeof body === "string" ? body : JSON.stringify(body));
  });
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
after(() => {
  server.closeAllConnections();
  server.close();
});

/**
 * A service that answers so (status, body, headers; "cut" and "silence" are none), and a client of it
 * whose waits are noted instead of waited for.
 */
function scene(answers, more = {}) {
  const here = { answers, asked: [], waits: [], silent: () => {} };
  const name = String(scenes.size);
  scenes.set(name, here);
  const world = { sleep: async (ms) => void here.waits.push(ms), random: () => 1, now: () => 0 };
  const url = `http://127.0.0.1:${server.address().port}/${name}`;
  return Object.assign(here, { client: new VibevoiceClient({ url, token: "secret", world, ...more }) });
}

test("what may pass is tried again, after what was asked for or growing pauses", async () => {
  const { client, waits, asked } = scene(["cut", [503, problem("queue_full"), { "Retry-After": "7" }], [502, "<html>"], [200, JOB]]);
  const job = await client.submit(Buffer.from("abc"));
  assert.equal(job.id, "j1");
  assert.deepEqual(waits, [500, 8000, 2000]);
  const keys = new Set(asked.map(({ headers }) => headers["idempotency-key"]));
  assert.equal(keys.size, 1, "one key for all attempts");
  assert.ok(asked.every(({ body }) => body.includes("abc")), "the bytes go up each time");
  assert.ok(asked.every(({ headers }) => headers.authorization === "Bearer secret"));
});

test("each submission has a key of its own, or the one that it was given", async () => {
  const { client, asked } = scene([[202, JOB], [202, JOB], [202, JOB]]);
  for (const how of [{}, {}, { key: "mine" }]) await client.submit(new Blob(["a"]), {}, how);
  const keys = asked.map(({ headers }) => headers["idempotency-key"]);
  assert.equal(new Set(keys).size, 3);
  assert.equal(keys[2], "mine");
});

test("what will not pass is an error at once", async () => {
  const { client, waits, asked } = scene([[422, problem("field_invalid")], [200, "hello"], [302, "", { Location: "elsewhere" }]]);
  await assert.rejects(client.job("j1"), { name: "ServiceError", code: "field_invalid", status: 422 });
  await assert.rejects(client.jobs(), { name: "AnswerNotUnderstood" });
  await assert.rejects(client.health(), { name: "AnswerNotUnderstood" });
  assert.deepEqual(waits, []);
  assert.equal(asked.length, 3, "a redirection is not followed");
});

test("it has been enough at some time", async () => {
  const { client, waits } = scene(["cut", "cut", "cut"], { retry: { attempts: 3 } });
  await assert.rejects(client.job("j1"), { name: "ConnectionLost" });
  assert.deepEqual(waits, [500, 1000]);
  const nowhere = new VibevoiceClient({ url: "http://127.0.0.1:1", retry: NEVER });
  await assert.rejects(nowhere.job("j1"), { name: "ServiceUnreachable" });
});

test("a job that a lost attempt ended is gone as it should be", async () => {
  const { client } = scene(["cut", [404, problem("job_not_found")], [404, problem("job_not_found")]]);
  await client.cancel("j1");
  await assert.rejects(client.cancel("j1"), { code: "job_not_found" });
});

test("silence has an end", async () => {
  const { client } = scene(["silence"], { silenceMs: 30, retry: NEVER });
  await assert.rejects(client.job("j1"), { name: "ConnectionLost" });
});

test("a signal ends a question and a wait, and its reason comes out", async () => {
  const reason = new Error("enough");
  const [asking, waiting] = [new AbortController(), new AbortController()];
  const quiet = scene(["silence"]);
  quiet.silent = () => asking.abort(reason);
  await assert.rejects(quiet.client.job("j1", { signal: asking.signal }), reason);
  await assert.rejects(quiet.client.job("j1", { signal: asking.signal }), reason);
  assert.equal(quiet.asked.length, 1, "nothing is begun with a signal that was given");
  const sleep = (ms, signal) => {
    const slept = REAL.sleep(ms, signal);
    waiting.abort(reason);
    return slept;
  };
  const busy = scene([[503, problem("queue_full"), { "Retry-After": "60" }]], { world: { sleep } });
  await assert.rejects(busy.client.job("j1", { signal: waiting.signal }), reason);
});

test("a live session with a signal that was given already opens no connection, and its reason comes out", async () => {
  let opened = 0;
  class WebSocket {
    constructor() {
      opened += 1;
    }
    close() {}
  }
  const reason = new Error("not wanted");
  const client = new VibevoiceClient({ url: "http://127.0.0.1:1" });
  const live = client.live({ WebSocket, signal: AbortSignal.abort(reason) });
  await assert.rejects(live.opened(), reason);
  await assert.rejects(live.send(new Int16Array(160)), reason);
  await assert.rejects(live[Symbol.asyncIterator]().next(), reason);
  assert.equal(opened, 0);
});

/** A connection to a service that takes the session, and is cut; all later ones are refused so. */
function refusedWith(status) {
  const made = { count: 0 };
  made.WebSocket = class {
    constructor() {
      made.count += 1;
      const refused = () => this.onerror({ message: `Unexpected server response: ${status}` });
      setImmediate(made.count === 1 ? () => this.taken() : refused);
    }
    taken() {
      this.onopen();
      const began = { type: "began", received_samples: 0, received_orders: 0, grace_s: 15 };
      this.onmessage({ data: JSON.stringify(began) });
      this.onmessage({ data: '{"type": "partial", "number": 1, "text": "so"}' });
      setImmediate(() => this.onclose());
    }
    send() {}
    close() {}
  };
  return made;
}

test("a live session in its grace is given up at the service's refusal, not at a proxy's answer", async () => {
  for (const status of [404, 500, 502, 401, 403]) {
    let now = 0;
    const world = { sleep: async (ms) => void (now += ms), random: () => 1, now: () => now };
    const { client } = scene([], { world });
    const made = refusedWith(status);
    const live = client.live({ WebSocket: made.WebSocket });
    const events = live[Symbol.asyncIterator]();
    await events.next();
    const error = await events.next().catch((error) => error);
    const final = status === 401 || status === 403;
    assert.equal(error.constructor.name, final ? "ServiceError" : "ConnectionLost", `at ${status}`);
    assert.equal(final, made.count === 2, `${made.count} attempts at ${status}`);
    assert.equal(final || now >= 15_000, true, `given up after ${now} ms at ${status}`);
    assert.equal(error.hint.includes("allowed_origins"), status === 403);
  }
});

test("who leaves a live session does not wait for a ticket that never comes", async () => {
  const client = new VibevoiceClient({ url: "http://127.0.0.1:1" });
  const opened = [];
  const WebSocket = class {
    constructor(address) {
      opened.push(address);
    }
  };
  const pending = () => new Promise(() => {});
  const closed = client.live({ WebSocket, ticket: pending });
  await new Promise(setImmediate);
  await closed.close();
  const aborter = new AbortController();
  const aborted = client.live({ WebSocket, ticket: pending, signal: aborter.signal });
  const next = aborted[Symbol.asyncIterator]().next();
  await new Promise(setImmediate);
  aborter.abort(new Error("not wanted"));
  await assert.rejects(next, aborter.signal.reason);
  assert.deepEqual(opened, []);

  const made = refusedWith(404);
  let asked = 0;
  let again = () => {};
  const askedAgain = new Promise((resolve) => (again = resolve));
  const ticket = () => {
    asked += 1;
    if (asked === 1) return "t1";
    again();
    return pending();
  };
  const { client: quick } = scene([]);
  for await (const { text } of quick.live({ WebSocket: made.WebSocket, ticket })) {
    assert.equal(text, "so");
    await askedAgain;
    break; // leaves the session
  }
  assert.equal(made.count, 1);
});

test("a function that gives no ticket is asked again, and its error comes out", async () => {
  for (const given of [undefined, "", 7, { ticket: "x" }]) {
    const { client, waits } = scene([], { retry: { attempts: 3 } });
    const live = client.live({ WebSocket: class {}, ticket: () => given });
    await assert.rejects(live.opened(), { name: "ServiceUnreachable", message: /There was no ticket/ });
    assert.equal(waits.length, 2);
  }
});

test("a caller's mistake is not taken for a network's", async () => {
  const { client, waits, asked } = scene([]);
  await assert.rejects(client.submit(Buffer.from("a"), {}, { key: "a\nb" }), TypeError);
  await assert.rejects(client.submit("talk.wav"), TypeError);
  assert.deepEqual([waits, asked], [[], []]);
});

test("a job that failed is thrown as its error, and forgotten", async () => {
  const failed = { ...JOB, state: "failed", error: { code: "worker_died", detail: "Gone.", hint: "Again." } };
  const { client, asked } = scene([[202, JOB], [200, failed], [204, ""]]);
  await assert.rejects(client.transcribe(new Blob(["a"])), { code: "worker_died", status: null, hint: "Again." });
  assert.equal(asked.at(-1).line, "DELETE /v1/jobs/j1");
});

const EVENTS = { "Content-Type": "text/event-stream" };

test("a model is pulled with its events, and what goes wrong is thrown", async () => {
  const progress = 'event: progress\ndata: {"bytes_done":1,"bytes_total":2}\n\n';
  const failed = `event: failed\ndata: {"error":${problem("disk_full")}}\n\n`;
  const { client, asked } = scene([
    [200, { object: "list", data: [], models: [{ name: "whisper:small" }] }],
    [200, `${progress}: keep-alive\n\nevent: done\ndata: {"name":"whisper:small","commit":"a"}\n\n`, EVENTS],
    [200, progress + failed, EVENTS],
    [200, progress, EVENTS],
    [409, problem("pull_running")],
    [204, ""],
    [401, { error: { message: "No.", type: "x", param: null, code: "token_missing" } }],
    [200, { object: "list", data: [] }],
  ]);
  const [{ name }] = await client.models();
  const all = async () => {
    const kinds = [];
    for await (const { kind } of client.pullModel(name)) kinds.push(kind);
    return kinds;
  };
  assert.deepEqual(await all(), ["progress", "done"]);
  await assert.rejects(all(), { code: "disk_full" });
  await assert.rejects(all(), { name: "ConnectionLost" });
  await assert.rejects(all(), { code: "pull_running" });
  await client.deleteModel(name);
  assert.deepEqual(JSON.parse(asked[1].body), { name });
  assert.equal(asked.at(-1).line, "DELETE /v1/models/whisper%3Asmall");
  await assert.rejects(client.deleteModel("../jobs/j1"), TypeError);
  await assert.rejects(client.models(), { code: "token_missing", detail: "No." });
  assert.deepEqual(await client.models(), []);
});

test("the committed types have all that is exported, and every method", async () => {
  const types = async (name) => readFile(new URL(`../types/${name}.d.ts`, import.meta.url), "utf-8");
  const [index, client] = [await types("index"), await types("client")];
  for (const name of Object.keys(everything)) assert.match(index, new RegExp(`\\b${name}\\b`));
  const methods = Object.getOwnPropertyNames(VibevoiceClient.prototype);
  for (const name of methods) assert.match(client, new RegExp(`^    (get )?${name}\\(`, "m"), name);
});

/** What is decided without a network: events out of bytes, when to try again, what answers mean. */

import assert from "node:assert/strict";
import { test } from "node:test";

import * as calls from "../src/calls.js";
import { AnswerNotUnderstood, ConnectionLost, ServiceError } from "../src/errors.js";
import { Following } from "../src/following.js";
import { LiveStream } from "../src/livestream.js";
import { progressAfter, progressOf } from "../src/progress.js";
import { askedSeconds, NEVER, PATIENT, waitMs } from "../src/retry.js";
import { Parser } from "../src/sse.js";
import { carry, waveOf } from "../src/wave.js";

const bytes = (text) => new TextEncoder().encode(text);
const answer = (status, text = "", headers = {}) => ({ status, text, headers: new Headers(headers) });
const STREAM = answer(200, "", { "Content-Type": "text/event-stream; charset=utf-8" });

/** The frames of a stream that comes in pieces of this size. */
function frames(text, size) {
  const parser = new Parser();
  const whole = bytes(text);
  const found = [];
  for (let at = 0; at < whole.length; at += size)
    found.push(...parser.feed(whole.subarray(at, at + size)));
  return found;
}

test("events are the same in pieces of any size and with any line end", () => {
  const lines = ["\ufeffretry: 1000", "", ": here", "id: 7", "event: segment", "data: Grüße 🎙", "data:  two", "", "data", "", "id: 8"];
  const expected = [
    { event: "segment", data: "Grüße 🎙\n two", id: "7" },
    { event: "message", data: "", id: "7" },
  ];
  for (const end of ["\n", "\r\n", "\r"])
    for (const size of [1, 2, 3, 5, 1000])
      assert.deepEqual(frames(lines.join(end) + end, size), expected, `${JSON.stringify(end)} ${size}`);
});

test("an event without its empty line is none", () => {
  assert.deepEqual(frames("data: half\n", 4), []);
});

test("waits grow, are spread by chance, and end", () => {
  const waits = [1, 2, 3, 4, 5, 6].map((failures) => waitMs(PATIENT, failures, 1));
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, null]);
  assert.equal(waitMs(PATIENT, 1, 0), 250);
  assert.equal(waitMs({ ...PATIENT, attempts: 99 }, 50, 1), PATIENT.longestMs);
  assert.equal(waitMs(NEVER, 1, 0), null);
});

test("what the service asks for counts instead, up to an hour", () => {
  assert.equal(waitMs(PATIENT, 1, 0.5, 7), 7500);
  assert.equal(waitMs(PATIENT, 1, 0, 3601), null);
  const now = Date.UTC(2026, 10, 21);
  assert.equal(askedSeconds(" 12 ", now), 12);
  assert.equal(askedSeconds("Sat, 21 Nov 2026 00:00:30 GMT", now), 30);
  assert.equal(askedSeconds("Fri, 20 Nov 2026 00:00:00 GMT", now), 0);
  for (const none of [null, "", "soon", "-1", "1.5", "2026-11-21"])
    assert.equal(askedSeconds(none, now), null, String(none));
});

test("addresses have a scheme and no slash at their end", () => {
  assert.equal(calls.address("box.lan:8765/"), "http://box.lan:8765");
  assert.equal(calls.address("https://box.lan/asr//"), "https://box.lan/asr");
  for (const none of ["", "ftp://a", "http://[::", "tauri://localhost"])
    assert.throws(() => calls.address(none), { name: "ServiceUnreachable" }, none);
});

test("options are fields of a form, made anew for each attempt", async () => {
  const options = { hotwords: ["Nagg", "Nell"], num_speakers: 2, diarize: false, prompt: undefined, context: null };
  const call = calls.submit(Buffer.from("abc"), options, "key-1", "");
  assert.equal(call.headers["Idempotency-Key"], "key-1");
  for (const form of [call.form(), call.form()]) {
    const { audio, ...fields } = Object.fromEntries(form);
    assert.deepEqual(fields, { hotwords: "Nagg, Nell", num_speakers: "2", diarize: "false" });
    assert.equal(audio.name, "recording");
    assert.equal(await audio.text(), "abc");
  }
  const part = new Uint8Array(Buffer.from("..abc..")).subarray(2, 5);
  assert.equal(await calls.submit(part, {}, "k", "a.wav").form().get("audio").text(), "abc");
  assert.throws(() => calls.submit("talk.wav", {}, "k", ""), TypeError);
});

test("a job's id stays one part of the path", () => {
  assert.equal(calls.job("../health").path, "/v1/jobs/..%2Fhealth");
  for (const none of ["", ".", "..", undefined]) assert.throws(() => calls.cancel(none), TypeError);
  assert.equal(calls.jobs({}).path, "/v1/jobs");
  assert.equal(calls.jobs({ state: ["queued", "running"], limit: 2 }).path, "/v1/jobs?state=queued%2Crunning&limit=2");
});

test("a refusal has all that the service said", () => {
  const body = { code: "queue_full", detail: "Full.", hint: "Wait.", request_id: "9f" };
  const error = calls.refusalOf(answer(503, JSON.stringify(body), { "Retry-After": "3" }), 0);
  assert.ok(error instanceof ServiceError);
  const { code, status, detail, hint, requestId, retryAfter, message } = error;
  assert.deepEqual(
    [code, status, detail, hint, requestId, retryAfter, message],
    ["queue_full", 503, "Full.", "Wait.", "9f", 3, "Full."],
  );
  assert.equal(calls.refusalOf(answer(502, "<html>"), 0).code, "");
  assert.ok(calls.refusalOf(answer(404, "<html>"), 0) instanceof AnswerNotUnderstood);
  assert.throws(() => calls.bodyOf(answer(200, "[1]")), AnswerNotUnderstood);
});

test("a job is followed over connections, and no event comes twice", () => {
  const following = new Following("1", null, PATIENT);
  const took = (text) => [...following.took(bytes(text))].map(({ kind, id }) => [kind, id]);
  assert.equal(following.opened(STREAM, 0), null);
  const first = 'retry: 900\n\nid: 1\nevent: begun\ndata: {}\n\nid: 2\nevent: segm';
  assert.deepEqual(took(first), [["begun", 1]]);
  assert.equal(following.closed(new ConnectionLost("gone"), 1), 900, "retry of the stream, if longer");
  const asked = { Accept: "text/event-stream", "Last-Event-ID": "1" };
  assert.deepEqual(following.call.headers, asked, "and no other: a page may send these");
  following.opened(STREAM, 0);
  assert.deepEqual(took('id: 1\nevent: begun\ndata: {}\n\nid: 2\nevent: segment\ndata: {}\n\nevent: behind\ndata: {}\n\n'), [["segment", 2]]);
  assert.equal(following.closed(null, 1), 0, "told to come again");
  assert.equal(following.ended, false);
  following.opened(STREAM, 0);
  assert.deepEqual(took('id: 9\nevent: done\ndata: {}\n\n'), [["done", 9]]);
  assert.equal(following.ended, true);
});

test("a stream that begins anew, whatever it is asked for, is not followed for ever", () => {
  const again = 'id: 1\nevent: begun\ndata: {}\n\n';
  const following = new Following("1", 2, PATIENT);
  following.opened(STREAM, 0);
  assert.deepEqual([...following.took(bytes(again))], []);
  assert.equal(following.closed(null, 1), 500);
  following.opened(STREAM, 0);
  assert.deepEqual([...following.took(bytes(again + 'id: 2\nevent: done\ndata: {}\n\n'))], []);
  assert.equal(following.ended, true);
});

test("a stream that says nothing is given up", () => {
  const following = new Following("1", 4, { ...PATIENT, attempts: 3 });
  const waits = [1, 2].map(() => (following.opened(STREAM, 0), following.closed(null, 1)));
  assert.deepEqual(waits, [500, 1000]);
  assert.throws(() => following.closed(null, 1), ConnectionLost);
  following.opened(answer(204), 0);
  assert.equal(following.ended, true, "204: you have had all");
  assert.throws(() => following.opened(answer(200, "", { "Content-Type": "text/html" }), 0), AnswerNotUnderstood);
});

test("progress is told by bodies and by events", () => {
  const body = { state: "queued", position: 3, estimated_wait_seconds: 12.5 };
  assert.deepEqual(progressOf(body), { stage: "queued", done: 0, total: null, fraction: null, position: 3, estimatedWaitSeconds: 12.5 });
  const data = { audio_seconds_done: 5, audio_seconds_total: 20, fraction: 0.25 };
  assert.equal(progressAfter({ kind: "progress", data, id: 1 }).fraction, 0.25);
  assert.equal(progressAfter({ kind: "put_back", data: {}, id: 2 }).stage, "queued");
  assert.equal(progressAfter({ kind: "segment", data: {}, id: 3 }), null);
});

for (const channels of [1, 2]) test(`a live session's sound in ${channels} channels arrives once and in order, however connections break`, () => {
  const stream = new LiveStream("ours", { rate: 4, encoding: "pcm16" }, { channels }, PATIENT);
  const [service, width] = [{ bytes: [], orders: [] }, 2 * channels];
  const counts = () => ({ received_samples: service.bytes.length / width, received_orders: service.orders.length });
  const take = (message) =>
    typeof message === "string"
      ? service.orders.push([service.bytes.length, JSON.parse(message).type])
      : service.bytes.push(...message);
  assert.deepEqual(JSON.parse(stream.opening()), { type: "begin", session: "ours", channels, rate: 4, encoding: "pcm16" });
  assert.equal(stream.next(), null, "before it has begun");
  stream.took(JSON.stringify({ type: "began", ...counts() }));
  const meant = [];
  for (let at = 0; at < 12; at += 1) {
    const piece = Uint8Array.from({ length: width + width * (at % 5) }, (_, index) => at * 16 + index);
    stream.sound(piece);
    meant.push(...piece);
    if (at % 4 === 1) stream.order("commit");
    if (at % 3) take(stream.next());
    else stream.next(); // lost on its way, and the connection with it
    if (at % 3 === 0) {
      assert.ok(stream.lost(null, 0.5, 0) > 0);
      assert.equal(JSON.parse(stream.opening()).after, 0);
      stream.took(JSON.stringify({ type: "began", ...counts() }));
    }
  }
  for (let message = stream.next(); message !== null; message = stream.next()) take(message);
  assert.deepEqual(service.bytes, meant);
  assert.deepEqual(service.orders.map(([, type]) => type), ["commit", "commit", "commit"]);
  stream.order("finish");
  assert.throws(() => stream.sound(new Uint8Array(width)), TypeError);
  assert.throws(() => stream.took('{"type": "began", "received_samples": 999, "received_orders": 0}'));
  assert.equal(stream.took('{"type": "partial", "number": 3, "text": "so"}')?.text, "so");
  assert.equal(stream.took('{"type": "partial", "number": 3, "text": "so"}'), null, "it was there");
  assert.equal(JSON.parse(stream.opening()).after, 3);
});

test("a lost live session is tried again as long as the service keeps it", () => {
  const began = JSON.stringify({ type: "began", received_samples: 0, received_orders: 0, grace_s: 15 });
  const stream = new LiveStream("ours", { rate: 4, encoding: "pcm16" }, {}, PATIENT);
  stream.opening();
  stream.took(began);
  let now = 0;
  const again = () => {
    for (;;) {
      const wait = stream.lost(null, 0, now);
      assert.ok(wait <= 2000);
      now += wait;
      stream.opening();
    }
  };
  assert.throws(again, (error) => error instanceof ConnectionLost && Boolean(error.hint));
  assert.ok(now >= 15_000, `given up after ${now} ms`);
  const pauses = [0, 0.5, 1].map((chance) => {
    const one = new LiveStream("ours", { rate: 4, encoding: "pcm16" }, {}, PATIENT);
    one.took(began);
    return [0, 0, 0, 0, 0, 14_900].map((now) => one.lost(null, chance, now)).slice(-2);
  });
  assert.deepEqual(pauses, [[1000, 200], [1500, 700], [2000, 1200]], "clients that were cut together are spread");
  const away = new LiveStream("ours", { rate: 4, encoding: "pcm16" }, {}, PATIENT);
  assert.throws(() => away.lost(new AnswerNotUnderstood("a proxy's page"), 0, 0), AnswerNotUnderstood);
  away.took(began);
  assert.throws(() => away.lost(new AnswerNotUnderstood("of the service"), 0, 0), AnswerNotUnderstood);
  assert.ok(away.lost(new AnswerNotUnderstood("a proxy's page"), 0, 0) > 0);
  const once = new LiveStream("ours", { rate: 4, encoding: "pcm16" }, {}, { ...PATIENT, attempts: 1 });
  once.opening();
  once.took(began);
  assert.throws(() => once.lost(null, 0, 0), ConnectionLost);
});

/** A plain wav of 16 bits: silence at 8000 Hz. */
function wav(channels, bytes) {
  const buffer = Buffer.alloc(44 + bytes);
  for (const [at, word] of [[0, "RIFF"], [8, "WAVE"], [12, "fmt "], [36, "data"]]) buffer.write(word, at);
  const numbers = [[16, 16], [24, 8000], [28, 16_000 * channels], [40, bytes]];
  for (const [at, number] of numbers) buffer.writeUInt32LE(number, at);
  for (const [at, number] of [[20, 1], [22, channels], [32, 2 * channels], [34, 16]]) buffer.writeUInt16LE(number, at);
  return new Blob([buffer]);
}

test("a wav is sent in whole samples of as many channels as were asked for", async () => {
  for (const channels of [1, 2]) {
    const sent = [];
    const live = { send: async (piece) => sent.push(piece.byteLength), finish: () => sent.push("finish") };
    await carry(live, await waveOf(wav(channels, 1602 * channels + 1), channels), 0);
    assert.deepEqual(sent, [1600 * channels, 2 * channels, "finish"], "0.1 s, and the rest");
    await assert.rejects(waveOf(wav(3 - channels, 1600), channels), { name: "TypeError", message: /mono|stereo/ });
  }
  await assert.rejects(waveOf(wav(2, 1600)), TypeError, "mono, if nothing is said");
});

/** Sessions of live audio, with a plugin and an audio thread of our own: `npm test`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { mockIPC } from "@tauri-apps/api/mocks";

globalThis.window = globalThis;
let sound, node;
globalThis.AudioContext = class {
  audioWorklet = { addModule: async () => {} };
  createMediaStreamSource = () => ({ connect() {} });
  async resume() {}
  async close() {}
};
globalThis.AudioWorkletNode = class {
  constructor(_context, _name, options) {
    [sound, node] = [(this.port = {}), options];
  }
};
const { live } = await import("../src/live.js");

/** A plugin that refuses the second piece of sound with `refusal`; `sent`: the bytes that it took. */
function plugin(refusal) {
  const sent = [];
  mockIPC((command, payload) => {
    if (command !== "plugin:vibevoice-asr|live_send") return null;
    if (refusal && sent.length) throw refusal;
    sent.push([...payload]);
    return null;
  });
  return sent;
}

/** The part of the audio thread, whose `sent` go to no page. */
async function thread() {
  let Pcm;
  globalThis.AudioWorkletProcessor = class {
    sent = [];
    port = { postMessage: (data) => this.sent.push([...new Int16Array(data)]) };
  };
  globalThis.registerProcessor = (_, found) => (Pcm = found);
  await import("../src/worklet.js");
  return new Pcm();
}

const PIECE = 3200;
const speak = (byte, size = PIECE) => sound.onmessage({ data: new Uint8Array(size).fill(byte).buffer });

test("sound that is refused ends the session with the code of the refusal", async () => {
  const sent = plugin({ code: "inbound_full", detail: "too slow" });
  const session = await live({});
  for (const byte of [1, 2, 3]) speak(byte);
  await assert.rejects(session.done, { code: "inbound_full" });
  await assert.rejects(session.finish(), { code: "inbound_full" });
  assert.deepEqual(sent, [Array(PIECE).fill(1)]);
});

test("session that is over leaves its end to its events", async () => {
  plugin({ code: "session_over", detail: "" });
  const session = await live({});
  for (const byte of [1, 2]) speak(byte);
  await session.close();
  assert.equal(await Promise.race([session.done, Promise.resolve("open")]), "open");
});

test("last samples before the end are sent", async () => {
  const sent = plugin(null);
  const session = await live({});
  for (const [byte, size] of [[1, PIECE], [2, 256], [3, 2]]) speak(byte, size);
  void session.finish();
  while (sent.length < 2) await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(sent.map((one) => one.length), [PIECE, 258]);
  assert.deepEqual(sent[1].slice(-3), [2, 3, 3]);
});

test("audio thread keeps no sample for itself and interleaves two channels", async () => {
  const processor = await thread();
  processor.process([[new Float32Array([0, 1])]]);
  processor.process([[new Float32Array([0, 1]), new Float32Array([-1, -2])]]);
  processor.process([[]]);
  assert.deepEqual(processor.sent, [[0, 32767], [0, -32767, 32767, -32767]]);
});

test("two channels are asked for only where the options say so", async () => {
  plugin(null);
  await live({});
  assert.equal(node.channelCount, 1);
  await live({}, { channels: 2 });
  assert.equal(node.channelCount, 2);
});

/** Sessions of live audio, with a plugin and an audio thread of our own: `npm test`. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { mockIPC } from "@tauri-apps/api/mocks";

globalThis.window = globalThis;
let sound;
globalThis.AudioContext = class {
  audioWorklet = { addModule: async () => {} };
  createMediaStreamSource = () => ({ connect() {} });
  async resume() {}
  async close() {}
};
globalThis.AudioWorkletNode = class {
  constructor() {
    sound = this.port = {};
  }
};
const { live } = await import("../src/live.js");

/** A plugin that refuses the second piece of sound with `refusal`; `sent`: the bytes that it took. */
function plugin(refusal) {
  const sent = [];
  mockIPC((command, payload) => {
    if (command !== "plugin:vibevoice-asr|live_send") return null;
    if (sent.length) throw refusal;
    sent.push([...payload]);
    return null;
  });
  return sent;
}

const speak = (byte) => sound.onmessage({ data: new Uint8Array([byte]).buffer });

test("sound that is refused ends the session with the code of the refusal", async () => {
  const sent = plugin({ code: "inbound_full", detail: "too slow" });
  const session = await live({});
  for (const byte of [1, 2, 3]) speak(byte);
  await assert.rejects(session.done, { code: "inbound_full" });
  await assert.rejects(session.finish(), { code: "inbound_full" });
  assert.deepEqual(sent, [[1]]);
});

test("session that is over leaves its end to its events", async () => {
  plugin({ code: "session_over", detail: "" });
  const session = await live({});
  for (const byte of [1, 2]) speak(byte);
  await session.close();
  assert.equal(await Promise.race([session.done, Promise.resolve("open")]), "open");
});

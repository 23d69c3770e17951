/** Downloads of models, with a plugin of our own. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { mockIPC } from "@tauri-apps/api/mocks";

globalThis.window = globalThis;
const { pullModel } = await import("../src/index.js");

test("pull that is aborted is cancelled by its name and rejected", async () => {
  const abort = new AbortController();
  let asked;
  mockIPC((command, payload) => {
    if (command === "plugin:vibevoice-asr|pull_model")
      return new Promise((_, reject) => {
        asked = { ...payload, reject };
        abort.abort();
      });
    assert.equal(command, "plugin:vibevoice-asr|cancel");
    assert.equal(payload.job, asked.job);
    return asked.reject({ code: "cancelled", detail: "" });
  });
  const pulling = pullModel("whisper:small", { signal: abort.signal });
  await assert.rejects(pulling, { code: "cancelled" });
  assert.equal(asked.name, "whisper:small");
  await assert.rejects(pullModel("x", { signal: abort.signal }), { name: "SpeechError", code: "cancelled" });
});

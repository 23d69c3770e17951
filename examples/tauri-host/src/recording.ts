/** A recording: dropped or chosen, transcribed with its progress, cancelled. */

import { getCurrentWebview } from "@tauri-apps/api/webview";
import { open } from "@tauri-apps/plugin-dialog";
import { SpeechError, transcribe } from "tauri-plugin-vibevoice-asr-api";
import { element, say } from "./element";
import { language } from "./model";
import { left, textOf } from "./texts";
import { lineOf, showTranscript } from "./transcript";

const EXTENSIONS = ["wav", "mp3", "m4a", "mp4", "ogg", "opus", "flac", "webm", "aac", "mov", "mkv"];
const bar = element<HTMLProgressElement>("bar");
const result = element("result");
let running: ReturnType<typeof transcribe> | null = null;

/** Make the page alive. */
export function showRecording() {
  element("drop").addEventListener("click", async () => {
    const path = await open({ filters: [{ name: "Recordings", extensions: EXTENSIONS }] });
    if (path) await begin(path);
  });
  element("cancel").addEventListener("click", () => void running?.cancel());
  void getCurrentWebview().onDragDropEvent(({ payload }) => {
    element("drop").classList.toggle("over", payload.type === "enter" || payload.type === "over");
    if (payload.type === "drop" && payload.paths[0]) void begin(payload.paths[0]);
  });
}

async function begin(path: string) {
  if (running) return; // one after the other: the bar is for one
  const name = path.split(/[\\/]/).pop() ?? path;
  element("work-name").textContent = name;
  element("left").textContent = "";
  bar.removeAttribute("value");
  say("message", "");
  show(true);
  result.replaceChildren();
  running = transcribe(path, {
    language: language(),
    onQueued: (position) => position && say("left", `${position} before it`),
    onProgress: ({ fraction, secondsLeft }) => {
      if (fraction !== null) bar.value = fraction;
      element("left").textContent = left(secondsLeft);
      element("left").hidden = false;
    },
    onSegment: (index, segment) => {
      result.hidden = false;
      const [line, old] = [lineOf(segment, false), result.children[index]];
      if (old) old.replaceWith(line);
      else result.append(line);
    },
    onAgain: () => {
      result.replaceChildren();
      bar.removeAttribute("value");
      element("left").textContent = "From the beginning, after a crash";
    },
  });
  try {
    showTranscript(result, await running, name);
  } catch (error) {
    result.replaceChildren();
    result.hidden = true;
    const cancelled = error instanceof SpeechError && error.code === "cancelled";
    say("message", cancelled ? "Cancelled." : textOf(error));
  } finally {
    running = null;
    show(false);
  }
}

function show(working: boolean) {
  element("work").hidden = !working;
  element("drop").hidden = working;
  element("drop").classList.toggle("small", result.childElementCount > 0);
}

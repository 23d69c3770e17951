/** A transcript on the page: its speakers, copying and exporting it. */

import { invoke } from "@tauri-apps/api/core";
import { save } from "@tauri-apps/plugin-dialog";
import type { Segment, Transcript } from "tauri-plugin-vibevoice-asr-api";
import { made } from "./element";
import { clock, textsOf } from "./texts";

/** "Speaker 1" of `Speaker_0`, or the name of somebody known. */
export function speakerOf({ speaker, name }: Segment): string {
  if (name) return name;
  const number = /^Speaker_(\d+)$/.exec(speaker)?.[1];
  return number === undefined ? speaker || "Sound" : `Speaker ${Number(number) + 1}`;
}

/** One line of what was said. */
export function lineOf(segment: Segment, sure = true): HTMLElement {
  const line = made("article", sure ? "" : "unsure");
  const number = Number(/\d+$/.exec(segment.speaker)?.[0] ?? 0);
  line.style.setProperty("--hue", String((number * 137 + 235) % 360));
  line.append(made("time", "", clock(segment.start_time)), made("b", "", speakerOf(segment)));
  line.append(made("p", "", segment.text.trim()));
  return line;
}

/** Show all of it in a place, with what can be done with it. */
export function showTranscript(place: HTMLElement, transcript: Transcript, name: string) {
  const { segments, metadata } = transcript;
  const bar = made("div", "line");
  const speakers = metadata.num_speakers;
  const about = `${clock(metadata.duration)} · ${speakers} ${speakers === 1 ? "speaker" : "speakers"}`;
  const buttons = made("span");
  const copy = made("button", "", "Copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(textFile(segments));
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  });
  const export_ = made("button", "", "Export …");
  export_.addEventListener("click", () => void exportTo(transcript, name));
  buttons.append(copy, export_);
  bar.append(made("span", "about", about), buttons);
  const warnings = textsOf(metadata.warnings).map((text) => made("p", "warning", text));
  const lines = segments.map((segment) => lineOf(segment));
  if (!lines.length) lines.push(made("p", "about", "Nobody speaks in this recording."));
  place.replaceChildren(bar, ...warnings, ...lines);
  place.hidden = false;
}

async function exportTo(transcript: Transcript, name: string) {
  const path = await save({
    defaultPath: `${name.replace(/\.\w+$/, "")}.txt`,
    filters: [
      { name: "Text", extensions: ["txt"] },
      { name: "Subtitles", extensions: ["srt"] },
      { name: "JSON", extensions: ["json"] },
    ],
  });
  if (path) await invoke("save_text", { path, text: fileOf(path, transcript) });
}

/** The transcript in the format that a file's name asks for. */
export function fileOf(path: string, transcript: Transcript): string {
  if (path.endsWith(".json")) return JSON.stringify(transcript, null, 2);
  return path.endsWith(".srt") ? subtitles(transcript.segments) : textFile(transcript.segments);
}

function textFile(segments: Segment[]): string {
  return segments.map((one) => `[${clock(one.start_time)}] ${speakerOf(one)}: ${one.text.trim()}\n`).join("");
}

function subtitles(segments: Segment[]): string {
  const at = (seconds: number) => new Date(1000 * seconds).toISOString().slice(11, 23).replace(".", ",");
  return segments
    .map((one, index) => `${index + 1}\n${at(one.start_time)} --> ${at(one.end_time)}\n${one.text.trim()}\n\n`)
    .join("");
}

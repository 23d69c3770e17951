import { invoke, Channel } from "@tauri-apps/api/core";
import { open } from "@tauri-apps/plugin-dialog";

type Segment = { speaker: string; start_time: number; end_time: number; text: string };
type Step = { fraction: number | null; segments: Segment[] };
type Warning = { code: string; message: string };
type Metadata = { duration: number; language: string; num_speakers: number; engine: string; warnings: Warning[] };
type Transcription = { segments: Segment[]; metadata: Metadata };
export type Options = { language?: string; num_speakers?: number; diarize?: boolean; prompt?: string };

const WARNINGS: Record<string, string> = {
  language_doubtful: "This app transcribes English only; this recording seems to be in another language.",
};

export async function transcribe(bar: HTMLProgressElement, list: HTMLElement, options: Options = {}) {
  const path = await open({ filters: [{ name: "Audio", extensions: ["wav", "mp3", "m4a", "ogg", "opus", "flac", "webm", "mp4"] }] });
  if (!path) return;
  const show = (segments: Segment[]) => {
    list.replaceChildren(...segments.map(({ speaker, text }) => {
      const line = document.createElement("p");
      line.textContent = `${speaker}: ${text}`; // never innerHTML: it is what somebody said
      return line;
    }));
  };
  const onStep = new Channel<Step>();
  onStep.onmessage = ({ fraction, segments }) => {
    fraction === null ? bar.removeAttribute("value") : (bar.value = fraction);
    show(segments);
  };
  try {
    const { segments, metadata } = await invoke<Transcription>("transcribe", { path, options, onStep });
    show(segments); // who is who is settled at the end: names may change once more
    for (const { code, message } of metadata.warnings) {
      const line = document.createElement("p");
      line.textContent = WARNINGS[code] ?? message;
      list.prepend(line);
    }
  } catch (reason) {
    list.textContent = String(reason);
  }
}

export const cancel = () => invoke("cancel");

import { invoke, Channel } from "@tauri-apps/api/core";
import { open } from "@tauri-apps/plugin-dialog";

type Segment = { speaker: string; start_time: number; end_time: number; text: string };
type Step = { loading: boolean; fraction: number | null; secondsLeft: number | null };
type Warning = { code: string; message: string };
type Metadata = { duration: number; language: string; num_speakers: number; engine: string; warnings: Warning[] };
type Transcription = { segments: Segment[]; metadata: Metadata };
export type Options = { language?: string; num_speakers?: number; diarize?: boolean; prompt?: string };

const WARNINGS: Record<string, string> = {
  language_doubtful: "This app transcribes English only; this recording seems to be in another language.",
};

// By the code of docs/errors.md, and `not_started`, `unreachable`, `strange`, `app` of lib.rs.
type Failure = { code: string; detail: string };

const ERRORS: Record<string, string> = {
  language_unsupported: "This app transcribes English only.",
  audio_path_not_found: "The file is not there any more.",
  audio_path_forbidden: "This app may not read the file.",
  audio_empty: "The file is empty.",
  audio_format_unsupported: "The file is not a recording.",
  audio_undecodable: "The recording is damaged, or has no sound.",
  not_started: "Speech recognition does not start. Please install the app again.",
};

export async function transcribe(bar: HTMLProgressElement, list: HTMLElement, options: Options = {}) {
  const path = await open({ filters: [{ name: "Audio", extensions: ["wav", "mp3", "m4a", "ogg", "opus", "flac", "webm", "mp4"] }] });
  if (!path) return;
  const onStep = new Channel<Step>();
  onStep.onmessage = ({ loading, fraction, secondsLeft }) => {
    bar.title = loading ? "Loading the model" : secondsLeft === null ? "" : `${Math.ceil(secondsLeft)} s left`;
    fraction === null ? bar.removeAttribute("value") : (bar.value = fraction);
  };
  try {
    const { segments, metadata } = await invoke<Transcription>("transcribe", { path, options, onStep });
    list.replaceChildren(...segments.map(({ speaker, text }) => {
      const line = document.createElement("p");
      line.textContent = `${speaker}: ${text}`; // never innerHTML: it is what somebody said
      return line;
    }));
    for (const { code, message } of metadata.warnings) {
      console.warn(code, message); // for developers, like the detail of an error
      if (!WARNINGS[code]) continue;
      const line = document.createElement("p");
      line.textContent = WARNINGS[code];
      list.prepend(line);
    }
  } catch (reason) {
    const { code, detail } = reason as Failure;
    console.error(code, detail);
    if (code !== "cancelled") list.textContent = ERRORS[code] ?? `Transcription failed (${code}).`;
  }
}

export const cancel = () => invoke("cancel");

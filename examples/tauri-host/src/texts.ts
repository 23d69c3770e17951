/** What users read: errors by the codes of docs/errors.md and of the plugin, warnings by theirs. */

import { SpeechError } from "tauri-plugin-vibevoice-asr-api";

const ERRORS: Record<string, string> = {
  audio_path_not_found: "The file is not there any more.",
  audio_path_forbidden: "This app may not read the file.",
  audio_path_not_a_file: "That is no file.",
  audio_empty: "The file is empty.",
  audio_format_unsupported: "The file is not a recording that can be read.",
  audio_undecodable: "The recording is damaged, or has no sound.",
  language_unsupported: "This language cannot be transcribed here.",
  hub_unreachable: "The download is not possible now. Is this computer online?",
  model_load_failed: "The model does not run on this computer.",
  disk_full: "The disk is full.",
  wont_fit: "The recording is too long for the memory of this computer.",
  engine_crashed: "Speech recognition crashed twice with this recording.",
  live_unavailable: "Live transcription is not available here.",
  live_full: "Too much is being transcribed at once. Please try again later.",
  inbound_full: "This computer is too slow for live transcription just now.",
  not_started: "Speech recognition does not start. Please install the app again.",
  stopped: "Speech recognition is off.",
  unreachable: "Speech recognition stopped unexpectedly. Please try again.",
};

const WARNINGS: Record<string, string> = {
  language_doubtful: "This app transcribes English; this recording seems to be in another language.",
  audio_truncated: "The recording is incomplete: this is what could be read of it.",
};

/** A text for an error; its details are for the console. */
export function textOf(error: unknown): string {
  console.error(error);
  const code = error instanceof SpeechError ? error.code : "app";
  return ERRORS[code] ?? `That did not work (${code}).`;
}

/** Texts for those warnings that users should know of. */
export function textsOf(warnings: { code: string }[]): string[] {
  return warnings.flatMap(({ code }) => WARNINGS[code] ?? []);
}

/** Bytes as 484 MB or 1.5 GB. */
export function size(bytes: number): string {
  return bytes < 1e9 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** Seconds as 1:05 or 1:02:05. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number: number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** How long it will take, in words. */
export function left(seconds: number | null): string {
  if (seconds === null) return "";
  if (seconds < 1.5) return "almost done";
  return seconds < 60 ? `${Math.ceil(seconds)} seconds left` : `${clock(seconds)} left`;
}

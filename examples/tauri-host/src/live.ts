/** The microphone: words while somebody speaks. */

import { live, type LiveEvent, type LiveSession, type Segment } from "tauri-plugin-vibevoice-asr-api";
import { element, say } from "./element";
import { textOf } from "./texts";
import { lineOf, showTranscript } from "./transcript";

const button = element("speak");
const result = element("live-result");
/** There from the click on: words may come before it has begun. */
let session: Promise<LiveSession> | null = null;
let stream: MediaStream | null = null;
/** What is shown, by the number of its piece: finals replace partials, and speakers are revised. */
let pieces = new Map<number, { segment: Segment; sure: boolean }>();

/** Make the page alive. */
export function showLive() {
  button.addEventListener("click", () => void (session ? stop() : start()));
}

async function start() {
  label("Starting …", false);
  say("live-message", "");
  pieces = new Map();
  show();
  session = begin();
  try {
    const begun = await session;
    label("Stop", true);
    ended(await begun.done);
  } catch (error) {
    failed(error);
  }
}

async function begin() {
  const channels = element<HTMLInputElement>("stereo").checked ? 2 : 1;
  const both = { channelCount: 2, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  stream = await navigator.mediaDevices.getUserMedia({ audio: channels === 2 ? both : true });
  return live(stream, { onEvent: told, channels });
}

async function stop() {
  try {
    const begun = await session;
    label("Finishing …", true);
    await begun?.finish();
  } catch {
    // `failed` says it.
  }
}

function told(event: LiveEvent) {
  if (event.type === "partial") {
    const { start, end, text, tail } = event;
    const segment = { speaker: "", start_time: start, end_time: end, text: `${text} ${tail}` };
    pieces.set(event.piece, { segment, sure: false });
  } else if (event.type === "final") pieces.set(event.piece, { segment: event.segment, sure: true });
  else if (event.type === "speakers_revised") {
    for (const [piece, speaker] of Object.entries(event.speakers)) {
      const shown = pieces.get(Number(piece));
      if (shown) shown.segment.speaker = speaker;
    }
  } else if (event.type === "notice" && event.code === "engine_loading") label("Loading …", true);
  else return;
  if (event.type !== "notice") label("Stop", true);
  show();
}

function show() {
  const lines = [...pieces.values()].filter(({ segment }) => segment.text.trim());
  result.replaceChildren(...lines.map(({ segment, sure }) => lineOf(segment, sure)));
  result.hidden = !lines.length;
  result.lastElementChild?.scrollIntoView({ block: "nearest" });
}

function ended(transcript: Awaited<LiveSession["done"]>) {
  if (transcript) showTranscript(result, transcript, "microphone");
  rest();
}

function failed(error: unknown) {
  const refused = error instanceof DOMException; // by the browser, or there is none
  const text = refused ? "There is no microphone, or this app may not use it." : textOf(error);
  say("live-message", text); // what was heard stays
  rest();
}

function rest() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  [session, stream] = [null, null];
  label("Start listening", false);
}

function label(text: string, pressed: boolean) {
  button.lastElementChild!.textContent = text;
  button.setAttribute("aria-pressed", String(pressed));
}

/** A take: what is said while it is said, and what can be done with it once it is over. */

import { NO_REMEDY, place, standing, Warnings } from "./aside.js";
import { everythingOf } from "./captions.js";
import { keepTalks } from "./memory.js";
import { Reading } from "./pane.js";
import { voices } from "./timeline.js";
import { Downloads, Head, html, icon, Meter, save, Sure, Trouble, useEffect, useEnd, useRef, useState } from "./view.js";
import { clock, counted, nameOf, textOf } from "./words.js";

/** Beyond so many seconds that the service has not got, it is said. */
const BEHIND_S = 3;
const ANNOUNCED = 3;

const SAID = {
  opening: "Starting. You can speak already: nothing is lost.",
  live: "Listening. Speakers may still change.",
  paused: "Paused. Nothing is transcribed.",
  recording: "The captions have stopped. The audio is recorded, and captioned as soon as that works again.",
  ending: "Transcribing the last words.",
};

export const TakePane = (props) =>
  props.take.source === "file" ? html`<${FilePane} ...${props} />` : props.take.source === "microphone" && props.take.state === "recording" ? html`<${RecorderPane} ...${props} />` : html`<${SpokenPane} ...${props} />`;

/** What is shown is deleted: the focus goes to the list. */
function leave(take, recordings) {
  recordings.select("");
  recordings.recorder.drop(take.id);
  document.querySelector(".job .pick, .intake .main")?.focus();
}

/** A file on its way, or why it is no transcript and what to do. */
function FilePane({ take, recordings }) {
  const { id, name, error, state } = take;
  const failed = state === "kept" && error;
  return html`<main class="pane" id="main" tabindex="-1" aria-label=${name}>
    <${Head} title=${name} facts=${failed ? "Not transcribed" : standing(take)} recordings=${recordings} />
    ${failed && html`<${Trouble} error=${error} />
    <div class="choice">
      ${!NO_REMEDY.has(error.code) && html`<button type="button" class="main" onClick=${() => recordings.recorder.send(id)}>Try again</button>`}
      <button type="button" onClick=${() => leave(take, recordings)}>Remove it from the list</button>
    </div>`}
  </main>`;
}

/** The microphone while it is recorded: how long, how loud, and how it ends. */
function RecorderPane({ take, recordings }) {
  const { recorder } = recordings;
  const [muted, setMuted] = useState(false);
  const microphone = recorder.going(take.id);
  useEffect(() => document.getElementById("main").focus({ preventScroll: true }), []);
  return html`<main class="pane" id="main" tabindex="-1" aria-label=${take.name}>
    <${Head} title=${take.name} facts="Recording. The transcript follows once you stop." recordings=${recordings} />
    <div class="recording talking" role="group" aria-label="Recording" data-state="live">
      <${Meter} source=${microphone} seen=${() => setMuted(microphone.muted)} />
      <button type="button" class="main" onClick=${() => microphone.end()}>${icon("stop")} Stop and send</button>
      ${recorder.own(take) && html`<button type="button" aria-label="Discard this recording" onClick=${() => document.getElementById("sure-recording").showModal()}>${icon("trash")} Discard</button>`}
      <${Warnings} sound=${take.sound} muted=${muted} />
      <${Sure} id="sure-recording" title="Discard" act=${() => leave(take, recordings)}>Discard what was recorded?<//>
    </div>
  </main>`;
}

function SpokenPane({ take, state, recordings }) {
  const { recorder } = recordings;
  const over = take.state !== "recording";
  const { talk } = take;
  const [file, setFile] = useState(take.file);
  const { seconds } = take.sound;
  useEffect(() => {
    if (over && seconds > 0) recorder.file(take.id).then(setFile, () => {}); // said where it is sent or saved
  }, [over]);
  const facts = over ? [seconds > 0 && clock(seconds), take.segments.length > 0 && counted(voices(take.segments).length, "speaker"), place(take.sound)] : [SAID[take.live]];
  const job = { id: take.id, state: over ? "done" : "running", duration: seconds, progress: {}, peaks: over && talk?.peaks, live: true, gone: true, silent: over && !seconds };
  const shown = { segments: take.segments, revision: take.revision ?? -1, final: over };
  const stopped = over || take.live === "recording";
  return html`<main class="pane" id="main" tabindex="-1" aria-label=${take.name}>
    <${Head} title=${take.name} facts=${facts.filter(Boolean).join(" · ")} recordings=${recordings}>
      ${over && html`<${Kept} take=${take} state=${state} recordings=${recordings} />`}
    <//>
    ${!over && html`<${Controls} take=${take} live=${talk} />`}
    ${take.error && html`<${Trouble} error=${take.error}>${!over && html`<button type="button" onClick=${() => talk.again()}>Try again</button>`}<//>`}
    ${!over && talk.behind > BEHIND_S && html`<p class="notice" role="status">The service does not answer. What is said is kept, and sent as soon as it does.</p>`}
    ${!over && html`<${Warnings} sound=${take.sound} muted=${talk.muted} />`}
    ${talk?.captions.notices.filter((one) => !stopped || one.code !== "partials_late").map((one) => html`<p class="notice" key=${one.code}>${one.message}</p>`)}
    ${take.state !== "done" && take.gaps?.length > 0 && html`<p class="notice" role="status">Words may be missing from ${take.gaps.map((one) => one.map(clock).join(" to ")).join(", ")}: that was not transcribed. The audio is kept: transcribe it again${over ? "" : " once you have stopped"}.</p>`}
    <${Reading} job=${job} shown=${shown} file=${file} recordings=${recordings} />
    ${!over && html`<${Tail} take=${take} />`}
    <div class="unseen" role="log" aria-live="polite" aria-relevant="additions" aria-label="Captions">
      ${!over && take.segments.slice(-ANNOUNCED).map((one, i) => html`<p key=${Math.max(0, take.segments.length - ANNOUNCED) + i}>${nameOf(one)}: ${one.text}</p>`)}
    </div>
  </main>`;
}

function Controls({ take, live }) {
  const paused = take.live === "paused";
  const mayPause = paused || take.live === "live";
  useEffect(() => document.getElementById("main").focus({ preventScroll: true }), []); // on a phone what had it is gone
  return html`<div class="recording talking" role="group" aria-label="Live captions" data-state=${take.live}>
    <${Meter} source=${live} />
    <button type="button" disabled=${!mayPause} onClick=${() => live.pause(!paused)}>${icon(paused ? "mic" : "pause")} ${paused ? "Resume" : "Pause"}</button>
    <label class="check"><input type="checkbox" checked=${live.keeps} disabled=${take.live === "ending"} onChange=${(event) => (keepTalks(event.target.checked), live.keep(event.target.checked))} /> Keep as a transcript</label>
    <button type="button" class="main" disabled=${take.live === "ending"} onClick=${() => live.end()}>${icon("stop")} Stop</button>
  </div>`;
}

/** What is being said. The page goes along while somebody reads its end. */
function Tail({ take }) {
  const end = useEnd(take.revision);
  return html`<div ref=${end} class="tail">
    ${take.tail.map(({ piece, sure, unsure }) => html`<p key=${piece} dir="auto">${sure}<span class="quiet">${unsure}</span></p>`)}
  </div>`;
}

/** What can be done with one that is over. */
function Kept({ take, state, recordings }) {
  const { recorder } = recordings;
  const again = useRef(null);
  const heard = state.jobs.some((one) => one.id === take.job);
  const sends = ["waiting", "sending", "sent"].includes(take.state);
  const { segments } = take;
  useEffect(() => {
    if (!document.activeElement || document.activeElement === document.body) again.current?.focus(); // what had it is gone
  }, []);
  const taken = (text) => (ending) => save(text, `${take.name}.${ending}`);
  const items = [
    segments.length > 0 && ["Text for Word (no times)", "txt", taken(textOf(segments))],
    segments.length > 0 && ["Everything", "json", taken(`${JSON.stringify(everythingOf(segments, take.talk?.captions), null, 2)}\n`)],
    take.sound.count > 0 && ["The audio", take.sound.ending, () => recorder.save(take.id)],
  ];
  return html`<div class="choice">
    ${heard && html`<button ref=${again} type="button" class="main" onClick=${() => recordings.select(take.job)}>Show it heard again</button>`}
    ${(!heard || take.lacks) && take.sound.count > 0 && html`<button ref=${again} type="button" class="main" disabled=${sends} onClick=${() => recorder.send(take.id)}>${icon("listen")} ${segments.length ? "Transcribe it again in full" : "Transcribe it"}</button>`}
    <${Downloads} items=${items} />
    <button type="button" class="bare" aria-label=${`Discard ${take.name}`} onClick=${() => document.getElementById("sure-talk").showModal()}>${icon("trash")}</button>
    <${Sure} id="sure-talk" title="Discard" act=${() => leave(take, recordings)}>Discard <strong>${take.name}</strong>, with its audio?<//>
  </div>
  ${!heard && take.sound.count > 0 && segments.length > 0 && html`<p class="quiet kept">Transcribed again as a recording, it has its speakers told apart anew, can be edited, and has every format.</p>`}`;
}

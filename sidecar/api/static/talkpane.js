/** A live talk: what is said while it is said, and what can be done with it once it is over. */

import { tailOf } from "./captions.js";
import { keepTalks } from "./memory.js";
import { Reading } from "./pane.js";
import { NO_SOUND } from "./recorder.js";
import { save } from "./saving.js";
import { textOf } from "./talks.js";
import { voices } from "./timeline.js";
import { html, icon, Trouble, useEffect, useLayoutEffect, useMemo, useRef } from "./view.js";
import { clock, counted, nameOf } from "./words.js";

/** Beyond so many seconds that the service has not got, it is said. */
const BEHIND_S = 3;
/** So near the end of the page somebody reads along. */
const NEAR_PX = 120;
const ANNOUNCED = 3;

const SAID = {
  opening: "Starting. You can speak already: nothing is lost.",
  live: "Listening. Speakers may still change.",
  paused: "Paused. Nothing is transcribed.",
  recording: "The captions have stopped. The audio is recorded until you stop.",
  ending: "Transcribing the last words.",
};

export function TalkPane({ talk, state, recordings }) {
  const over = talk.state === "over";
  const stopped = over || talk.state === "recording";
  const live = recordings.talks.get(talk.id);
  const facts = over
    ? [clock(talk.seconds), talk.segments.length > 0 && counted(voices(talk.segments).length, "speaker"), "only in this page"]
    : [SAID[talk.state]];
  const peaks = useMemo(() => (over ? live?.peaks : null), [over]);
  const job = { id: talk.id, state: over ? "done" : "running", duration: talk.seconds, progress: {}, peaks, live: true };
  const shown = { segments: talk.segments, revision: talk.revision, final: over };
  return html`<main class="pane" id="main" tabindex="-1" aria-label=${talk.name}>
    <div class="head">
      <button type="button" class="bare back" aria-label="Back to the recordings" onClick=${() => recordings.select("")}>${icon("back")}</button>
      <div class="title"><h1>${talk.name}</h1><p class="quiet">${facts.filter(Boolean).join(" · ")}</p></div>
      ${over && html`<${Kept} talk=${talk} state=${state} recordings=${recordings} />`}
    </div>
    ${!over && live && html`<${Controls} talk=${talk} live=${live} />`}
    ${talk.error && html`<${Trouble} error=${talk.error} />`}
    ${!over && talk.behind > BEHIND_S && html`<p class="notice" role="status">The service does not answer. What is said is kept, and sent as soon as it does.</p>`}
    ${talk.muted && html`<p class="notice" role="status">${NO_SOUND}</p>`}
    ${talk.captions?.notices.filter((one) => !stopped || one.code !== "partials_late").map((one) => html`<p class="notice" key=${one.code}>${one.message}</p>`)}
    <${Reading} job=${job} shown=${shown} file=${talk.file} recordings=${recordings} />
    ${!over && html`<${Tail} talk=${talk} />`}
    <div class="unseen" role="log" aria-live="polite" aria-relevant="additions" aria-label="Captions">
      ${!over && talk.segments.slice(-ANNOUNCED).map((one, i) => html`<p key=${Math.max(0, talk.segments.length - ANNOUNCED) + i}>${nameOf(one)}: ${one.text}</p>`)}
    </div>
  </main>`;
}

function Controls({ talk, live }) {
  const meter = useRef(null);
  const time = useRef(null);
  const paused = talk.state === "paused";
  const mayPause = paused || talk.state === "live";
  useEffect(() => document.getElementById("main").focus({ preventScroll: true }), []); // on a phone what had it is gone
  useEffect(() => {
    let frame = 0;
    const show = () => {
      if (meter.current) meter.current.value = live.level;
      if (time.current) time.current.textContent = clock(live.seconds);
      frame = requestAnimationFrame(show);
    };
    show();
    return () => cancelAnimationFrame(frame);
  }, [live]);
  return html`<div class="recording talking" role="group" aria-label="Live captions" data-state=${talk.state}>
    <span class="dot" aria-hidden="true"></span><span ref=${time} class="time">0:00</span>
    <meter ref=${meter} min="0" max="1" aria-label="Loudness"></meter>
    <button type="button" disabled=${!mayPause} onClick=${() => live.pause(!paused)}>${icon(paused ? "mic" : "pause")} ${paused ? "Resume" : "Pause"}</button>
    <label class="check"><input type="checkbox" checked=${talk.keeps} disabled=${!mayPause} onChange=${(event) => (keepTalks(event.target.checked), live.keep(event.target.checked))} /> Keep as a transcript</label>
    <button type="button" class="main" disabled=${talk.state === "ending"} onClick=${() => live.end()}>${icon("stop")} Stop</button>
  </div>`;
}

/** What is being said. The page goes along while somebody reads its end. */
function Tail({ talk }) {
  const near = useRef(true);
  const end = useRef(null);
  useLayoutEffect(() => {
    const node = end.current;
    const look = () => (near.current = node.getBoundingClientRect().top <= innerHeight + NEAR_PX);
    addEventListener("scroll", look, { passive: true });
    return () => removeEventListener("scroll", look);
  }, []);
  useLayoutEffect(() => {
    if (near.current) end.current.scrollIntoView({ block: "nearest", behavior: "instant" });
  }, [talk.revision]);
  const said = talk.captions ? tailOf(talk.captions) : [];
  return html`<div ref=${end} class="tail">
    ${said.map(({ piece, sure, unsure }) => html`<p key=${piece}>${sure}<span class="quiet">${unsure}</span></p>`)}
  </div>`;
}

/** What can be done with a talk that is over. */
function Kept({ talk, state, recordings }) {
  const { talks } = recordings;
  const again = useRef(null);
  const heard = state.jobs.some((one) => one.id === talk.job);
  const sent = state.uploads.some((one) => one.file === talk.file);
  useEffect(() => {
    if (!document.activeElement || document.activeElement === document.body) again.current?.focus(); // what had it is gone
  }, []);
  const download = (content, ending) => {
    document.getElementById("formats").hidePopover?.();
    save(content, `${talk.name}.${ending}`);
    talks.saved(talk.id);
  };
  const whole = () => `${JSON.stringify(talk.captions?.summary ?? { segments: talk.segments }, null, 2)}\n`;
  const drop = () => {
    recordings.select("");
    talks.drop(talk.id);
    document.querySelector(".job .pick, .intake .main")?.focus();
  };
  return html`<div class="choice">
    ${heard
      ? html`<button ref=${again} type="button" class="main" onClick=${() => recordings.select(talk.job)}>Show it heard again</button>`
      : talk.seconds > 0 && html`<button ref=${again} type="button" class="main" disabled=${sent} onClick=${() => recordings.sending.send([talk.file])}>${icon("listen")} Transcribe it again in full</button>`}
    <button type="button" popovertarget="formats" aria-haspopup="true">${icon("down")} Download</button>
    <div id="formats" popover class="menu" role="group" aria-label="Download as">
      <button type="button" onClick=${() => download(textOf(talk.segments), "txt")}>Text for Word (no times) <span class="quiet">.txt</span></button>
      <button type="button" onClick=${() => download(whole(), "json")}>Everything <span class="quiet">.json</span></button>
      <button type="button" onClick=${() => download(talk.file, "wav")}>The audio <span class="quiet">.wav</span></button>
    </div>
    <button type="button" class="bare" aria-label=${`Discard ${talk.name}`} onClick=${() => document.getElementById("sure-talk").showModal()}>${icon("trash")}</button>
    <dialog id="sure-talk" aria-label="Discard it?" class="small">
      <p>Discard <strong>${talk.name}</strong>, with its audio? This cannot be undone.</p>
      <form method="dialog" class="choice">
        <button type="submit">Keep it</button>
        <button type="submit" class="danger" onClick=${drop}>Discard</button>
      </form>
    </dialog>
  </div>
  ${!heard && html`<p class="quiet kept">Transcribed again as a recording, it has its speakers told apart anew, can be edited, and has every format.</p>`}`;
}

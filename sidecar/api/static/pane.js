/** One recording: what was said, its timeline, and the sound of it where there is one. */

import { nameOf } from "./aside.js";
import { fateOf } from "./deleted.js";
import { Chosen, NotDone, Steps } from "./editing.js";
import { doubtfulOf } from "./marks.js";
import { Player } from "./player.js";
import { client } from "./session.js";
import { HowMany, SpeakerDialog } from "./speakers.js";
import { Overview, voices } from "./timeline.js";
import { TranscriptView } from "./transcript.js";
import { Downloads, Head, html, icon, save, Trouble, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./view.js";
import { about, clock, counted, languageOf, stateOf, textOf, trouble } from "./words.js";

/** So long before a transcript is deleted that is said, or in the last part of a short retention. */
const [EXPIRY_S, EXPIRY_SHARE] = [120, 0.35];
/** What a service warns of whose only language is probably another than the recording's. */
const DOUBTFUL = "language_doubtful";

/** What a person on the page can do about a warning, in place of the words for programs. */
const ADVICE = {
  channels_differ: "Each channel seems to have its own speaker. With the option “One person on each channel” their words and names are exact: switch it on under Options, and add the recording again.",
};
/** What the page can write by itself. */
const OWN_FORMATS = {
  plain: ({ segments, metadata }) => textOf(segments, metadata.diarized),
  json: ({ segments, metadata }) => `${JSON.stringify({ segments, metadata }, null, 2)}\n`,
};
const FORMATS = [
  ["plain", "Text for Word (no times)", "txt"],
  ["text", "Text with times", "txt"],
  ["srt", "Subtitles", "srt"],
  ["vtt", "Subtitles for the web", "vtt"],
  ["tsv", "Table", "tsv"],
  ["rttm", "Speaker turns", "rttm"],
  ["json", "Everything", "json"],
];

export function Pane({ state, recordings, say }) {
  const there = state.jobs.find((one) => one.id === state.selected);
  const copy = there ? null : state.copies.get(state.selected);
  const job = there ?? (copy && { ...copy.job, recording: false, gone: true });
  const { shown, problem } = state;
  const row = there ? null : state.deleted.find((one) => one.id === state.selected);
  if (!state.selected || (!job && !problem))
    return html`<main class="pane quietly" id="main" tabindex="-1"><p class="quiet">${state.loaded ? "Choose a recording to read its transcript." : ""}</p></main>`;
  const name = job ? nameOf(state, job) : "A recording";
  return html`<main class="pane" id="main" tabindex="-1" aria-label=${name}>
    <${Title} job=${job} stored=${copy} name=${name} shown=${shown} recordings=${recordings} say=${say} />
    ${copy && html`<p class="notice" role="status">The service does not have this transcript any more. ${row ? `It ${fateOf(row)} ` : ""}${copy.kept ? "This copy is stored in this browser." : "It is in this tab only: download it to keep it."}</p>`}
    ${there && html`<${Expiry} job=${there} keeps=${state.about?.keeps_seconds} recordings=${recordings} />`}
    ${problem && html`<${Trouble} error=${row ? { ...problem, detail: `It ${fateOf(row)}` } : problem} />`}
    ${shown?.error && shown.error.code !== "job_cancelled" && html`<${Trouble} error=${shown.error} />`}
    ${shown?.error?.code === "job_cancelled" && html`<p class="quiet">It was cancelled. What had been transcribed until then is gone.</p>`}
    ${shown?.metadata?.warnings.map((one) => html`<p class="notice">${ADVICE[one.code] ?? one.message}</p>`)}
    ${shown?.metadata?.recognized_s !== undefined && html`<p class="notice">Words may be missing from ${clock(shown.metadata.recognized_s)} on.</p>`}
    ${job && shown && !shown.error && html`<${Reading} job=${job} shown=${shown} file=${recordings.files.get(job.id)} recordings=${recordings} people=${state.about?.people} consent=${state.about?.people_consent} say=${say} />`}
  </main>`;
}

/** How long the service still has the transcript, shortly before it deletes it. */
function Expiry({ job, keeps, recordings }) {
  const [, setTick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => setTick((before) => before + 1), 500);
    return () => clearInterval(timer);
  }, []);
  const seconds = (job.expires_at - performance.now()) / 1000;
  if (job.expires_at === null || !keeps || seconds > Math.min(EXPIRY_S, keeps * EXPIRY_SHARE)) return null;
  return html`<div class="notice expiry">
    <span role="status">The service is about to delete this transcript.</span> <span class="time" role="timer">${clock(seconds)}</span>
    <button type="button" onClick=${() => recordings.renew(job.id)}>Keep it longer</button>
    <button type="button" popovertarget="formats" aria-haspopup="true">${icon("down")} Download it</button>
  </div>`;
}

function Title({ job, stored, name, shown, recordings, say }) {
  const done = job?.state === "done";
  const said = shown?.final && shown.metadata;
  const facts = said
    ? [clock(said.duration), said.diarized && shown.segments.length > 0 && counted(voices(shown.segments).length, "speaker"), said.language !== "auto" && !said.warnings.some(({ code }) => code === DOUBTFUL) && languageOf(said.language), said.engine, said.processing_time && `took ${about(said.processing_time)}`]
    : [job && stateOf(job)];
  const written = (format) => (stored || format === "plain" ? OWN_FORMATS[format](shown) : client().transcript(job.id, format));
  const download = (format) => async (ending) => {
    try {
      save(await written(format), `${name.replace(/\.[^.]{1,5}$/, "")}${format === "text" ? "-times" : ""}.${ending}`);
    } catch (error) {
      say(trouble(error).detail);
    }
  };
  const [copied, setCopied] = useState("");
  const copy = async (format) => {
    document.getElementById("formats").hidePopover?.();
    try {
      await navigator.clipboard.writeText(await written(format));
      setCopied("Copied");
      say("Text copied.");
    } catch (error) {
      setCopied("Not copied");
      say(error.detail ?? "The browser does not let this page copy. Use Download.");
    }
    setTimeout(() => setCopied(""), 2500);
  };
  const offered = FORMATS.filter(([format]) => (format === "plain" ? said : !stored || OWN_FORMATS[format]));
  const items = offered.map(([format, words, ending]) => [words, ending, download(format)]);
  return html`<${Head} kind="slim" title=${name} facts=${facts.filter(Boolean).join(" · ")} recordings=${recordings}>
    ${done && (!stored || shown) && html`<div class="choice">
      <button type="button" onClick=${() => copy(stored ? "plain" : "text")}>${icon("copy")} <span class=${copied ? "" : "label"}>${copied || "Copy"}</span></button>
      <${Downloads} items=${items}>${!stored && said && html`<button type="button" onClick=${() => copy("plain")}>Copy without times</button>`}<//>
    </div>`}
  <//>`;
}

/** What was said so far, and its sound. Of a talk that goes on there is nothing to play yet. */
export function Reading({ job, shown, file, recordings, people, consent, say }) {
  const list = useRef(null);
  const view = useRef(null);
  const audio = useRef(null);
  const seek = useRef(() => {});
  const move = useRef(() => {});
  const [chosen, setChosen] = useState([]);
  const [speaker, setSpeaker] = useState(null);
  const { segments, revision, edits } = shown;
  const { editing } = recordings;
  const duration = shown.metadata?.duration || job.duration || job.progress.audio_seconds_total || segments.at(-1)?.end_time || 0;
  useLayoutEffect(() => {
    view.current = new TranscriptView(list.current, {
      seek: (seconds, play) => seek.current(seconds, play),
      text: (index, text, seen) => (seen ? editing.apply([{ op: "text", segment: index, text }], "Segment corrected.") : editing.refuse()),
      fields: editing.fields,
      id: job.id,
      chosen: setChosen,
      speaker: setSpeaker,
    });
    return () => view.current.close();
  }, []);
  useLayoutEffect(() => {
    view.current.editable = Boolean(edits);
    view.current.update(segments);
  }, [segments, revision]);
  const lanes = useMemo(() => voices(segments), [segments, revision]);
  const doubtful = useMemo(() => segments.some((one, index) => doubtfulOf(one, index).length), [segments, revision]);
  const silent = shown.final && !segments.length && shown.metadata?.no_speech !== false;
  return html`
    ${(shown.final || !job.live) && !job.silent && html`<div class="deck">
      <${Overview} job=${job} shown=${shown} lanes=${lanes} duration=${duration} seek=${(at, play) => seek.current(at, play)} move=${move} audio=${audio} open=${edits && setSpeaker} />
      <div class="tools">
        <${Player} job=${job} file=${file} duration=${duration} audio=${audio} seek=${seek} moved=${(at, playing, follow) => (view.current.at(at, follow), move.current(at, playing))} recordings=${recordings} />
        ${edits && html`<${Steps} edits=${edits} editing=${editing} />`}
        ${edits && !(job.channels > 1) && !job.gone && html`<${HowMany} job=${job} editing=${editing} />`}
        <${Search} view=${view} segments=${segments} revision=${`${revision} ${shown.final}`} />
      </div>
      <${NotDone} wrong=${editing.wrong} editing=${editing} />
    </div>`}
    ${shown.final && doubtful && html`<p class="quiet doubtful">Words with a dotted line may be wrong.</p>`}
    ${silent && html`<p class="quiet">No speech was found in this recording.</p>`}
    <div ref=${list} class=${`said-list ${edits ? "editable" : ""}`} role="list" aria-label="Transcript" aria-busy=${shown.final ? "false" : "true"}></div>
    ${!shown.final && !job.live && html`<p class="growing quiet"><span class="dot" aria-hidden="true"></span>${job.state === "queued" ? "Waiting in the queue." : "Transcribing. Speakers may still change."}</p>`}
    <${Chosen} chosen=${chosen} lanes=${lanes} editing=${editing} view=${view} />
    ${edits && html`<${SpeakerDialog} speaker=${speaker} lanes=${lanes} job=${job} heard=${shown.metadata.speakers ?? []} people=${people} consent=${consent} editing=${editing} close=${() => setSpeaker(null)} say=${say} />`}
  `;
}

/** Looking for words in the transcript. */
function Search({ view, revision, segments }) {
  const [text, setText] = useState("");
  const [found, setFound] = useState({ count: 0, number: 0 });
  useEffect(() => {
    if (text) setFound(view.current.searched());
  }, [revision, segments]);
  const look = (event) => {
    setText(event.target.value);
    setFound(view.current.search(event.target.value));
  };
  const pressed = (event) => {
    if (event.key === "Enter") setFound(view.current.next(event.shiftKey ? -1 : 1));
    else if (event.key === "Escape") (setText(""), setFound(view.current.search("")));
    else return;
    event.preventDefault();
  };
  return html`<div class="search" role="search">
    ${icon("search")}
    <input type="search" aria-label="Search in the transcript" placeholder="Search" value=${text} onInput=${look} onKeyDown=${pressed} />
    <span class="quiet found" role="status">${text && (found.count ? `${found.number} of ${found.count}` : "none")}</span>
    <button type="button" class="bare" aria-label="Previous match" disabled=${!found.count} onClick=${() => setFound(view.current.next(-1))}>${icon("up")}</button>
    <button type="button" class="bare" aria-label="Next match" disabled=${!found.count} onClick=${() => setFound(view.current.next(1))}>${icon("next")}</button>
  </div>`;
}

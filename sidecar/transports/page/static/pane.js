/** One recording: what was said, its timeline, and the sound of it where the person has the file. */

import { nameOf } from "./aside.js";
import { client } from "./session.js";
import { draw, height, voices } from "./timeline.js";
import { TranscriptView } from "./transcript.js";
import { html, icon, Trouble, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./view.js";
import { about, clock, counted, numberOf, spoken, stateOf, trouble } from "./words.js";

const FORMATS = [
  ["text", "Text", "txt"],
  ["srt", "Subtitles", "srt"],
  ["vtt", "Subtitles for the web", "vtt"],
  ["tsv", "Table", "tsv"],
  ["rttm", "Who speaks when", "rttm"],
  ["json", "Everything", "json"],
];
const STEP_S = 5;
const FAR_S = 60;
const PEAKS_MS = 3000;
/** A file that differs more in length is hardly the one that was sent. */
const SAME_S = 2;

export function Pane({ state, recordings, say }) {
  const job = state.jobs.find((one) => one.id === state.selected);
  const { shown, problem } = state;
  if (!state.selected || (!job && !problem))
    return html`<main class="pane quietly" id="main" tabindex="-1"><p class="quiet">${state.loaded ? "Choose a recording to read what was said." : ""}</p></main>`;
  const name = job ? nameOf(state, job) : "A recording";
  return html`<main class="pane" id="main" tabindex="-1" aria-label=${name}>
    <${Head} job=${job} name=${name} shown=${shown} recordings=${recordings} say=${say} />
    ${problem && html`<${Trouble} error=${problem} />`}
    ${shown?.error && shown.error.code !== "job_cancelled" && html`<${Trouble} error=${shown.error} />`}
    ${shown?.error?.code === "job_cancelled" && html`<p class="quiet">It was cancelled. What had been heard until then is gone.</p>`}
    ${shown?.metadata?.warnings.map((one) => html`<p class="notice">${one.message}</p>`)}
    ${job && shown && !shown.error && html`<${Reading} job=${job} shown=${shown} file=${recordings.files.get(job.id)} recordings=${recordings} />`}
  </main>`;
}

function Head({ job, name, shown, recordings, say }) {
  const done = job?.state === "done";
  const said = shown?.final && shown.metadata;
  const facts = said
    ? [clock(said.duration), said.diarized && counted(said.num_speakers, "speaker"), said.language !== "auto" && said.language, `${said.engine}, ${said.model_precision}`, said.processing_time && `took ${about(said.processing_time)}`]
    : [job && stateOf(job)];
  const download = async (format, ending) => {
    document.getElementById("formats").hidePopover?.();
    try {
      const text = await client().transcript(job.id, format);
      const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([text])), download: `${name.replace(/\.[^.]{1,5}$/, "")}.${ending}` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    } catch (error) {
      say(trouble(error).detail);
    }
  };
  const [copied, setCopied] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(await client().transcript(job.id, "text"));
      setCopied("Copied");
      say("The text is copied.");
    } catch (error) {
      setCopied("Not copied");
      say(error.detail ?? "The browser does not let this page copy. Use Download, Text.");
    }
    setTimeout(() => setCopied(""), 2500);
  };
  return html`<div class="head">
    <button type="button" class="bare back" aria-label="Back to the recordings" onClick=${() => recordings.select("")}>${icon("back")}</button>
    <div class="title"><h1>${name}</h1><p class="quiet">${facts.filter(Boolean).join(" · ")}</p></div>
    ${done && html`<div class="choice">
      <button type="button" onClick=${copy}>${icon("copy")} ${copied || "Copy"}</button>
      <button type="button" popovertarget="formats" aria-haspopup="true">${icon("down")} Download</button>
      <div id="formats" popover class="menu" role="group" aria-label="Download as">
        ${FORMATS.map(([format, words, ending]) => html`<button type="button" onClick=${() => download(format, ending)}>${words} <span class="quiet">.${ending}</span></button>`)}
      </div>
    </div>`}
  </div>`;
}

function Reading({ job, shown, file, recordings }) {
  const list = useRef(null);
  const view = useRef(null);
  const audio = useRef(null);
  const seek = useRef(() => {});
  const move = useRef(() => {});
  const { segments, revision } = shown;
  const duration = shown.metadata?.duration || job.duration || job.progress.audio_seconds_total || segments.at(-1)?.end_time || 0;
  useLayoutEffect(() => {
    view.current = new TranscriptView(list.current, (seconds, play) => seek.current(seconds, play));
    return () => view.current.close();
  }, []);
  useLayoutEffect(() => view.current.update(segments), [segments, revision]);
  const lanes = useMemo(() => voices(segments), [segments, revision]);
  const silent = shown.final && !segments.length;
  return html`
    <div class="deck">
      <${Timeline} job=${job} shown=${shown} lanes=${lanes} duration=${duration} seek=${(at, play) => seek.current(at, play)} move=${move} audio=${audio} />
      <div class="tools">
        <${Player} job=${job} file=${file} duration=${duration} audio=${audio} seek=${seek} moved=${(at, playing, follow) => (view.current.at(at, follow), move.current(at, playing))} recordings=${recordings} />
        <${Search} view=${view} revision=${`${revision} ${shown.final}`} />
      </div>
    </div>
    ${silent && html`<p class="quiet">Nobody speaks in this recording.</p>`}
    <div ref=${list} class="said-list" role="list" aria-label="Transcript" aria-busy=${shown.final ? "false" : "true"}></div>
    ${!shown.final && html`<p class="growing quiet"><span class="dot" aria-hidden="true"></span>${job.state === "queued" ? "It waits for its turn." : "Listening. Speakers may still change."}</p>`}
  `;
}

function Timeline({ job, shown, lanes, duration, seek, move, audio }) {
  const canvas = useRef(null);
  const slider = useRef(null);
  const head = useRef(null);
  const names = useRef(null);
  const [peaks, setPeaks] = useState(null);
  const [size, setSize] = useState(0);
  useEffect(() => {
    let timer = 0;
    const gone = new AbortController();
    const ask = async () => {
      try {
        const said = await client().question(`/v1/jobs/${job.id}/peaks`, { signal: gone.signal, once: true });
        const bytes = Uint8Array.from(atob(said.peaks), (one) => one.charCodeAt(0));
        setPeaks(bytes.length ? bytes : null);
      } catch {
        // It is drawn without them.
      }
      if (!shown.final && !gone.signal.aborted) timer = setTimeout(ask, PEAKS_MS);
    };
    ask();
    return () => (gone.abort(), clearTimeout(timer));
  }, [job.id, shown.final]);
  useEffect(() => {
    const redraw = () => setSize((before) => before + 1);
    const watching = new ResizeObserver(redraw);
    watching.observe(canvas.current);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", redraw);
    addEventListener("looks", redraw);
    return () => (watching.disconnect(), scheme.removeEventListener("change", redraw), removeEventListener("looks", redraw));
  }, []);
  useEffect(() => {
    if (!canvas.current) return undefined; // gone by now
    const colours = [...names.current.querySelectorAll(".badge")].map((one) => getComputedStyle(one).backgroundColor);
    const { color: ink, borderTopColor: faint } = getComputedStyle(canvas.current);
    const frame = requestAnimationFrame(() => canvas.current && draw(canvas.current, { segments: shown.segments, duration, peaks, colours, ink, faint }));
    return () => cancelAnimationFrame(frame);
  }, [shown.segments, shown.revision, lanes, peaks, size, duration]);
  move.current = (at) => {
    if (!slider.current || !canvas.current || !duration) return;
    head.current.style.transform = `translateX(${Math.min(1, at / duration) * canvas.current.clientWidth}px)`;
    slider.current.setAttribute("aria-valuenow", at.toFixed(0));
    slider.current.setAttribute("aria-valuetext", `${spoken(at)} of ${spoken(duration)}`);
  };
  const place = (event) => {
    const box = canvas.current.getBoundingClientRect();
    seek(Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * duration, false);
  };
  const pressed = (event) => {
    const at = Number(slider.current.getAttribute("aria-valuenow")) || 0;
    const to = { ArrowRight: at + STEP_S, ArrowUp: at + STEP_S, ArrowLeft: at - STEP_S, ArrowDown: at - STEP_S, PageUp: at + FAR_S, PageDown: at - FAR_S, Home: 0, End: duration }[event.key];
    if (to === undefined) {
      if (event.key !== " " || !audio.current?.src) return;
      audio.current[audio.current.paused ? "play" : "pause"]();
    } else seek(Math.max(0, Math.min(duration, to)), false);
    event.preventDefault();
  };
  const heard = lanes.reduce((sum, one) => sum + one.seconds, 0);
  return html`<div class="timeline">
    <ul ref=${names} class=${`lanes ${peaks ? "below" : ""}`} aria-label="Who speaks how much">
      ${lanes.map((one) => {
        const number = numberOf(one.speaker);
        return html`<li data-voice=${number === null ? undefined : String(number % 8)}><span class="badge" aria-hidden="true">${number ?? "?"}</span><span class="name">${one.name}</span><span class="quiet share">${heard ? Math.round((100 * one.seconds) / heard) : 0} %</span></li>`;
      })}
    </ul>
    <div ref=${slider} class="track" role="slider" tabindex="0" aria-label="Position in the recording" aria-valuemin="0" aria-valuemax=${duration.toFixed(0)} aria-valuenow="0" aria-valuetext=${`0 seconds of ${spoken(duration)}`}
      onKeyDown=${pressed} onPointerDown=${(event) => (event.currentTarget.setPointerCapture(event.pointerId), place(event))} onPointerMove=${(event) => event.buttons && place(event)}>
      <canvas ref=${canvas} style=${{ height: `${height(lanes.length, peaks)}px` }}></canvas>
      <div ref=${head} class="playhead" aria-hidden="true"></div>
    </div>
  </div>`;
}

function Player({ job, file, duration, audio, seek, moved, recordings }) {
  const chooser = useRef(null);
  const time = useRef(null);
  const [playing, setPlaying] = useState(false);
  const [follow, setFollow] = useState(true);
  const [rate, setRate] = useState(1);
  const [odd, setOdd] = useState("");
  const keeps = useRef(true);
  keeps.current = follow;
  const url = useMemo(() => file && URL.createObjectURL(file), [file]);
  useEffect(() => () => url && URL.revokeObjectURL(url), [url]);
  const show = (at, runs) => {
    if (time.current) time.current.textContent = `${clock(at)} / ${clock(duration)}`;
    moved(at, runs, runs && keeps.current);
  };
  seek.current = (at, play) => {
    if (!audio.current) return show(at, false);
    audio.current.currentTime = at;
    if (play) audio.current.play().catch(() => {});
    show(at, false);
  };
  useEffect(() => {
    if (!playing) return undefined;
    let frame = 0;
    const step = () => {
      if (audio.current) show(audio.current.currentTime, true);
      frame = requestAnimationFrame(step);
    };
    step();
    return () => cancelAnimationFrame(frame);
  }, [playing, duration]);
  useEffect(() => show(audio.current?.currentTime ?? 0, false), [duration]);
  const known = () => {
    const length = audio.current.duration;
    const differs = Number.isFinite(length) && job.duration && Math.abs(length - job.duration) > SAME_S;
    setOdd(differs ? `This file is ${clock(length)} long, the recording was ${clock(job.duration)}. Is it the right one?` : "");
  };
  const choose = (event) => event.target.files[0] && recordings.attach(job.id, event.target.files[0]);
  if (!file)
    return html`<div class="player">
      <button type="button" onClick=${() => chooser.current.click()}>${icon("listen")} Choose the file to listen</button>
      <input ref=${chooser} class="unseen" id="listen" type="file" tabindex="-1" accept="audio/*,video/*" aria-label="The recording, to listen to" onChange=${choose} />
      <span ref=${time} class="time">0:00 / ${clock(duration)}</span>
    </div>`;
  return html`<div class="player" role="group" aria-label="Playback">
    <audio ref=${audio} src=${url} preload="metadata" onPlay=${() => setPlaying(true)} onPause=${() => setPlaying(false)} onEnded=${() => setPlaying(false)} onLoadedMetadata=${known}
      onError=${() => setOdd("This browser cannot play this file. The transcript does not need it.")}></audio>
    <button type="button" class="main round" aria-label=${playing ? "Pause" : "Play"} onClick=${() => audio.current[playing ? "pause" : "play"]()}>${icon(playing ? "pause" : "play")}</button>
    <span ref=${time} class="time">0:00 / ${clock(duration)}</span>
    <label class="rate"><span class="unseen">Speed</span>
      <select value=${rate} onChange=${(event) => (setRate(Number(event.target.value)), (audio.current.playbackRate = Number(event.target.value)))}>
        ${[0.75, 1, 1.25, 1.5, 2].map((one) => html`<option value=${one}>${one} ×</option>`)}
      </select>
    </label>
    <label class="check"><input type="checkbox" checked=${follow} onChange=${(event) => setFollow(event.target.checked)} /> Follow</label>
    ${odd && html`<p class="notice" role="alert">${odd}</p>`}
  </div>`;
}

function Search({ view, revision }) {
  const [text, setText] = useState("");
  const [found, setFound] = useState({ count: 0, number: 0 });
  useEffect(() => {
    if (text) setFound(view.current.search(text));
  }, [revision]);
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
    <button type="button" class="bare" aria-label="Match before" disabled=${!found.count} onClick=${() => setFound(view.current.next(-1))}>${icon("up")}</button>
    <button type="button" class="bare" aria-label="Next match" disabled=${!found.count} onClick=${() => setFound(view.current.next(1))}>${icon("next")}</button>
  </div>`;
}

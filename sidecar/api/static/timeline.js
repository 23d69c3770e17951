/** A recording at a glance: its loudness, and a lane for each voice. Drawn on a canvas; what it says
 * is said in words beside it, too. */

import { client } from "./session.js";
import { Lanes } from "./speakers.js";
import { html, useEffect, useRef, useState } from "./view.js";
import { nameOf, spoken } from "./words.js";

const WAVE = 44;
const LANE = 24;
/** Peaks of a second, as the service has them. */
const PER_SECOND = 10;

/** Who speaks how long: in order of appearance. Pure. */
export function voices(segments) {
  const found = new Map();
  for (const segment of segments) {
    if (!segment) continue;
    const known = found.get(segment.speaker) ?? { speaker: segment.speaker, name: nameOf(segment), named: Boolean(segment.name), seconds: 0 };
    known.seconds += Math.max(0, segment.end_time - segment.start_time);
    found.set(segment.speaker, known);
  }
  return [...found.values()];
}

/** The loudest of each of `count` equal stretches of a recording, 0 to 1; what was not heard yet is
 * silent. Pure. */
export function columns(peaks, count, duration) {
  const heard = new Float32Array(count);
  const each = (duration * PER_SECOND) / count;
  for (let x = 0; x < count; x += 1) {
    const end = Math.min(peaks.length, Math.max(Math.floor(x * each) + 1, (x + 1) * each));
    for (let i = Math.floor(x * each); i < end; i += 1) heard[x] = Math.max(heard[x], peaks[i] / 255);
  }
  return heard;
}

/** How high the canvas is for so many voices, in CSS pixels. */
const height = (lanes, wave) => (wave ? WAVE : 0) + Math.max(1, lanes) * LANE;

function draw(canvas, { segments, duration, peaks, colours, ink, faint }) {
  const scale = devicePixelRatio || 1;
  const { clientWidth: width } = canvas;
  const lanes = voices(segments);
  const high = height(lanes.length, peaks);
  [canvas.width, canvas.height] = [width * scale, high * scale];
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const top = peaks ? WAVE : 0;
  if (peaks && duration) {
    pen.fillStyle = ink;
    const bars = columns(peaks, Math.floor(width / 3), duration);
    const loudest = bars.reduce((most, level) => Math.max(most, level), 0.05);
    bars.forEach((level, x) => {
      const tall = Math.max(1, (level / loudest) * (WAVE - 8));
      pen.fillRect(x * 3, (WAVE - tall) / 2 - 2, 2, tall);
    });
  }
  pen.fillStyle = faint;
  for (let lane = 0; lane < Math.max(1, lanes.length); lane += 1)
    pen.fillRect(0, top + lane * LANE + LANE / 2, width, 1);
  if (!duration) return;
  const place = new Map(lanes.map(({ speaker }, lane) => [speaker, lane]));
  for (const segment of segments) {
    if (!segment) continue;
    const lane = place.get(segment.speaker);
    pen.fillStyle = colours[lane];
    const [x, end] = [segment.start_time, segment.end_time].map((at) => (at / duration) * width);
    pen.beginPath();
    pen.roundRect(x, top + lane * LANE + 6, Math.max(1.5, end - x - 0.5), LANE - 11, 3);
    pen.fill();
  }
}

const STEP_S = 5;
const FAR_S = 60;
const PEAKS_MS = 3000;

/** The recording at a glance, and the place in it that is played. */
export function Overview({ job, shown, lanes, duration, seek, move, audio, open }) {
  const canvas = useRef(null);
  const slider = useRef(null);
  const head = useRef(null);
  const names = useRef(null);
  const [peaks, setPeaks] = useState(null);
  const [size, setSize] = useState(0);
  useEffect(() => {
    if (job.peaks) return setPeaks(job.peaks);
    if (job.gone) return undefined; // the service has them no more
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
  return html`<div class="timeline">
    <${Lanes} lanes=${lanes} below=${peaks} open=${open} names=${names} />
    <div ref=${slider} class="track" role="slider" tabindex="0" aria-label="Position in the recording" aria-valuemin="0" aria-valuemax=${duration.toFixed(0)} aria-valuenow="0" aria-valuetext=${`0 seconds of ${spoken(duration)}`}
      onKeyDown=${pressed} onPointerDown=${(event) => (event.currentTarget.setPointerCapture(event.pointerId), place(event))} onPointerMove=${(event) => event.buttons && place(event)}>
      <canvas ref=${canvas} style=${{ height: `${height(lanes.length, peaks)}px` }}></canvas>
      <div ref=${head} class="playhead" aria-hidden="true"></div>
    </div>
  </div>`;
}

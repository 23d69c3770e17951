/** The timeline: a recording at a glance, and the place in it that is played. */

import { client } from "./session.js";
import { Lanes } from "./speakers.js";
import { draw, height } from "./timeline.js";
import { html, useEffect, useRef, useState } from "./view.js";
import { spoken } from "./words.js";

const STEP_S = 5;
const FAR_S = 60;
const PEAKS_MS = 3000;

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

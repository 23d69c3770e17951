/** Playback: the person's own file, or the recording that the service keeps. */

import { client, token } from "./session.js";
import { html, icon, useAttempt, useEffect, useFrames, useMemo, useRef, useState } from "./view.js";
import { clock } from "./words.js";

/** A file that differs more in length is hardly the one that was sent. */
const SAME_S = 2;

/**
 * Where the sound comes from. Without a token the browser asks for what it plays, a range at a time. It
 * sends no token with that, and none is put in an address: with one the recording is fetched whole,
 * when somebody wants to hear it.
 */
function useSound(job, file) {
  const [blob, setBlob] = useState(null);
  const local = file ?? blob;
  const url = useMemo(() => local && URL.createObjectURL(local), [local]);
  useEffect(() => () => url && URL.revokeObjectURL(url), [url]);
  if (url || !job.recording) return { url, own: Boolean(file) };
  if (!token()) return { url: `/v1/jobs/${encodeURIComponent(job.id)}/audio`, own: false };
  return { fetch: async () => setBlob(await client().recording(job.id)), own: false };
}

export function Player({ job, file, duration, audio, seek, moved, recordings }) {
  const chooser = useRef(null);
  const time = useRef(null);
  const [playing, setPlaying] = useState(false);
  const [follow, setFollow] = useState(true);
  const [rate, setRate] = useState(1);
  const [odd, setOdd] = useState("");
  const [wrong, attempt, busy] = useAttempt();
  const { url, fetch, own } = useSound(job, file);
  const show = (at, runs) => {
    if (time.current) time.current.textContent = `${clock(at)} / ${clock(duration)}`;
    moved(at, runs, runs && follow);
  };
  seek.current = (at, play) => {
    if (!audio.current) return show(at, false);
    audio.current.currentTime = at;
    if (play) audio.current.play().catch(() => {});
    show(at, false);
  };
  useFrames(playing, audio, () => show(audio.current.currentTime, true));
  useEffect(() => show(audio.current?.currentTime ?? 0, false), [duration]);
  const known = () => {
    if (!audio.current) return; // what it was of is gone
    const length = audio.current.duration;
    const differs = Number.isFinite(length) && job.duration && Math.abs(length - job.duration) > SAME_S;
    setOdd(differs ? `This file is ${clock(length)} long, the recording was ${clock(job.duration)}. Is it the right one?` : "");
  };
  const choose = (event) => event.target.files[0] && recordings.attach(job.id, event.target.files[0]);
  const chosen = html`<input ref=${chooser} class="unseen" id="listen" type="file" tabindex="-1" accept="audio/*,video/*" aria-label="The recording, to listen to" onChange=${choose} />`;
  const choice = html`<button type="button" onClick=${() => chooser.current.click()}>${icon("listen")} ${job.recording ? "Choose my own file" : "Choose the file to listen"}</button>${chosen}`;
  if (!url)
    return html`<div class="player">
      ${fetch && html`<button type="button" onClick=${() => attempt(fetch)}>${icon("listen")} Listen to the recording</button><span class="quiet" role="status">${busy ? "Loading" : wrong?.detail}</span>`}
      ${!fetch && choice}
      <span ref=${time} class="time">0:00 / ${clock(duration)}</span>
    </div>`;
  return html`<div class="player" role="group" aria-label="Playback">
    <audio ref=${audio} src=${url} preload=${url.startsWith("blob:") ? "metadata" : "none"} onPlay=${() => setPlaying(true)} onPause=${() => setPlaying(false)} onEnded=${() => setPlaying(false)} onLoadedMetadata=${known}
      onError=${() => setOdd(own ? "This browser cannot play this file; the transcript is not affected." : "The stored recording cannot be played: it was deleted, or this browser does not support its format.")}></audio>
    <button type="button" class="main round" aria-label=${playing ? "Pause" : "Play"} onClick=${() => audio.current[playing ? "pause" : "play"]()}>${icon(playing ? "pause" : "play")}</button>
    <span ref=${time} class="time">0:00 / ${clock(duration)}</span>
    <label class="rate"><span class="unseen">Speed</span>
      <select value=${rate} onChange=${(event) => (setRate(Number(event.target.value)), (audio.current.playbackRate = Number(event.target.value)))}>
        ${[0.75, 1, 1.25, 1.5, 2].map((one) => html`<option value=${one}>${one} ×</option>`)}
      </select>
    </label>
    <label class="check"><input type="checkbox" checked=${follow} onChange=${(event) => setFollow(event.target.checked)} /> Follow</label>
    ${odd && html`<p class="notice" role="alert">${odd}</p>`}
    ${odd && !own && choice}
  </div>`;
}

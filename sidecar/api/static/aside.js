/** What comes in and what is on its way: dropping, choosing, recording, the queue. */

import { CONVERSATION } from "./conversations.js";
import { keepsCopies } from "./memory.js";
import { isOver } from "./reading.js";
import { NO_SOUND, Recorder, refusal } from "./recorder.js";
import { UNREADABLE } from "./sending.js";
import { html, icon, useEffect, useRef, useState } from "./view.js";
import { clock, counted, languageOf, mayBeRecording, sentAt, spoken, stateOf } from "./words.js";

const KINDS = "audio/*,video/*,.opus,.amr,.caf,.mkv,.wma,.aiff,.flac";

/** A microphone that gives nothing but zeros for so long is taken for muted. */
const MUTED_MS = 3000;
const MINUTE = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "short" });

/** The recordings among what was dropped, folders opened; `unread` is told the names of those, and of folders, that cannot be read. */
export async function filesIn(transfer, say, unread) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const found = [];
  const walk = async (entry) => {
    try {
      if (entry.isFile) found.push(await new Promise((done, failed) => entry.file(done, failed)));
      else if (entry.isDirectory) {
        const reader = entry.createReader();
        for (;;) {
          const some = await new Promise((done, failed) => reader.readEntries(done, failed));
          if (!some.length) return;
          for (const one of some) await walk(one);
        }
      }
    } catch {
      if (entry.isDirectory || mayBeRecording({ name: entry.name, type: "" })) unread(entry.name);
    }
  };
  for (const entry of entries) await walk(entry);
  return recordingsAmong(found, say);
}

function recordingsAmong(files, say) {
  const some = files.filter(mayBeRecording);
  const left = files.length - some.length;
  if (left || !some.length) say(some.length ? `${counted(left, "file")} left out: no recordings.` : "There is no recording in this folder.");
  return some;
}

export function Aside({ state, store, recordings, empty, say }) {
  const { about, jobs, talks, conversation } = state;
  const failed = jobs.filter((job) => job.state === "failed").reverse();
  const unsent = state.uploads.filter((one) => one.state === "failed");
  const uploads = state.uploads.filter((one) => one.state !== "failed");
  const copies = [...state.copies.values()].filter(({ id }) => !jobs.some((job) => job.id === id)).sort((one, other) => other.at - one.at);
  const speaks = conversation && conversation.state !== "over";
  const going = talks.filter((one) => one.state !== "over");
  const over = talks.filter((one) => one.state === "over").reverse();
  const waiting = jobs.filter((job) => !isOver(job)).sort(inLine);
  const ended = jobs.filter((job) => isOver(job) && job.state !== "failed").reverse();
  const repeated = repeatedNames(state, [...jobs, ...copies.map((one) => one.job)]);
  const item = (job) => html`<${Item} key=${job.id} job=${job} state=${state} repeated=${repeated} recordings=${recordings} say=${say} />`;
  return html`<div class="side" role=${empty ? "main" : "complementary"} id=${empty ? "main" : undefined} aria-label="Recordings">
    <${Intake} state=${state} store=${store} recordings=${recordings} empty=${empty} say=${say} />
    ${(speaks || going.length + waiting.length + uploads.length > 0) && html`<section>
      <h2>In progress</h2>
      <ul class="jobs">
        ${speaks && html`<${Speaks} state=${state} recordings=${recordings} />`}
        ${going.map((talk) => html`<${Talk} key=${talk.id} talk=${talk} state=${state} recordings=${recordings} />`)}
        ${waiting.map(item)}
        ${uploads.map((one) => html`<${Sending} key=${one.key} one=${one} recordings=${recordings} />`)}
      </ul>
    </section>`}
    ${failed.length + unsent.length > 0 && html`<section>
      <h2>Failed</h2>
      <ul class="jobs">
        ${unsent.map((one) => html`<${Sending} key=${one.key} one=${one} recordings=${recordings} />`)}
        ${failed.map(item)}
      </ul>
    </section>`}
    ${over.length + ended.length > 0 && html`<section>
      <h2>Done</h2>
      <ul class="jobs">
        ${over.map((talk) => html`<${Talk} key=${talk.id} talk=${talk} state=${state} recordings=${recordings} />`)}
        ${ended.map(item)}
      </ul>
    </section>`}
    ${copies.length > 0 && html`<section>
      <h2>Only in this browser</h2>
      <ul class="jobs">
        ${copies.map((one) => item(one.job))}
      </ul>
    </section>`}
    ${about?.keeps_seconds && !empty && html`<${Storing} keeps=${about.keeps_seconds} recordings=${recordings} />`}
  </div>`;
}

/** What becomes of transcripts, and whether this browser has copies of them. */
function Storing({ keeps, recordings }) {
  const [wanted, setWanted] = useState(keepsCopies());
  const change = (event) => {
    setWanted(event.target.checked);
    recordings.copies.allow(event.target.checked);
    recordings.look();
  };
  return html`<div class="storing">
    <label class="check"><input type="checkbox" checked=${wanted} onChange=${change} /> Store copies in this browser</label>
    <p class="quiet">The service deletes a transcript ${spoken(keeps)} after it was last read or edited. ${wanted ? "Copies stay in this browser, readable for whoever uses it, until they are deleted here." : "No copies are stored."}</p>
  </div>`;
}

/** Those that run go first, then as the queue has them. */
const inLine = (one, other) => (one.position ?? -1) - (other.position ?? -1);

export const nameOf = (state, job) => state.names.get(job.id) || `Recording of ${MINUTE.format(new Date(job.created))}`;

/** The names that several recordings of the list have. */
function repeatedNames(state, listed) {
  const [seen, repeated] = [new Set(), new Set()];
  for (const job of listed) {
    const name = nameOf(state, job);
    (seen.has(name) ? repeated : seen).add(name);
  }
  return repeated;
}

function Item({ job, state, repeated, recordings, say }) {
  const called = nameOf(state, job);
  const sent = repeated.has(called) ? `, sent ${sentAt(job)}` : "";
  const name = `${called}${sent}`;
  const over = isOver(job);
  const end = async () => {
    try {
      await recordings.end(job.id);
      say(over ? `${name} was deleted.` : `${name} was cancelled.`);
      document.querySelector(".job .pick, .intake .main")?.focus(); // what had it is gone
    } catch (error) {
      say(error.detail || String(error));
    }
  };
  const sure = () => over && job.state === "done" ? document.getElementById(`sure-${job.id}`).showModal() : end();
  return html`<li class="job" data-state=${job.state}>
    <button type="button" class="pick" aria-current=${state.selected === job.id ? "true" : undefined} onClick=${() => recordings.select(job.id)}>
      <span class="name">${called}</span>
      <span class="how">${stateOf(job)}${sent}</span>
    </button>
    <button type="button" class="bare" aria-label=${`${over ? "Delete" : "Cancel"} ${name}`} onClick=${sure}>${icon(over ? "trash" : "close")}</button>
    ${job.state === "running" && html`<progress max="1" value=${job.progress.fraction ?? undefined} aria-label=${`How far ${name} is`}></progress>`}
    ${job.state === "done" && html`<dialog id=${`sure-${job.id}`} aria-label="Delete?" class="small">
      <p>Delete the transcript of <strong>${name}</strong>? This cannot be undone.</p>
      <form method="dialog" class="choice">
        <button type="submit">Keep it</button>
        <button type="submit" class="danger" onClick=${end}>Delete</button>
      </form>
    </dialog>`}
  </li>`;
}

/** A live talk: it is this page's alone. */
function Talk({ talk, state, recordings }) {
  const said = talk.state === "over" ? `${clock(talk.seconds)}, only in this page` : talk.state === "paused" ? "Paused" : "Transcribing";
  return html`<li class="job" data-state=${talk.state}>
    <button type="button" class="pick" aria-current=${state.selected === talk.id ? "true" : undefined} onClick=${() => recordings.select(talk.id)}>
      <span class="name">${talk.name}</span>
      <span class="how">${said}</span>
    </button>
  </li>`;
}

/** A conversation that goes on. */
const Speaks = ({ state, recordings }) => html`<li class="job" data-state="live">
  <button type="button" class="pick" aria-current=${state.selected === CONVERSATION ? "true" : undefined} onClick=${() => recordings.select(CONVERSATION)}>
    <span class="name">Conversation</span>
    <span class="how">In progress</span>
  </button>
</li>`;

/** What the same file fails with again. */
const NO_REMEDY = new Set(["audio_empty", "audio_format_unsupported", "audio_undecodable", UNREADABLE.code]);

function Sending({ one, recordings }) {
  const said = { waiting: "Waiting to upload", sending: "Uploading", failed: one.error?.detail }[one.state];
  return html`<li class="job" data-state=${one.state}>
    <div class="pick">
      <span class="name">${one.name}</span>
      <span class="how">${said}${one.error?.hint && html` ${one.error.hint}`}</span>
      ${one.state === "failed" && !NO_REMEDY.has(one.error?.code) && html`<button type="button" class="again" onClick=${() => recordings.sending.retry(one.key)}>Try again</button>`}
    </div>
    <button type="button" class="bare" aria-label=${`Remove ${one.name} from the list`} onClick=${() => recordings.sending.drop(one.key)}>${icon("close")}</button>
    ${one.state === "sending" && html`<progress aria-label=${`${one.name} is being uploaded`}></progress>`}
  </li>`;
}

function Intake({ state, store, recordings, empty, say }) {
  const files = useRef(null);
  const folder = useRef(null);
  const took = (event, all) => {
    const chosen = [...event.target.files];
    recordings.sending.send(all ? recordingsAmong(chosen, say) : chosen);
    event.target.value = "";
  };
  return html`<section class="intake" aria-label="New recording">
    <div class="drop">
      ${empty ? html`<h1>Who said what, and when</h1>` : html`<h1 class="unseen">Recordings</h1>`}
      <p>${empty ? `Drop a recording here: a call, a meeting, an interview${only(state)}. You get a transcript with speakers and times.` : "Drop recordings or a folder anywhere."}</p>
      <div class="choice">
        <button type="button" class="main" onClick=${() => files.current.click()}>${icon("add")} Choose files</button>
        <button type="button" class="folder" onClick=${() => folder.current.click()}>${icon("folder")} Folder</button>
        <${Microphone} recordings=${recordings} say=${say} />
        <${Live} state=${state} recordings=${recordings} />
        <button type="button" onClick=${() => recordings.select(CONVERSATION)}>${icon("say")} Conversation</button>
      </div>
      <input ref=${files} class="unseen" id="files" type="file" multiple accept=${KINDS} tabindex="-1" aria-label="Recordings" onChange=${(event) => took(event, false)} />
      <input ref=${folder} class="unseen" id="folder" type="file" webkitdirectory tabindex="-1" aria-label="A folder of recordings" onChange=${(event) => took(event, true)} />
      ${empty && html`<p class="quiet">wav, mp3, m4a, ogg, flac, webm, mp4 and most others.${here(state)}</p>`}
    </div>
    <${Options} state=${state} store=${store} />
  </section>`;
}

const here = ({ about }) =>
  about && about.engine.name !== "upstream" ? " The service transcribes recordings itself; nothing is sent elsewhere." : "";

/** The language, where the engine has only one. */
const only = ({ about }) => (about?.engine.languages.length === 1 ? `, in ${languageOf(about.engine.languages[0])}` : "");

/** What is sent with the next recordings. */
function Options({ state, store }) {
  const { about, options } = state;
  const set = (name, value) => {
    const { [name]: _, ...rest } = options;
    store.set({ options: value ? { ...rest, [name]: value } : rest });
  };
  const count = Object.keys(options).length;
  const languages = about?.engine.languages ?? [];
  const follows = (capability) => !about || about.engine.steerable || about.engine[capability];
  return html`<details class="options">
    <summary>Options${count > 0 && html` <span class="quiet">(${count} set)</span>`}</summary>
    <div class="fields">
      ${languages.length !== 1 && html`<label>Language
        <input list="languages" placeholder="as it is heard" value=${options.language ?? ""} onChange=${(event) => set("language", event.target.value.trim())} />
        <datalist id="languages">${languages.map((tag) => html`<option value=${tag}></option>`)}</datalist>
      </label>`}
      ${follows("counted") && html`<label>How many people speak
        <input type="number" min="1" max="20" placeholder="unknown" value=${options.num_speakers ?? ""} onChange=${(event) => set("num_speakers", event.target.value)} />
      </label>`}
      ${follows("hotwords") && html`<label>Names and terms that may be said
        <input placeholder="Nagg, Nell" value=${options.hotwords ?? ""} onChange=${(event) => set("hotwords", event.target.value.trim())} />
      </label>`}
      <label class="check"><input type="checkbox" checked=${options.channels === "separate"} onChange=${(event) => set("channels", event.target.checked && "separate")} />
        One person on each channel, as in recorded calls</label>
    </div>
  </details>`;
}

function Microphone({ recordings, say }) {
  const [recorder, setRecorder] = useState(null);
  const [since, setSince] = useState(0);
  const [wrong, setWrong] = useState("");
  const [muted, setMuted] = useState(false);
  const meter = useRef(null);
  const time = useRef(null);
  useEffect(() => {
    setMuted(false);
    if (!recorder) return undefined;
    let frame = 0;
    let heard = performance.now();
    const show = () => {
      const level = recorder.level();
      if (level > 0) heard = performance.now();
      setMuted(performance.now() - heard > MUTED_MS);
      if (meter.current) meter.current.value = level;
      if (time.current) time.current.textContent = clock((performance.now() - since) / 1000);
      frame = requestAnimationFrame(show);
    };
    show();
    return () => cancelAnimationFrame(frame);
  }, [recorder]);
  useEffect(() => {
    if (!recorder) return undefined;
    let wanted = true;
    recorder.ended.then((file) => {
      if (!wanted) return;
      setRecorder(null);
      recordings.sending.send([file]);
    });
    const ask = (event) => event.preventDefault();
    addEventListener("beforeunload", ask);
    return () => {
      wanted = false;
      removeEventListener("beforeunload", ask);
      recorder.close();
    };
  }, [recorder]);
  const begin = async () => {
    const why = Recorder.why();
    if (why) return setWrong(why);
    const fresh = new Recorder();
    try {
      await fresh.begin();
    } catch (error) {
      fresh.close();
      return setWrong(refusal(error));
    }
    setWrong("");
    setSince(performance.now());
    setRecorder(fresh);
    say("Recording.");
  };
  if (!recorder)
    return html`<button type="button" onClick=${begin}>${icon("mic")} Record</button>
      ${wrong && html`<p class="trouble" role="alert">${wrong}</p>`}`;
  return html`<div class="recording" role="group" aria-label="Recording">
    <span class="dot" aria-hidden="true"></span><span ref=${time} class="time">0:00</span>
    <meter ref=${meter} min="0" max="1" aria-label="Loudness"></meter>
    <button type="button" class="main" onClick=${() => recorder.close()}>${icon("stop")} Stop and send</button>
    <button type="button" class="bare" aria-label="Discard this recording" onClick=${() => setRecorder(null)}>${icon("close")}</button>
    ${muted && html`<p class="notice" role="status">${NO_SOUND}</p>`}
  </div>`;
}

/** Words while somebody speaks: begun here, and shown in the place of a transcript. */
function Live({ state, recordings }) {
  const [wrong, setWrong] = useState("");
  const [asking, setAsking] = useState(false);
  const going = state.talks.some((one) => one.state !== "over");
  const begin = async () => {
    setAsking(true);
    const { id, wrong: why } = await recordings.talks.begin();
    setAsking(false);
    setWrong(why ?? "");
    if (id) recordings.select(id);
  };
  return html`<button type="button" disabled=${going || asking} onClick=${begin}>${icon("live")} Live captions</button>
    ${wrong && html`<p class="trouble" role="alert">${wrong}</p>`}`;
}

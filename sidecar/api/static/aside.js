/** What comes in and what is on its way: dropping, choosing, recording, the queue. */

import { CONVERSATION } from "./conversations.js";
import { fateOf } from "./deleted.js";
import { keepsCopies } from "./memory.js";
import { CHANGED } from "./editing.js";
import { isOver } from "./reading.js";
import { NO_SOUND } from "./microphone.js";
import { UNREADABLE } from "./sending.js";
import { isListed } from "./states.js";
import { html, icon, Meter, Sure, Trouble, useAttempt, useEffect, useMemo, useRef, useState } from "./view.js";
import { clock, counted, languageOf, mayBeRecording, namedLanguages, spoken, stamp, stateOf, whenOf } from "./words.js";

const KINDS = "audio/*,video/*,.opus,.amr,.caf,.mkv,.wma,.aiff,.flac";

/** So many characters at the end of a name are always in sight: a day with its time. */
const END = 16;
/** Of what was deleted so much is listed at once. */
const DELETED_MOST = 20;
/** Below so many minutes it is said that the storage will be full. */
const SCARCE_MIN = 15;

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
  const { about, jobs, conversation } = state;
  const failed = jobs.filter((job) => job.state === "failed").reverse();
  const takes = state.takes.filter(isListed);
  const kept = takes.filter((one) => one.state === "kept" && one.source !== "file").reverse();
  const unread = takes.filter((one) => one.state === "kept" && one.source === "file");
  const copies = [...state.copies.values()].filter(({ id }) => !jobs.some((job) => job.id === id)).sort((one, other) => other.at - one.at);
  const deleted = state.deleted.filter(({ id }) => !state.copies.has(id));
  const speaks = conversation && conversation.state !== "over";
  const waiting = jobs.filter((job) => !isOver(job)).sort(inLine);
  const ended = jobs.filter((job) => isOver(job) && job.state !== "failed").reverse();
  const repeated = repeatedNames(state, [...jobs, ...copies.map((one) => one.job)]);
  const those = (...states) => takes.filter((one) => states.includes(one.state));
  const take = (one) => html`<${Take} key=${one.id} take=${one} state=${state} recordings=${recordings} />`;
  const item = (job) => html`<${Item} key=${job.id} job=${job} state=${state} repeated=${repeated} recordings=${recordings} say=${say} />`;
  const group = (title, ...items) => items.flat().some(Boolean) && html`<section><h2>${title}</h2><ul class="jobs">${items}</ul></section>`;
  return html`<div class="side" role=${empty ? "main" : "complementary"} id=${empty ? "main" : undefined} aria-label="Recordings">
    ${!empty && html`<h1 class="unseen">Recordings</h1>`}
    ${!empty && html`<div class="lists">
    ${group("In progress", speaks && html`<${Speaks} state=${state} recordings=${recordings} />`, those("recording").map(take), waiting.map(item), those("waiting", "sending").map(take))}
    ${group("Failed", unread.map(take), failed.map(item))}
    ${group("Done", those("sent", "done").reverse().map(take), ended.map(item))}
    ${group("Only in this browser", kept.map(take), copies.map((one) => item(one.job)))}
    ${group("Deleted", deleted.slice(0, DELETED_MOST).map((row) => html`<${Deleted} key=${row.id} row=${row} state=${state} recordings=${recordings} />`), deleted.length > DELETED_MOST && html`<li class="quiet">And ${deleted.length - DELETED_MOST} more.</li>`)}
    ${about?.keeps_seconds && !empty && html`<${Storing} key=${about.owner} about=${about} only=${copies.length} recordings=${recordings} />`}
    </div>`}
    <${Intake} state=${state} store=${store} recordings=${recordings} empty=${empty} say=${say} />
  </div>`;
}

/** What becomes of transcripts, and whether this browser has copies of them; the service has no more of `only` so many. */
function Storing({ about, only, recordings }) {
  const [wanted, setWanted] = useState(keepsCopies(about));
  const allow = (those) => {
    setWanted(those);
    recordings.allowCopies(those);
  };
  const change = (event) => {
    if (event.target.checked) return allow(true);
    event.target.checked = true; // until it is sure
    document.getElementById("sure-copies").showModal();
  };
  return html`<div class="storing">
    <label class="check"><input type="checkbox" checked=${wanted} onChange=${change} /> Store copies in this browser</label>
    <p class="quiet">The service deletes a transcript ${spoken(about.keeps_seconds)} after it was last read or edited. ${wanted ? "Copies stay in this browser, readable for whoever uses it, until they are deleted here." : "No copies are stored."}</p>
    <${Sure} id="sure-copies" title="Delete" act=${() => allow(false)}>Delete all copies of your transcripts in this browser?${only > 0 && ` The service no longer has ${counted(only, "transcript")} of them.`}<//>
  </div>`;
}

/** Those that run go first, then as the queue has them. */
const inLine = (one, other) => (one.position ?? -1) - (other.position ?? -1);

export const nameOf = (state, job) => state.names.get(job.id) || job.name || `Recording ${stamp(new Date(job.created))}`;

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
  const sent = repeated.has(called) ? `, sent ${whenOf(job.created, "medium")}` : "";
  const name = `${called}${sent}`;
  const over = isOver(job);
  const seen = useRef();
  const [changed, setChanged] = useState(0);
  const end = async () => {
    try {
      await recordings.end(job.id, over ? seen.current : undefined);
      say(over ? `${name} was deleted.` : `${name} was cancelled.`);
      document.querySelector(".job .pick, .intake .main")?.focus(); // what had it is gone
    } catch (error) {
      if (error.code !== CHANGED.code) return say(error.detail || String(error));
      await recordings.renew(job.id);
      setChanged(changed + 1);
    }
  };
  const sure = () => {
    const edits = !changed && state.shown?.id === job.id ? state.shown.edits : null;
    seen.current = edits ? edits.revision : job.revision;
    return over && job.state === "done" ? document.getElementById(`sure-${job.id}`).showModal() : end();
  };
  useEffect(() => void (changed && sure()), [changed]);
  return html`<li class="job" data-state=${job.state}>
    <${Pick} id=${job.id} name=${called} how=${`${stateOf(job)}${sent}`} state=${state} recordings=${recordings} />
    <button type="button" class="bare" aria-label=${`${over ? "Delete" : "Cancel"} ${name}`} onClick=${sure}>${icon(over ? "trash" : "close")}</button>
    ${job.state === "running" && html`<progress max="1" value=${job.progress.fraction ?? undefined} aria-label=${`How far ${name} is`}></progress>`}
    ${job.state === "done" && html`<${Sure} id=${`sure-${job.id}`} title="Delete" act=${end}>Delete the transcript of <strong>${name}</strong>?${changed > 0 && " Somebody has changed it meanwhile."}<//>`}
  </li>`;
}

/** What is shown for who presses it. */
const Pick = ({ id, name, how, state, recordings }) => html`<button type="button" class="pick" aria-current=${state.selected === id ? "true" : undefined} onClick=${() => recordings.select(id)}>
  <${Name} name=${name} /><span class="how">${how}</span>
</button>`;

/** A name that is cut in its middle: recordings of a series begin alike, and files end alike. */
function Name({ name }) {
  const letters = [...name]; // whole ones: half an emoji is none
  return html`<span class="name" dir="auto" title=${name}><span>${letters.slice(0, -END).join("")}</span><span>${letters.slice(-END).join("")}</span></span>`;
}

/** A conversation that goes on. */
const Speaks = ({ state, recordings }) => html`<li class="job" data-state="live">
  <${Pick} id=${CONVERSATION} name="Conversation" how="In progress" state=${state} recordings=${recordings} />
</li>`;

/** A transcript that the service has deleted: what it was, when and why. */
function Deleted({ row, state, recordings }) {
  const name = nameOf(state, row);
  return html`<li class="job" data-state="deleted">
    <div class="pick"><${Name} name=${name} /><span class="how">${fateOf(row)}</span></div>
    <button type="button" class="bare" aria-label=${`Remove ${name} from the list`} onClick=${() => recordings.forget(row.id)}>${icon("close")}</button>
  </li>`;
}

/** What the same file fails with again. */
export const NO_REMEDY = new Set(["audio_empty", "audio_format_unsupported", "audio_undecodable", UNREADABLE.code]);

/** What somebody who looks at the list is to know of a take. */
export function standing({ source, state, live, error, found, lacks, sound }) {
  if (state === "recording") return source === "microphone" ? "Recording" : live === "paused" ? "Paused" : "Transcribing";
  if (state === "waiting") return "Waiting to upload";
  if (state === "sending") return "Uploading";
  if (error && source !== "captions") return error.detail;
  if (sound?.count === 0) return place(sound); // a conversation has none
  if (lacks) return `${clock(sound?.seconds)}, words are missing from its transcript`;
  return `${clock(sound?.seconds)}, ${found ? "not sent" : place(sound)}`;
}

/** Where it is that nobody else has it. */
export const place = (sound) => (sound?.stored ? "only in this browser" : "only in this page");

function Take({ take, state, recordings }) {
  const { id, name, source, error } = take;
  const { recorder } = recordings;
  const kept = take.state === "kept";
  const failed = kept && error && source !== "captions";
  const own = source !== "file";
  const drop = () => {
    if (state.selected === id) recordings.select("");
    recorder.drop(id);
  };
  const again = kept && take.sound?.count !== 0 && (source !== "captions" || take.found) && !NO_REMEDY.has(error?.code);
  return html`<li class="job" data-state=${failed ? "failed" : (take.live ?? take.state)}>
    <${Pick} id=${id} name=${name} how=${standing(take)} state=${state} recordings=${recordings} />
    ${take.state !== "recording" && html`<button type="button" class="bare" aria-label=${own ? `Delete ${name}` : `Remove ${name} from the list`} onClick=${() => (own ? document.getElementById(`sure-${id}`).showModal() : drop())}>${icon(own ? "trash" : "close")}</button>`}
    ${again && html`<div class="choice">
      <button type="button" class="again" onClick=${() => recorder.send(id)}>${error || take.lacks ? "Try again" : "Send"}</button>
      ${own && html`<button type="button" class="again" onClick=${() => recorder.save(id)}>Save the audio</button>`}
    </div>`}
    ${take.state === "sending" && html`<progress aria-label=${`${name} is being uploaded`}></progress>`}
    ${own && html`<${Sure} id=${`sure-${id}`} title="Discard" act=${drop}>Discard <strong>${name}</strong>, with its audio?<//>`}
  </li>`;
}

/** What is wrong with the microphone or the browser's storage while something is recorded. */
export function Warnings({ sound, muted }) {
  const minutes = Math.floor(sound?.room_s / 60);
  const full = !sound?.stored
    ? "This browser stores no more: what is recorded now is in this tab only. Leave the tab open until the recording is sent or saved."
    : minutes < SCARCE_MIN && `This browser has room for about ${counted(minutes, "minute")} more of the recording. Delete recordings or files that are not needed.`;
  return html`${muted && html`<p class="notice" role="status">${NO_SOUND}</p>`}
    ${full && html`<p class="notice" role="status">${full}</p>`}`;
}

function Intake({ state, store, recordings, empty, say }) {
  const files = useRef(null);
  const folder = useRef(null);
  const took = (event, all) => {
    const chosen = [...event.target.files];
    recordings.recorder.add(all ? recordingsAmong(chosen, say) : chosen);
    event.target.value = "";
  };
  const goes = (source) => state.takes.some((one) => one.source === source && one.state === "recording");
  const begin = (source) => async () => recordings.select(await recordings.recorder.begin(source));
  return html`<section class="intake" aria-label="New recording">
    <div class="drop">
      ${empty && html`<h1>Who said what, and when</h1>
      <p>Drop a recording here: a call, a meeting, an interview${only(state)}. You get a transcript with speakers and times.</p>`}
      <div class="choice">
        <button type="button" class="main" onClick=${() => files.current.click()}>${icon("add")} Choose files</button>
        <button type="button" class="folder" onClick=${() => folder.current.click()}>${icon("folder")} Folder</button>
        <${Begin} begin=${begin("microphone")} disabled=${goes("microphone")}>${icon("mic")} Record<//>
        <${Begin} begin=${begin("captions")} disabled=${goes("captions")}>${icon("live")} Live captions<//>
        <button type="button" onClick=${() => recordings.select(CONVERSATION)}>${icon("say")} Conversation</button>
      </div>
      <input ref=${files} class="unseen" id="files" type="file" multiple accept=${KINDS} tabindex="-1" aria-label="Recordings" onChange=${(event) => took(event, false)} />
      <input ref=${folder} class="unseen" id="folder" type="file" webkitdirectory tabindex="-1" aria-label="A folder of recordings" onChange=${(event) => took(event, true)} />
      ${empty && state.about?.sample && html`<${Sample} recordings=${recordings} />`}
      ${empty && html`<p class="quiet">wav, mp3, m4a, ogg, flac, webm, mp4 and most others.${here(state)}</p>`}
    </div>
    <${Options} state=${state} store=${store} />
  </section>`;
}

/** For who has no recording at hand: the one that comes with the service. */
function Sample({ recordings }) {
  const [wrong, attempt, busy] = useAttempt();
  return html`<p><button type="button" disabled=${Boolean(busy)} onClick=${() => attempt(() => recordings.trySample())}>Try a sample</button>
    <span class="quiet">Two people, 28 seconds, in English.</span></p>
    ${wrong && html`<${Trouble} error=${wrong} />`}`;
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
  const follows = (name) => !about || name in about.options;
  const limits = ({ minimum: min, maximum: max } = {}) => ({ type: "number", min, max });
  const refusals = state.takes.filter((one) => one.error && one.options === options).map((one) => one.error);
  const refused = (name) => refusals.find(({ code, detail }) => code.startsWith(name) || detail.includes(`'${name}'`));
  const wrong = (name) => refused(name) && html`<span class="trouble" role="alert">${refused(name).detail}</span>`;
  const named = useMemo(() => namedLanguages(languages), [about]);
  const field = (name, label, more) => html`<label>${label}
    <input value=${options[name] ?? ""} onInput=${(event) => set(name, event.target.value)} ...${more} />
    ${wrong(name)}
  </label>`;
  return html`<details class="options" open=${Object.keys(options).some(refused)}>
    <summary>Options${count > 0 && html` <span class="quiet">(${count} set)</span>`}</summary>
    <div class="fields">
      ${languages.length !== 1 && html`<label>Language
        <select id="language" value=${options.language ?? ""} onChange=${(event) => set("language", event.target.value)}>
          <option value="">as it is heard</option>
          ${named.map(([tag, name]) => html`<option value=${tag}>${name}</option>`)}
        </select>
        ${wrong("language")}
      </label>`}
      ${follows("num_speakers") && field("num_speakers", "How many people speak", { ...limits(about?.options.num_speakers), placeholder: "unknown" })}
      ${follows("hotwords") && field("hotwords", "Names and terms that may be said", { placeholder: "Nagg, Nell" })}
      <label class="check"><input type="checkbox" checked=${options.channels === "separate"} onChange=${(event) => set("channels", event.target.checked && "separate")} />
        One person on each channel, as in recorded calls</label>
    </div>
  </details>`;
}

/** A button that wants the microphone, and why it has none. */
function Begin({ begin, disabled, children }) {
  const [wrong, attempt, busy] = useAttempt();
  return html`<button type="button" disabled=${disabled || Boolean(busy)} onClick=${() => attempt(begin)}>${children}</button>
    ${wrong && html`<p class="trouble" role="alert">${wrong.detail}</p>`}`;
}

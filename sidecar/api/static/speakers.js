/** Who speaks: the lanes' names, and what can be done to a speaker. */

import { client } from "./session.js";
import { html, icon, Trouble, useAttempt, useEffect, useRef, useState } from "./view.js";
import { called, counted, numberOf } from "./words.js";

/** Whether the service has had its answer since the page was loaded. */
let agreed = false;

/**
 * Have a speaker of a job identified in later recordings: somebody new, or one more recording of
 * somebody who is known by that name.
 *
 * @param {boolean} consent whether the service asks once if it may store voices
 * @returns {Promise<boolean>} whether it is somebody new
 */
async function remember(name, job, speaker, consent) {
  const asks = consent && !agreed;
  const { people } = asks ? { people: [] } : await client().question("/v1/people");
  const known = people.find((one) => one.name === name);
  const path = known ? `/v1/people/${encodeURIComponent(known.id)}` : "/v1/people";
  const json = known ? { job, speaker } : { name, job, speaker, ...(asks && { consent }) };
  await client().question(path, { method: known ? "PATCH" : "POST", json, once: true, long: true });
  agreed = true;
  return !known;
}

/** From this likeness on two voices may well be one. */
const ALIKE = 0.55;

/** Everybody with their share; a button each, where they can be edited. */
export function Lanes({ lanes, below, open, names }) {
  const heard = lanes.reduce((sum, one) => sum + one.seconds, 0);
  return html`<ul ref=${names} class=${`lanes ${below ? "below" : ""}`} aria-label="Speaking time of each speaker">
    ${lanes.map((one) => {
      const number = numberOf(one.speaker);
      const share = `${heard ? Math.round((100 * one.seconds) / heard) : 0} %`;
      const who = html`<span class="badge" aria-hidden="true">${number ?? "?"}</span><span class="name" dir="auto">${one.name}</span><span class="quiet share">${share}</span>`;
      return html`<li key=${one.speaker} data-voice=${number === null ? undefined : String(number % 8)}>
        ${open ? html`<button type="button" class="lane" data-speaker=${one.speaker} aria-label=${`${one.name}, ${share}. Rename or merge`} onClick=${() => open(one.speaker)}>${who}${icon("edit")}</button>` : who}
      </li>`;
    })}
  </ul>`;
}

/** Rename a speaker, make it another's, or have its voice remembered. Open while there is a `speaker`. */
export function SpeakerDialog({ speaker, lanes, job, heard, people, consent, editing, close, say }) {
  const dialog = useRef(null);
  const one = lanes.find((lane) => lane.speaker === speaker);
  useEffect(() => {
    if (one && !dialog.current.open) dialog.current.showModal();
    else if (!one && dialog.current.open) dialog.current.close();
  }, [speaker, !one]);
  return html`<dialog ref=${dialog} class="small" aria-labelledby="speaker" onClose=${close} onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
    ${one && html`<${Speaker} key=${`${speaker} ${one.seconds}`} one=${one} others=${lanes.filter((lane) => lane !== one)} job=${job} heard=${heard.find((each) => each.speaker === speaker)} people=${people} consent=${consent} editing=${editing} close=${() => dialog.current.close()} say=${say} />`}
  </dialog>`;
}

function Speaker({ one, others, job, heard, people, consent, editing, close, say }) {
  const [name, setName] = useState(one.named ? one.name : "");
  const [into, setInto] = useState(others[0]?.speaker ?? "");
  const field = useRef(null);
  const [wrong, attempt, busy] = useAttempt();
  const label = called(one.speaker);
  const nameIt = async () => {
    const { value } = field.current;
    const said = value.trim() || null;
    const operation = { op: "rename", speaker: one.speaker, name: said };
    const isNew = said !== (one.named ? one.name : null);
    if (isNew && !(await editing.apply([operation], `${label} is ${said ? `called ${said}` : "called nothing else"} now.`))) throw editing.wrong;
    if (field.current?.value === value) close(); // or more was typed meanwhile
  };
  const rename = (event) => {
    event.preventDefault();
    if (!busy) attempt(nameIt);
  };
  const merge = async (event) => {
    event.preventDefault();
    close();
    const other = others.find((each) => each.speaker === into);
    if (await editing.apply([{ op: "merge", speaker: one.speaker, into }], `${one.name} was merged into ${other.name}.`))
      document.querySelector(`.lane[data-speaker="${into}"]`)?.focus(); // what had it is gone
  };
  const split = () => {
    close();
    editing.apply([{ op: "split_speaker", speaker: one.speaker }], ({ parts: [part] }) =>
      `${one.name} is ${part.groups.length} speakers now, by voice.${part.likeness < ALIKE ? "" : " They sound alike: if they are one person, undo it."}`);
  };
  const know = async () => {
    const fresh = await remember(one.name, job.id, one.speaker, consent);
    say(fresh ? `${one.name} is enrolled.` : `One more clip of ${one.name} is enrolled.`);
    close();
  };
  return html`
    <div class="top"><h2 id="speaker">${one.name}</h2>
      <button type="button" class="bare" aria-label="Close" onClick=${close}>${icon("close")}</button></div>
    ${heard?.person && heard.name === one.name && html`<p class="quiet asked">Recognised by voice; the likeness is ${heard.likeness.toFixed(2)}.</p>`}
    <form class="asked" onSubmit=${rename}>
      <label for="called">Name</label>
      <div class="pair"><input ref=${field} id="called" autofocus maxlength="200" autocomplete="off" placeholder=${label} value=${name} onInput=${(event) => setName(event.target.value)} />
        <button type="submit" class="main">Save</button></div>
    </form>
    ${job.gone && html`<p class="quiet">The service has deleted this transcript, so only names and lines can be changed.</p>`}
    ${others.length > 0 && !job.gone && html`<form class="asked" onSubmit=${merge}>
      <label for="same">The same person as</label>
      <div class="pair"><select id="same" value=${into} onChange=${(event) => setInto(event.target.value)}>
          ${others.map((each) => html`<option value=${each.speaker}>${each.name}</option>`)}
        </select><button type="submit">Merge</button></div>
    </form>`}
    ${people && one.named && !heard?.person && !job.gone && html`<div class="asked">
      <p class="quiet">Voices are biometric data: have ${one.name} recognised in later recordings only if that is all right.${consent && " With this first one you agree that they are stored on this computer, encrypted, with a key in its keyring."}</p>
      <button type="button" onClick=${() => attempt(know)}>Remember this voice</button>
    </div>`}
    ${wrong && html`<${Trouble} error=${wrong} />`}
    ${people && !job.gone && html`<div class="asked"><button type="button" onClick=${split}>Split by voice</button></div>`}
    ${!job.gone && html`<p class="quiet">To split a speaker${people ? " by hand" : ""}, select its lines (the box beside the pencil at the end of a line, or X on a line's time) and assign them to a new speaker.</p>`}
  `;
}

/** Another number of speakers for the recording: it concerns none of them alone. */
export function HowMany({ job, editing }) {
  const dialog = useRef(null);
  const [number, setNumber] = useState("");
  const again = (event) => {
    event.preventDefault();
    dialog.current.close();
    const said = ({ speakers, not_carried: lost }) =>
      `${counted(speakers.length, "speaker")} now.${lost.names.length ? ` Nobody is called ${lost.names.join(" or ")} any more: if that is wrong, undo it.` : ""}`;
    editing.apply([{ op: "diarize" }], said, (id, revision) => client().diarize(id, { num_speakers: Number(number) || undefined, revision }));
  };
  return html`<button type="button" class="bare" aria-haspopup="dialog" aria-label="How many people speak" title="How many people speak" onClick=${() => (setNumber(""), dialog.current.showModal())}>${icon("people")}</button>
    <dialog ref=${dialog} class="small" aria-labelledby="how-many" onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
      <div class="top"><h2 id="how-many">How many people speak</h2>
        <button type="button" class="bare" aria-label="Close" onClick=${() => dialog.current.close()}>${icon("close")}</button></div>
      <form class="asked" onSubmit=${again}>
        <label for="number">In all of this recording</label>
        <div class="pair"><input id="number" type="number" min="1" max="20" placeholder="unknown" value=${number} onInput=${(event) => setNumber(event.target.value)} />
          <button type="submit" class="main">Tell them apart again</button></div>
      </form>
    </dialog>`;
}

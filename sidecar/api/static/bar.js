/** The head of the page: how the service is, what it has loaded, what is missing, how it looks. */

import { Keys } from "./keys.js";
import { look, theme } from "./memory.js";
import { Models } from "./models.js";
import { client } from "./session.js";
import { html, icon, Trouble, useAttempt, useEffect, useRef, useState } from "./view.js";
import { counted, languagesOf, spoken, gigabytes, trouble } from "./words.js";

const NEXT = { auto: "dark", dark: "light", light: "auto" };
const SAID = { auto: "system default", dark: "dark", light: "light" };
const USUAL_S = 3600;
const HERE = /^(localhost|127\.[\d.]+|\[::1\])$/;

/** How the service is, in a few words, and how good that is. */
export function standing({ health, offline }) {
  if (offline) return ["Not reachable", "bad"];
  if (!health) return ["Connecting", "idle"];
  if (health.status === "stopping") return ["Stopping", "bad"];
  if (health.status === "loading") return [`Loading, ${health.load_percent ?? 0} %`, "busy"];
  if (health.engine_state === "stuck") return ["The engine does not respond", "bad"];
  if (health.engine_state === "busy") {
    return [health.jobs_waiting ? `Transcribing, ${health.jobs_waiting} waiting` : "Transcribing", "busy"];
  }
  return ["Ready", "good"];
}

/** Which languages are understood, and where. */
function where({ engine }) {
  const place = engine.name === "upstream" ? "sent to another server" : HERE.test(location.hostname) ? "on this computer" : "on the server";
  return engine.languages.length ? `${languagesOf(engine.languages)}, ${place}` : place[0].toUpperCase() + place.slice(1);
}

export function Bar({ state, recordings, say }) {
  const dialog = useRef(null);
  const [open, setOpen] = useState(false);
  const [looks, setLooks] = useState(theme());
  const [text, mood] = standing(state);
  const serious = state.about?.findings.length ?? 0;
  const show = () => {
    setOpen(true);
    dialog.current.showModal();
  };
  const turn = () => {
    look(NEXT[looks]);
    setLooks(NEXT[looks]);
    dispatchEvent(new Event("looks"));
  };
  return html`<header class="bar">
    <p class="brand">vibevoice-asr</p>
    <button type="button" class="status" data-mood=${mood} onClick=${show} aria-haspopup="dialog">
      <span class="dot" aria-hidden="true"></span>${text}
      ${state.about && state.health && !state.offline && html`<span class="quiet">${where(state.about)}</span>`}
      ${serious > 0 && html`<span class="count">${counted(serious, "finding")}</span>`}
    </button>
    <button type="button" class="bare" onClick=${turn} aria-label=${`Colors: ${SAID[looks]}. Change`}>${icon(looks === "dark" ? "moon" : "sun")}</button>
    <${Keys} />
    <dialog ref=${dialog} aria-labelledby="service" onClose=${() => setOpen(false)} onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
      ${open && html`<${Engine} state=${state} recordings=${recordings} say=${say} close=${() => dialog.current.close()} />`}
    </dialog>
    ${state.offline && html`<div class="banner" role="alert"><strong>The service does not answer.</strong> Was it ended, or is it being restarted? This page waits for it and goes on then. To start it: <code>vibevoice-asr</code></div>`}
    ${state.refused && !state.offline && html`<div class="banner" role="alert"><strong>${state.refused.detail}</strong> ${state.refused.hint}</div>`}
  </header>`;
}

function Engine({ state, recordings, say, close }) {
  const { health, about } = state;
  if (!health || !about) return html`<h2 id="service">The service</h2><p>No information yet.</p>`;
  const memory = health.vram_total_mb;
  return html`
    <div class="top"><h2 id="service">The service</h2>
      <button type="button" class="bare" aria-label="Close" onClick=${close}>${icon("close")}</button></div>
    <dl class="facts">
      <dt>Engine</dt><dd>${about.engine.title}</dd>
      <dt>Loaded</dt><dd>${health.model_loaded ? `yes, in ${health.precision}` : "no; it loads with the next recording"}</dd>
      <dt>Now</dt><dd>${standing(state)[0]}</dd>
      <dt>Waiting</dt><dd>${counted(health.jobs_waiting, "recording")}</dd>
      ${memory && html`<dt>GPU memory</dt><dd><meter min="0" max=${memory} value=${health.vram_used_mb} aria-label="GPU memory used"></meter> ${gigabytes(health.vram_used_mb)} of ${gigabytes(memory)}</dd>`}
      <dt>Keeps</dt><dd>${about.keeps_jobs ? `jobs and transcripts${about.keeps_recordings ? ", and recordings to be listened to," : ""} on disk, also over a restart` : `transcripts for ${spoken(about.keeps_seconds)} after they were last read or edited, in memory`}</dd>
      ${about.signed_in_as && html`<dt>Signed in as</dt><dd>${about.signed_in_as}</dd>`}
      <dt>Version</dt><dd>${about.version}</dd>
    </dl>
    <${Precision} state=${state} recordings=${recordings} say=${say} />
    ${about.may_pull && html`<${Models} may_reload=${about.may_reload} recordings=${recordings} say=${say} />`}
    <h3>Findings</h3>
    ${about.findings.length ? html`<ul class="findings">${about.findings.map((one) => html`<li data-state=${one.state}>
      <strong>${{ warning: "Warning", bad: "Error" }[one.state]}: ${one.topic}</strong> ${one.text}
      ${one.remedy && html`<br /><span class="remedy">${one.remedy}</span>`}
    </li>`)}</ul>` : html`<p>Nothing.</p>`}
  `;
}

/** Which precision is loaded; another one, with what it takes said before. */
function Precision({ state, recordings, say }) {
  const { about, health, jobs, selected } = state;
  const seconds = jobs.find((job) => job.id === selected)?.duration || USUAL_S;
  const [plans, setPlans] = useState(null);
  const [wish, setWish] = useState(health.precision);
  const [wrong, attempt, busy] = useAttempt();
  const { precisions } = about.engine;
  useEffect(() => {
    let gone = false;
    const ask = (precision) =>
      client().question("/v1/estimate", { method: "POST", json: { duration: seconds, precision } }).catch((error) => ({ fits: false, sentence: trouble(error).detail }));
    Promise.all(precisions.map(ask)).then((all) => gone || setPlans(all));
    return () => (gone = true);
  }, [health.instance, seconds]);
  const load = async (event) => {
    event.preventDefault();
    await attempt(async () => {
      await client().question("/reload-model", { method: "POST", json: { precision: wish }, once: true, long: true });
      say(`${wish} is loaded.`);
    });
    recordings.look();
  };
  return html`<form onSubmit=${load} class="precision">
    <fieldset disabled=${Boolean(busy) || !about.may_reload}>
      <legend>Precision, and what ${seconds === USUAL_S ? "an hour" : "this recording"} takes with it</legend>
      ${precisions.map((one, i) => html`<label class="plan">
        <input type="radio" name="precision" value=${one} checked=${wish === one} onChange=${() => setWish(one)} />
        <span><strong>${one}</strong>${one === health.precision && html` <span class="quiet">in use</span>`}<br /><span class="quiet">${plans?.[i]?.sentence ?? "…"}</span></span>
      </label>`)}
    </fieldset>
    ${wrong && html`<${Trouble} error=${wrong} />`}
    ${about.may_reload ? html`<button type="submit" class="main" disabled=${Boolean(busy) || (wish === health.precision && health.model_loaded)}>${busy ? "Loading" : `Load ${wish}`}</button>` : html`<p class="quiet">Your token does not allow a change.</p>`}
  </form>`;
}

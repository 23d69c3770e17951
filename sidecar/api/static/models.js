/** The models that the service can use: those that are there, and downloads of others. */

import { client } from "./session.js";
import { html, Trouble, useAttempt, useEffect, useState } from "./view.js";
import { languagesOf, trouble } from "./words.js";

/** Downloads that run, by name; they go on while the dialog is closed, and end with the page. */
const downloads = new Map();
let redraw = () => {};

const size = (bytes) => (bytes ? `${(bytes / 1e9).toFixed(bytes < 1e9 ? 2 : 1)} GB` : "");

/** What a model is for, in a few words. */
function abilities({ languages, live, recordings, download_bytes, bytes }) {
  return [languagesOf(languages), !live ? "not live" : recordings ? "" : "live only", size(bytes || download_bytes)].filter(Boolean).join(" · ");
}

/** What the service transcribes with it now; one of an older release does not say. */
const standing = ({ used_for: uses = [] }) =>
  uses.length ? `in use for ${uses.map((use) => (use === "live" ? "live audio" : use)).join(" and ")}` : "installed";

async function pull(name, ended) {
  const one = { part: 0, abort: new AbortController() };
  downloads.set(name, one);
  redraw();
  let wrong = null;
  try {
    for await (const { kind, data } of client().pullModel(name, { signal: one.abort.signal }))
      if (kind === "progress") [(one.part = data.bytes_done / Math.max(1, data.bytes_total)), redraw()];
  } catch (error) {
    if (!one.abort.signal.aborted) wrong = trouble(error);
  }
  downloads.delete(name);
  ended(wrong, one.abort.signal.aborted);
}

export function Models({ may_reload, recordings, say }) {
  const [models, setModels] = useState([]);
  const [wrong, attempt, loading] = useAttempt();
  const [, count] = useState(0);
  const look = async () => setModels((await client().models()).filter((one) => one.installed || !one.lacking.length));
  useEffect(() => {
    redraw = () => count((before) => before + 1);
    void attempt(look, "");
    return () => (redraw = () => {});
  }, []);
  const ended = (name) => (error, stopped) =>
    attempt(async () => {
      if (error) throw error;
      say(`${name}: the download ${stopped ? "was stopped" : "has ended"}.`);
      await look();
    }, "");
  const use = async (name) => {
    const load = async () => {
      await client().question("/reload-model", { method: "POST", json: { model: name }, once: true, long: true });
      say(`${name} is loaded for recordings.`);
      await look();
    };
    await attempt(load, name);
    recordings.look();
  };
  return html`<details class="models">
    <summary>Models</summary>
    ${wrong && html`<${Trouble} error=${wrong} />`}
    <ul>${models.map((one) => html`<li key=${one.name} class="plan">
      <span><strong>${one.name}</strong><br /><span class="quiet">${abilities(one)}</span></span>
      <${Standing} model=${one} ended=${ended(one.name)} loading=${loading} use=${may_reload && one.recordings && use} />
    </li>`)}</ul>
    <p class="quiet">A model in use transcribes recordings from the next one on, until the service ends. A download that is stopped goes on later where it was.</p>
  </details>`;
}

function Standing({ model, ended, loading, use }) {
  const { name, installed, bytes, used_for } = model;
  const running = downloads.get(name);
  if (running) {
    return html`<span><progress value=${running.part} aria-label=${`Download of ${name}`}></progress>
      <button type="button" onClick=${() => running.abort.abort()}>Stop</button></span>`;
  }
  if (installed) {
    return html`<span><span class="quiet">${standing(model)}</span>${use && !used_for?.includes("recordings") && html`
      <button type="button" disabled=${!!loading} onClick=${() => void use(name)} aria-label=${`Use ${name}`}>${loading === name ? "Loading" : "Use"}</button>`}</span>`;
  }
  return html`<button type="button" onClick=${() => void pull(name, ended)} aria-label=${`Download ${name}`}>${bytes ? "Go on" : "Download"}</button>`;
}

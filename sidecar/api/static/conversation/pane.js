/** A spoken conversation: begun, seen and heard while it goes on, and what can be done with it then. */

import { keepsTalks, keepTalks } from "../memory.js";
import { client } from "../session.js";
import { Downloads, Head, html, icon, Meter, save, Trouble, useAttempt, useEffect, useEnd, useEvents, useRef, useState } from "../view.js";
import { composes, spoken, voiceOf } from "../words.js";

const PHASES = {
  idle: "Your turn: speak, or type.",
  listening: "Listening.",
  generating: "Generating the answer. Escape cancels it.",
  speaking: "Speaking. To interrupt, speak, or press Escape or the space bar.",
};
const READS = { ...PHASES, idle: "Your turn: speak, or type. Answers are text only.", speaking: PHASES.generating };
const STATES = { opening: "Starting.", ending: "Ending.", over: "Ended." };
const ENDINGS = { interrupted: "interrupted", cancelled: "interrupted by you", limited: "cut at the length limit", failed: "did not work" };

export function ConversationPane({ conversations, recordings }) {
  const { going } = conversations;
  const over = !going || going.state === "over";
  const wrong = going && (going.wrong ?? going.told.wrong);
  return html`<main class="pane" id="main" tabindex="-1" aria-label="Conversation">
    <${Head} title="Conversation" facts=${!going ? "Speak, and hear the answer." : over || going.state !== "live" ? STATES[going.state] : facts(going)} recordings=${recordings}>
      ${going && over && going.told.lines.length > 0 && html`<${Written} going=${going} conversations=${conversations} />`}
    <//>
    ${over ? html`<${Start} conversations=${conversations} again=${Boolean(going)} />` : html`<${Controls} going=${going} />`}
    ${going?.mute && html`<p class="notice" role="status">The browser keeps the sound back. Click anywhere on the page to hear it.</p>`}
    ${going?.late && !over && html`<p class="notice" role="status">The connection is slow. What you say is kept, and sent as soon as it can be.</p>`}
    ${wrong && html`<${Trouble} error=${wrong} />`}
    ${going?.unsentS > 0 && html`<p class="notice" role="status">The last ${spoken(going.unsentS)} of what you said did not reach the service.</p>`}
    ${going?.deaf && !over && html`<p class="notice" role="status">${going.deaf} Until then, type.</p>`}
    ${going && html`<${Lines} going=${going} over=${over} />`}
    ${going && (!over || conversations.draft) && html`<${Typed} going=${going} conversations=${conversations} />`}
  </main>`;
}

const said = ({ state, told }) => (state === "live" ? (told.began.spoken ? PHASES : READS)[told.phase] : STATES[state]);
const facts = ({ speaks, told: { began } }) => `${began.spoken ? `You hear synthetic speech (${speaks})` : "No TTS voice: answers are text only"} · answers by ${began.model}`;

/** Who takes part, and the beginning. */
function Start({ conversations, again }) {
  const [parts, setParts] = useState(null);
  const [wrong, attempt] = useAttempt();
  const [wishes, setWishes] = useState(conversations.wishes);
  useEffect(() => void attempt(async () => setParts(await client().question("/v1/talk", { once: true, long: true }))), []);
  const wish = (change) => setWishes((conversations.wishes = { ...wishes, ...change }));
  const begin = (typed) => conversations.begin({ ...wishes, typed, speaks: parts.speaks?.name });
  if (wrong) return html`<${Trouble} error=${wrong} />`;
  if (!parts) return html`<p class="quiet">Loading.</p>`;
  const { hears, thinks, speaks, remedy } = parts;
  return html`<section class="starting" aria-label="New conversation">
    ${thinks.name === "repeat" && thinks.models.length === 1 && html`<p class="notice">No language model is set: what you say is said again, so that you can try it. For one that answers, start the service with <code>--llm auto</code>.</p>`}
    ${speaks ? html`<p>Answers are spoken by a synthetic voice: <strong>${speaks.title}</strong>.</p>` : html`<p class="notice">There is no TTS voice, so answers are text only. ${remedy}</p>`}
    <div class="fields wide">
      <label>Language model
        <select value=${wishes.model} onChange=${(event) => wish({ model: event.target.value })}>
          ${["", ...thinks.models].map((one) => html`<option key=${one} value=${one}>${one || `default: ${thinks.name}`}</option>`)}
        </select>
      </label>
      ${speaks && html`<label>Voice
        <select value=${wishes.voice} onChange=${(event) => wish({ voice: event.target.value })}>
          ${["", ...speaks.voices].map((one) => html`<option key=${one} value=${one}>${voiceOf(one) || `default: ${voiceOf(speaks.voice || speaks.name)}`}</option>`)}
        </select>
      </label>`}
    </div>
    <div class="choice">
      ${hears && html`<button type="button" class="main" onClick=${() => begin(false)}>${icon("mic")} ${again ? "Start again" : "Start"}</button>`}
      ${hears && html`<button type="button" onClick=${() => begin(true)}>Only type</button>`}
      ${!hears && html`<p class="notice">No engine of this service hears live audio.</p>`}
    </div>
  </section>`;
}

/** What interrupts by key: nothing that is typed, and no button. */
const QUIETS = (event) => event.key === "Escape" || (event.key === " " && !event.target.closest?.("input, textarea, button, select, summary, a, [role=button]"));

function Controls({ going }) {
  const [keeps, setKeeps] = useState(keepsTalks());
  useEffect(() => document.getElementById("main").focus({ preventScroll: true }), []);
  const pressed = (event) => {
    if (!QUIETS(event) || composes(event) || event.defaultPrevented || document.querySelector("dialog[open], :popover-open")) return;
    event.preventDefault();
    going.interrupt();
  };
  useEvents({ keydown: pressed, pointerup: () => going.touched() }, [going]);
  const live = going.state === "live";
  const began = going.told.began;
  return html`<div class="recording talking" role="group" aria-label="Conversation" data-state=${going.state} data-phase=${going.told.phase}>
    <${Meter} source=${going} label="Loudness of your voice" timed=${false} />
    <button type="button" disabled=${!live} onClick=${() => going.interrupt()} aria-keyshortcuts="Escape">${icon("quiet")} Interrupt</button>
    <label class="check"><input type="checkbox" checked=${keeps} onChange=${(event) => (keepTalks(event.target.checked), setKeeps(event.target.checked))} /> Keep as a transcript</label>
    <button type="button" class="main" onClick=${() => going.end(keeps)}>${icon("stop")} Stop</button>
    <p class="quiet kept">${said(going)}${began?.spoken && " The voice is synthetic."}</p>
  </div>`;
}

function Lines({ going, over }) {
  const { lines, began } = going.told;
  const end = useEnd(over || lines);
  return html`<div class="said-list" role="log" aria-label="What was said" aria-live=${began?.spoken ? "off" : "polite"}>
    ${lines.map((line) => html`<${Line} key=${line.key} line=${line} />`)}
    <div ref=${end} class="end"></div>
  </div>`;
}

function Line({ line }) {
  const machine = line.who === "machine";
  return html`<div class="utterance" data-voice=${machine ? 1 : 0} data-who=${line.who} data-open=${line.open ? "yes" : "no"}>
    <p class="who"><span class="badge" aria-hidden="true">${machine ? "M" : "Y"}</span><span class="name">${machine ? "Assistant" : "You"}</span>${ENDINGS[line.ending] && html` <span class="quiet">${ENDINGS[line.ending]}</span>`}</p>
    <p class=${`words ${line.open ? "quiet" : ""}`}>${line.text || "…"}</p>
    ${line.stages && html`<${Bars} stages=${line.stages} />`}
  </div>`;
}

/** What is typed and not sent yet stays, whatever ends the conversation. */
function Typed({ going, conversations }) {
  const field = useRef(null);
  const sent = (event) => {
    event.preventDefault();
    going.say(conversations.draft);
    conversations.draft = field.current.value = "";
  };
  return html`<form class="typed" onSubmit=${sent}>
    <input ref=${field} aria-label="Type a message" placeholder="Type a message" autocomplete="off" maxlength="2000" defaultValue=${conversations.draft} onInput=${(event) => (conversations.draft = event.target.value)} />
    <button type="submit" disabled=${going.state !== "live"}>Send</button>
  </form>`;
}

/** What a conversation that is over can be taken away as. */
function Written({ going, conversations }) {
  const { lines } = going.told;
  const ended = going.carries ? null : going.ended; // the service knows only the last part
  const written = ended?.written ?? { text: lines.map(({ who, text }) => `${who === "machine" ? "Assistant" : "You"}: ${text}\n`).join("") };
  const whole = `${JSON.stringify(ended?.transcript ?? { lines: lines.map(({ who, text }) => ({ who, text })) }, null, 2)}\n`;
  const taken = (content) => (ending) => {
    save(content, `Conversation ${conversations.at}.${ending}`);
    conversations.saved();
  };
  const items = [["Text", "txt", taken(written.text)], written.srt && ["Subtitles", "srt", taken(written.srt)], ["Everything", "json", taken(whole)]];
  return html`<div class="choice"><${Downloads} items=${items} /></div>`;
}

const STAGES = [
  ["pause_s", "pause"],
  ["thought_s", "thought"],
  ["voiced_s", "voice"],
];
const WIDE = 48;
/** A full bar. */
const FULL_S = 1;

const took = (seconds) => (seconds >= 10 ? `${seconds.toFixed(0)} s` : `${Math.round(seconds * 1000)} ms`);

/** Where the time went before an answer was heard: a small bar for each stage. */
function Bars({ stages }) {
  const shown = STAGES.filter(([stage]) => stages[stage] > 0);
  return html`<ul class="stages quiet" aria-label="How long it took">
    ${shown.map(([stage, name]) => html`<li key=${stage}>${name}
      <svg viewBox=${`0 0 ${WIDE} 6`} width=${WIDE} height="6" aria-hidden="true">
        <rect class="rail" width=${WIDE} height="6" rx="3" /><rect width=${Math.min(1, stages[stage] / FULL_S) * WIDE} height="6" rx="3" />
      </svg> ${took(stages[stage])}</li>`)}
    <li>in all ${took(stages.total_s)}</li>
  </ul>`;
}

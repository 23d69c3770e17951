/** The page: put together here. */

import { Aside, filesIn } from "./aside.js";
import { Bar } from "./bar.js";
import { CONVERSATION } from "./conversations.js";
import { dress } from "./memory.js";
import { Pane } from "./pane.js";
import { Recordings } from "./recordings.js";
import { arrive } from "./session.js";
import { asks, isListed } from "./states.js";
import { Store } from "./store.js";
import { TakePane } from "./takepane.js";
import { html, icon, render, Trouble, useAwake, useCover, useEffect, useEvents, useRef, useState } from "./view.js";
import { trouble } from "./words.js";

const store = new Store({
  about: null,
  arrival: null,
  conversation: null,
  copies: new Map(),
  deleted: [],
  health: null,
  jobs: [],
  loaded: false,
  locked: false,
  names: new Map(),
  offer: null,
  offline: false,
  options: {},
  problem: null,
  refused: null,
  selected: "",
  shown: null,
  takes: [],
});

function say(text) {
  document.getElementById("said").textContent = text;
}

const recordings = new Recordings(store, say);

function App() {
  const [all, setState] = useState(store.state);
  const state = seen(all);
  const [over, setOver] = useState(false);
  useEffect(() => void (store.tell = setState), []);
  useAwake(all.takes.some((one) => one.state === "recording") || all.conversation?.state === "live");
  const depth = useRef(0);
  const holds = (event) => event.dataTransfer?.types.includes("Files");
  useEvents({
    dragenter: (event) => holds(event) && (event.preventDefault(), (depth.current += 1), setOver(true)),
    dragover: (event) => holds(event) && event.preventDefault(),
    dragleave: (event) => holds(event) && (depth.current -= 1) <= 0 && setOver(false),
    drop: async (event) => {
      if (!holds(event)) return;
      event.preventDefault();
      depth.current = 0;
      setOver(false);
      recordings.recorder.add(await filesIn(event.dataTransfer, say, (name) => recordings.recorder.refuse(name)));
    },
    beforeunload: (event) => {
      const { takes, conversation, copies } = store.state;
      const corrects = [...recordings.editing.fields.values()].some((one) => one.changed);
      const corrected = [...copies.values()].some((one) => one.corrected && !one.kept);
      if (corrects || corrected || [...recordings.parted.values(), { conversation }].some((one) => one.conversation?.saved === false) || takes.some(asks)) event.preventDefault();
    },
  });
  const speaks = state.selected === CONVERSATION;
  const empty = state.loaded && !speaks && !state.jobs.length && !state.takes.some(isListed) && !state.copies.size && !state.deleted.length;
  const take = state.takes.find((one) => (state.selected ? one.id === state.selected : isUrgent(one)));
  const door = state.offer ? html`<${Offer} offer=${state.offer} />` : state.locked && html`<${Door} state=${state} />`;
  const view = empty ? "empty" : state.selected ? "transcript" : "list";
  return html`
    ${door && html`<div class="cover">${door}</div>`}
    <div inert=${Boolean(door)}>
    <a class="skip" href="#main">To the transcript</a>
    <${Bar} state=${state} recordings=${recordings} say=${say} />
    ${state.arrival && !door && html`<div class="banner"><${Trouble} error=${state.arrival} /></div>`}
    <div class="page" data-view=${view} data-ready=${state.loaded ? "yes" : "no"}>
      <${Aside} state=${take ? { ...state, selected: take.id } : state} store=${store} recordings=${recordings} empty=${empty} say=${say} />
      ${take && html`<${TakePane} key=${take.id} take=${take} state=${state} recordings=${recordings} />`}
      ${speaks && html`<${Late} module="./conversation/pane.js" name="ConversationPane" conversations=${recordings.conversations} recordings=${recordings} />`}
      ${!empty && !take && !speaks && html`<${Pane} key=${state.selected} state=${state} recordings=${recordings} say=${say} />`}
    </div>
    ${over && html`<div class="over" aria-hidden="true"><p>Drop to transcribe</p></div>`}
    </div>
  `;
}

/** What is shown where nothing was chosen: a microphone that is on, or why a file is no transcript. */
const isUrgent = ({ source, state }) => (source === "microphone" && state === "recording") || (source === "file" && state === "kept");

/** What whoever is signed in sees: of others only that the microphone is on. */
function seen({ takes, copies, ...more }) {
  const { own } = recordings.recorder;
  const those = (one) => (own(one) ? [one] : one.state === "recording" ? [{ ...one, segments: [], tail: [] }] : []);
  return { ...more, takes: takes.flatMap(those), copies: new Map([...copies].filter(([, one]) => own(one))) };
}

/** A part of the page that is fetched when it is wanted. */
function Late({ module, name, ...props }) {
  const [part, setPart] = useState(null);
  useEffect(() => {
    import(module).then((found) => setPart(() => found[name]), (error) => setPart(() => () => html`<main class="pane" id="main" tabindex="-1"><${Trouble} error=${trouble(error)} /></main>`));
  }, []);
  return part ? html`<${part} ...${props} />` : html`<main class="pane quietly" id="main" tabindex="-1"></main>`;
}

/** Where a link would sign the visitor in by a name. */
function Offer({ offer: { token, signed_in_as: name } }) {
  const cover = useCover();
  const enter = () => {
    store.set({ offer: null });
    recordings.enter(token);
  };
  return html`<div ref=${cover} class="door" role="dialog" aria-modal="true" aria-label="Sign in" tabindex="-1">
    <h1>Sign in as ${name}?</h1>
    <p>This link signs you in as <strong>${name}</strong>. Whatever you send or record here then belongs to ${name}, who can read it.</p>
    <p>If you are not ${name}, this link is not yours: do not sign in.</p>
    <p><button class="main" type="button" onClick=${enter}>Sign in as ${name}</button>
      <button type="button" onClick=${() => store.set({ offer: null })}>Do not sign in</button></p>
  </div>`;
}

/** What was pasted, without what is not the token's. */
const tokenIn = (text) => text.trim().replace(/^Bearer\s+/i, "").replace(/[\r\n]/g, "");

/** Where a token is wanted and none is here. It is tried before the page goes on. */
function Door({ state }) {
  const cover = useCover();
  const [busy, setBusy] = useState(false);
  const enter = async (event) => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    await recordings.enter(tokenIn(new FormData(event.target).get("token")));
    setBusy(false);
  };
  const local = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  const going = state.takes.filter((one) => one.state === "recording");
  const stop = () => going.forEach(({ id }) => recordings.recorder.going(id)?.end());
  const wrong = state.arrival;
  return html`<div ref=${cover} class="door" role="dialog" aria-modal="true" aria-label="Sign in" tabindex="-1">
    <h1><span class="brand">vibevoice-asr</span> Sign in</h1>
    ${going.length > 0 && html`<p class="notice" role="status">The recording goes on. Its audio is kept in this browser.</p>
      <p><button type="button" onClick=${stop}>${icon("stop")} Stop recording</button></p>`}
    ${local && html`<p>On this machine, type <code>vibevoice-asr open</code>: this page opens, signed in.</p>`}
    <form onSubmit=${enter}>
      ${wrong && html`<div id="wrong"><${Trouble} error=${wrong} /></div>`}
      <label for="token">${local ? "Or enter" : "Enter"} your token, or the service's:</label>
      <input id="token" name="token" type="password" autocomplete="off" required aria-invalid=${String(Boolean(wrong))} aria-describedby=${wrong ? "wrong" : null} />
      <button class="main" type="submit" aria-disabled=${String(busy)}>${busy ? "Trying the token" : "Enter"}</button>
      ${busy && html`<p class="quiet" role="status">After several wrong tokens the answer takes up to 8 seconds.</p>`}
    </form>
    ${!local && html`<p>If you have none, ask the administrator of this service. On the machine where it runs, <code>vibevoice-asr open</code> signs in.</p>`}
    <p class="quiet">The token stays in this tab until you close it, and is never part of an address.</p>
  </div>`;
}

dress();
try {
  store.set({ offer: (await arrive()) ?? null });
} catch (error) {
  store.set({ arrival: trouble(error) });
}
const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
recordings.watch();

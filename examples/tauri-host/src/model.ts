/** The model for the user's language: offered, downloaded while the embedded one works on, and used. */

import { localModels, onState, pullModel, SpeechError, useModel } from "tauri-plugin-vibevoice-asr-api";
import { element, say } from "./element";
import { size, textOf } from "./texts";

const EMBEDDED = "moonshine";
/** Transcribes all languages below; a larger one makes fewer mistakes. */
const MODEL = "whisper:small";
const LANGUAGES = { en: "English", de: "German", fr: "French", es: "Spanish", it: "Italian", pl: "Polish" };
type Language = keyof typeof LANGUAGES;

const KEY = "language";
const select = element<HTMLSelectElement>("language");
const bar = element<HTMLProgressElement>("model-bar");
let used = EMBEDDED;
let pulling: AbortController | null = null;
let looked = false;
let looking = Promise.resolve();

/** The language for recordings: the user's, once its model is in use. */
export const language = () => (used === MODEL ? select.value : undefined);

/** Make the choice of the language alive, and use the model of the one that was chosen last. */
export async function showModel() {
  for (const [tag, name] of Object.entries(LANGUAGES)) select.add(new Option(name, tag));
  select.value = localStorage.getItem(KEY) ?? "en";
  select.addEventListener("change", () => {
    localStorage.setItem(KEY, select.value);
    pulling?.abort();
    void look();
  });
  element("model-get").addEventListener("click", () => void download());
  element("model-cancel").addEventListener("click", () => pulling?.abort());
  await onState(({ status }) => {
    if (status !== "ready" || looked) return;
    looked = true; // the plugin has the model loaded again after a crash
    void look();
  });
}

/** Use the model of the language, or offer it; one after the other, as the language may change meanwhile. */
const look = () => (looking = looking.then(useOrOffer));

async function useOrOffer() {
  const wanted = select.value === "en" ? EMBEDDED : MODEL;
  const name = LANGUAGES[select.value as Language];
  try {
    const models = await localModels();
    used = models.find((one) => one.used_for.includes("recordings"))?.name ?? used; // also after a reload of the page
    if (wanted === used) return show("");
    const model = models.find((one) => one.name === wanted);
    if (model?.installed && !model.lacking.length) {
      show(`Loading the model for ${name} …`);
      await useModel(wanted);
      used = wanted;
      return show("");
    }
    if (!model || model.lacking.length) return show(`This app cannot transcribe ${name}.`);
    const bytes = size((model.download_bytes ?? 0) - model.bytes);
    show(`${name} needs a model that is not on this computer: a download of ${bytes}. Until then recordings are taken to be English.`, "model-get");
  } catch (error) {
    show(textOf(error), "model-get");
  }
}

async function download() {
  const abort = (pulling = new AbortController());
  bar.removeAttribute("value");
  show("Downloading …", "model-cancel", "model-bar");
  try {
    await pullModel(MODEL, {
      signal: abort.signal,
      onProgress: (done, total) => {
        bar.value = total ? done / total : 0;
        element("model-text").textContent = `Downloading: ${size(done)} of ${size(total)}`;
      },
    });
    await look();
  } catch (error) {
    if (error instanceof SpeechError && error.code === "cancelled") await look();
    else show(textOf(error), "model-get");
  } finally {
    if (pulling === abort) pulling = null;
  }
}

/** Show a text, or nothing without one, and those of the parts beside it. */
function show(text: string, ...parts: string[]) {
  for (const part of ["model-get", "model-cancel", "model-bar"]) element(part).hidden = !parts.includes(part);
  say("model-text", text);
  element("model").hidden = text === "";
}

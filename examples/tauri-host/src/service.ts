/** What the service is about: a word in the corner, and a bar where something is wrong. */

import { onState, restart, type Status } from "tauri-plugin-vibevoice-asr-api";
import { element } from "./element";

const WORDS: Record<Status["status"], string> = {
  starting: "Starting …",
  ready: "Ready",
  busy: "Working …",
  crashed: "Stopped",
  stopped: "Off",
};

/** Keep showing how it is. */
export async function showService() {
  element("trouble-retry").addEventListener("click", () => void restart());
  await onState((status) => {
    const corner = element("service");
    corner.textContent = WORDS[status.status];
    corner.dataset.status = status.status;
    if (status.status === "crashed") trouble(status);
    // What crashed and is back is still worth a word, until somebody has read it.
    else if (status.status === "ready" || status.status === "busy") calm();
  });
}

function trouble({ code, reason, log, restart_in }: Extract<Status, { status: "crashed" }>) {
  const again = restart_in !== null;
  element("trouble").hidden = false;
  element("trouble").dataset.over = String(!again);
  element("trouble-title").textContent = again
    ? "Speech recognition stopped unexpectedly."
    : "Speech recognition does not start.";
  element("trouble-text").textContent = again
    ? "It is being started again; a recording in progress is transcribed from its beginning."
    : "Please try again. If that does not help, install the app again.";
  element("trouble-retry").hidden = again;
  element("trouble-log").textContent = [`${code}: ${reason}`, ...log].join("\n");
}

function calm() {
  const bar = element("trouble");
  if (bar.hidden) return;
  if (bar.dataset.over === "true") {
    bar.hidden = true;
    return;
  }
  element("trouble-title").textContent = "Speech recognition stopped unexpectedly and is running again.";
  element("trouble-text").textContent = "";
  setTimeout(() => (bar.hidden = true), 20_000);
}

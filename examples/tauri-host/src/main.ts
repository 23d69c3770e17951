/** The window: two pages, and what the service is about. */

import { element } from "./element";
import { showLive } from "./live";
import { showModel } from "./model";
import { showRecording } from "./recording";
import { showService } from "./service";

const TABS = ["file", "live"];

for (const name of TABS) {
  element(`tab-${name}`).addEventListener("click", () => {
    for (const other of TABS) {
      element(other).hidden = other !== name;
      element(`tab-${other}`).setAttribute("aria-selected", String(other === name));
    }
  });
}
showRecording();
showLive();
void showService();
void showModel();

/** Where the time went before an answer was heard: a small bar for each stage. */

import { html } from "../view.js";

const STAGES = [
  ["pause_s", "pause"],
  ["thought_s", "thought"],
  ["voiced_s", "voice"],
];
const WIDE = 48;
/** A full bar. */
const FULL_S = 1;

const said = (seconds) => (seconds >= 10 ? `${seconds.toFixed(0)} s` : `${Math.round(seconds * 1000)} ms`);

export function Bars({ stages }) {
  const shown = STAGES.filter(([stage]) => stages[stage] > 0);
  return html`<ul class="stages quiet" aria-label="How long it took">
    ${shown.map(([stage, name]) => html`<li key=${stage}>${name}
      <svg viewBox=${`0 0 ${WIDE} 6`} width=${WIDE} height="6" aria-hidden="true">
        <rect class="rail" width=${WIDE} height="6" rx="3" /><rect width=${Math.min(1, stages[stage] / FULL_S) * WIDE} height="6" rx="3" />
      </svg> ${said(stages[stage])}</li>`)}
    <li>in all ${said(stages.total_s)}</li>
  </ul>`;
}

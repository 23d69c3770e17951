/** A recording at a glance: its loudness, and a lane for each voice. Drawn on a canvas; what it says
 * is said in words beside it, too. */

import { nameOf } from "./words.js";

const WAVE = 44;
const LANE = 24;
/** Peaks of a second, as the service has them. */
const PER_SECOND = 10;

/** Who speaks how long: in order of appearance. Pure. */
export function voices(segments) {
  const found = new Map();
  for (const segment of segments) {
    if (!segment) continue;
    const known = found.get(segment.speaker) ?? { speaker: segment.speaker, name: nameOf(segment), named: Boolean(segment.name), seconds: 0 };
    known.seconds += Math.max(0, segment.end_time - segment.start_time);
    found.set(segment.speaker, known);
  }
  return [...found.values()];
}

/** The loudest of each of `count` equal stretches of a recording, 0 to 1; what was not heard yet is
 * silent. Pure. */
export function columns(peaks, count, duration) {
  const heard = new Float32Array(count);
  const each = (duration * PER_SECOND) / count;
  for (let x = 0; x < count; x += 1) {
    const end = Math.min(peaks.length, Math.max(Math.floor(x * each) + 1, (x + 1) * each));
    for (let i = Math.floor(x * each); i < end; i += 1) heard[x] = Math.max(heard[x], peaks[i] / 255);
  }
  return heard;
}

/** How high the canvas is for so many voices, in CSS pixels. */
export const height = (lanes, wave) => (wave ? WAVE : 0) + Math.max(1, lanes) * LANE;

/**
 * @param {HTMLCanvasElement} canvas
 * @param {{ segments: any[], duration: number, peaks: Uint8Array | null, colours: string[],
 *   ink: string, faint: string }} what
 */
export function draw(canvas, { segments, duration, peaks, colours, ink, faint }) {
  const scale = devicePixelRatio || 1;
  const { clientWidth: width } = canvas;
  const lanes = voices(segments);
  const high = height(lanes.length, peaks);
  [canvas.width, canvas.height] = [width * scale, high * scale];
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const top = peaks ? WAVE : 0;
  if (peaks && duration) {
    pen.fillStyle = ink;
    const bars = columns(peaks, Math.floor(width / 3), duration);
    const loudest = bars.reduce((most, level) => Math.max(most, level), 0.05);
    bars.forEach((level, x) => {
      const tall = Math.max(1, (level / loudest) * (WAVE - 8));
      pen.fillRect(x * 3, (WAVE - tall) / 2 - 2, 2, tall);
    });
  }
  pen.fillStyle = faint;
  for (let lane = 0; lane < Math.max(1, lanes.length); lane += 1)
    pen.fillRect(0, top + lane * LANE + LANE / 2, width, 1);
  if (!duration) return;
  const place = new Map(lanes.map(({ speaker }, lane) => [speaker, lane]));
  for (const segment of segments) {
    if (!segment) continue;
    const lane = place.get(segment.speaker);
    pen.fillStyle = colours[lane];
    const [x, end] = [segment.start_time, segment.end_time].map((at) => (at / duration) * width);
    pen.beginPath();
    pen.roundRect(x, top + lane * LANE + 6, Math.max(1.5, end - x - 0.5), LANE - 11, 3);
    pen.fill();
  }
}

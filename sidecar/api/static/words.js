/** Times, sizes and states as people say them. Pure. */

const two = (value) => String(value).padStart(2, "0");

/** 83.4 → "1:23"; 3700 → "1:01:40". */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds || 0));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** 83.4 → "1 minute 23 seconds", for who hears it. */
export function spoken(seconds) {
  const whole = Math.max(0, Math.round(seconds || 0));
  const parts = [];
  let rest = whole;
  for (const [size, name] of [[86_400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]]) {
    if (name === "day" && whole < 2 * size) continue; // "36 hours"
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count) parts.push(`${count} ${name}${count === 1 ? "" : "s"}`);
  }
  return parts.slice(0, 2).join(" ") || "0 seconds";
}

/** For about how long: "a few seconds", "about 40 seconds", "about 3 minutes". */
export function about(seconds) {
  if (seconds < 8) return "a few seconds";
  if (seconds < 90) return `about ${Math.round(seconds / 10) * 10} seconds`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} minutes`;
  return `about ${Math.round(seconds / 3600)} hours`;
}

/** MiB → "11.2 GB". */
export const gigabytes = (mb) => `${(mb / 1024).toFixed(1)} GB`;

export const counted = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

/** "Speaker_0" → "Speaker 0": as the service counts, so that every format says the same. */
export const called = (speaker) => (speaker || "").replaceAll("_", " ") || "Somebody";

/** Who says a segment: by name where there is one. */
export const nameOf = (segment) => segment.name || called(segment.speaker);

/** "Speaker_7" → 7; null where nobody was told apart. */
export function numberOf(speaker) {
  const found = /_(\d+)$/.exec(speaker || "");
  return found ? Number(found[1]) : null;
}

/** "en" → "English". */
export function languageOf(tag) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(tag);
  } catch {
    return tag; // it is no tag
  }
}

/** ["en", "de", "fr"] → "English and 2 more"; "any language" where there is no list. English and what is alone go first. */
export function languagesOf(tags) {
  if (!tags.length) return "any language";
  const first = languageOf(tags.includes("en") ? "en" : tags[0]);
  return tags.length === 1 ? first : `${first} and ${tags.length - 1} more`;
}

/** A voice that is named by its language: "pt-br" → "Brazilian Portuguese"; any other is called as it is. */
export function voiceOf(name) {
  if (!/^[a-z]{2,3}(-|$)/.test(name)) return name; // "Ava" is no Avaric
  try {
    return new Intl.DisplayNames(["en"], { type: "language", fallback: "none" }).of(name) ?? name;
  } catch {
    return name;
  }
}

const LETTERS = [..."abcdefghijklmnopqrstuvwxyz"];

/** Tags with their names, in the order of the names; where there is no list, of all that have a tag of two letters. */
export function namedLanguages(tags) {
  const known = new Intl.DisplayNames(["en"], { type: "language", fallback: "none" });
  const all = tags.length ? tags : LETTERS.flatMap((one) => LETTERS.map((other) => one + other)).filter((tag) => known.of(tag));
  return all.map((tag) => [tag, languageOf(tag)]).sort(([, one], [, other]) => one.localeCompare(other));
}

/** A moment: "10:42 AM", with the seconds where `timeStyle` is "medium", on another day with the date. */
export function whenOf(moment, timeStyle = "short") {
  const at = new Date(moment);
  const today = at.toDateString() === new Date().toDateString();
  return at.toLocaleString([], today ? { timeStyle } : { dateStyle: "medium", timeStyle });
}

/** A moment, for the name of what began then. */
export const stamp = (moment = new Date()) => moment.toLocaleString("sv").replace(/:\d\d$/, "").replaceAll(":", ".");

/** How a job is, in a few words. */
export function stateOf(job) {
  switch (job.state) {
    case "queued": {
      const ahead = job.position ? `${counted(job.position, "recording")} before it` : "Next";
      const wait = job.estimated_wait_seconds;
      return wait ? `${ahead}, starts in ${about(wait)}` : ahead;
    }
    case "running": {
      const { fraction, audio_seconds_done: done, audio_seconds_total: total } = job.progress;
      const left = job.estimated_remaining_seconds;
      const how = fraction ? `${Math.floor(fraction * 100)} % of ${clock(total)}` : done ? `${clock(done)} transcribed` : "Starting";
      return left && total ? `${how}, ${about(left)} left` : how;
    }
    case "done":
      return clock(job.duration);
    case "cancelled":
      return "Cancelled";
    default:
      return job.error ? `Failed: ${job.error.detail} ${job.error.hint}`.trim() : "Failed";
  }
}

/** Text for a word processor: a paragraph for each turn, without times. */
export function textOf(segments, named = true) {
  const turns = [];
  for (const one of segments) {
    const turn = turns.at(-1);
    if (turn && turn.speaker === one.speaker) turn.text += ` ${one.text}`;
    else turns.push({ speaker: one.speaker, text: named ? `${nameOf(one)}: ${one.text}` : one.text });
  }
  return turns.length ? `${turns.map(({ text }) => text).join("\n\n")}\n` : "";
}

const SOUND = /\.(wav|wave|flac|mp3|ogg|oga|opus|m4a|aac|webm|wma|mp4|m4v|mov|mkv|aiff?|amr|caf|au|3gp)$/i;

/** Whether a file looks like a recording; the service decides by what is in it. */
export const mayBeRecording = (file) => /^(audio|video)\//.test(file.type) || SOUND.test(file.name);

/** What went wrong and what to do, of whatever was thrown. */
export function trouble(error) {
  return { detail: error?.detail || error?.message || String(error), hint: error?.hint || "", code: error?.code || "" };
}

/** Whether a key is an input method's: it ends or drops the word that is being written, and nothing else. */
export const composes = (event) => event.isComposing || event.keyCode === 229;

/** Jobs as this browser last saw them: of one that is no more in the list, when and why the service deleted it. What this browser calls it: `memory.names`. */

import { jobsSeen, keepJobsSeen } from "./memory.js";
import { isOver } from "./reading.js";
import { spoken, whenOf } from "./words.js";

/** Of all owners; those that were not seen for the longest time go first, and what is told last. */
const MOST = 300;
/** What was deleted is told for so long. */
const TOLD_MS = 7 * 86_400_000;
/** By so much two looks differ in when a job is to be deleted. */
const JITTER_MS = 2000;
/** Whoever has less than this share of their space left may lose results to newer ones. */
const SCARCE = 0.25;

/**
 * Note the jobs of an owner, and return what the service has deleted of those before, the newest first.
 * What is missing for no reason of the service was deleted elsewhere by its owner: it is forgotten.
 * `sent`: ids of jobs whose recording this page has, and sends again.
 */
export function note(jobs, { owner, keeps_jobs, keeps_seconds }, instance, sent, now = Date.now()) {
  const rows = new Map(jobsSeen().map((row) => [row.id, row]));
  const before = JSON.stringify([...rows.values()]);
  const listed = new Set(jobs.map(({ id }) => id));
  for (const job of jobs) {
    const { id, name, created, ended, state, space_left } = job;
    if (state === "cancelled") continue;
    const left_s = isOver(job) ? job.expires_in : keeps_seconds;
    const until = left_s === null ? null : now + left_s * 1000;
    const known = rows.get(id)?.until;
    const steady = known && until && Math.abs(until - known) < JITTER_MS ? known : until;
    rows.delete(id); // it was seen last
    rows.set(id, { id, name, owner, created, ended, failed: state === "failed", instance, until: steady, scarce: space_left !== null && space_left < SCARCE });
  }
  for (const row of rows.values()) {
    if (row.owner !== owner || row.gone || listed.has(row.id)) continue;
    const why = sent.has(row.id) ? "" : reasonOf(row, keeps_jobs, instance, now);
    if (why) row.gone = { why, at: why === "expired" ? row.until : now, kept: keeps_seconds };
    else rows.delete(row.id);
  }
  const gone = [...rows.values()].filter((row) => row.gone && row.owner === owner).sort((one, other) => other.gone.at - one.gone.at);
  const told = gone.filter((row) => row.gone.at > now - TOLD_MS);
  for (const row of gone) if (!told.includes(row)) rows.delete(row.id);
  const isGone = (row) => Boolean(row.gone);
  const all = [...rows.values()];
  const left = [...all.filter((row) => !isGone(row)), ...all.filter(isGone)].slice(-MOST);
  if (JSON.stringify(left) !== before) keepJobsSeen(left);
  return told;
}

/** Note that this browser deleted the only copies of these heads, for newer ones. */
export function noteDisplaced(heads, now = Date.now()) {
  const ids = heads.map(({ id }) => id);
  const rows = heads.map(({ id, owner, job: { name, created, ended } }) => ({ id, name, owner, created, ended, gone: { why: "copies", at: now } }));
  keepJobsSeen([...jobsSeen().filter((row) => !ids.includes(row.id)), ...rows].slice(-MOST));
}

/** Forget jobs that their owner deletes, or wants to be told of no more. */
export const forget = (...ids) => keepJobsSeen(jobsSeen().filter((row) => !ids.includes(row.id)));

function reasonOf(row, keepsJobs, instance, now) {
  if (!keepsJobs && row.instance !== instance) return "restarted";
  if (row.until !== null && row.until <= now + JITTER_MS) return "expired";
  return row.scarce ? "displaced" : "";
}

/** What became of a deleted job, behind its name. */
export function fateOf({ ended, failed, until, gone: { why, at, kept } }) {
  const was = ended ? `${failed ? "failed" : "was done"} at ${whenOf(ended)}` : "was not done yet";
  if (why === "restarted") return `${was}; the service was restarted since, and had not stored it.`;
  if (why === "copies") return `${was}; this browser deleted its copy at ${whenOf(at)}: it stores the newest ones.`;
  if (why === "displaced") return `${was}; the service deleted it before ${whenOf(at)}: newer transcripts needed its space.`;
  if (!ended) return `was in progress at ${whenOf(until - kept * 1000)}; the service has deleted it since: it keeps a transcript for ${spoken(kept)}.`;
  return `${was}; the service deleted it at ${whenOf(at)}${kept ? `, ${spoken(kept)} after it was last read or edited` : ""}.`;
}

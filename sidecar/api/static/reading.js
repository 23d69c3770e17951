/** A job that is shown, from its first words to its last, and what its transcript is then. */

const QUIET_MS = 5000;
const OVER = new Set(["done", "failed", "cancelled"]);

export const isOver = (job) => OVER.has(job.state);

/**
 * What happens to a job until it has ended. Where nothing is heard for a while it is looked at: an
 * end that was missed ends this, too, and a stream that lags behind the job is begun anew.
 *
 * @returns {AsyncGenerator<import("./client/following.js").JobEvent, void, void>}
 */
export async function* heard(client, id, signal, quietMs = QUIET_MS) {
  let last = 0;
  for (;;) {
    const stop = new AbortController();
    const events = client.events(id, { after: last || undefined, signal: AbortSignal.any([signal, stop.signal]) });
    try {
      let next = events.next();
      for (let lagged = false; ; ) {
        const come = await within(next, quietMs);
        if (come?.done) return;
        if (come) {
          last = come.value.id ?? last;
          yield come.value;
          [next, lagged] = [events.next(), false];
          continue;
        }
        const job = await client.job(id, { signal });
        if (isOver(job)) return;
        if (lagged && job.last_event > last) break;
        lagged = job.last_event > last;
      }
    } finally {
      stop.abort();
    }
  }
}

/** What a promise comes to, or null after a time; it may fail later without harm. */
async function within(promise, ms) {
  let timer = 0;
  promise.catch(() => {});
  const late = new Promise((resolve) => (timer = setTimeout(resolve, ms, null)));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * What was said, and how often it was edited. Of two revisions the older is told: then an edit of ours
 * is refused, and not done to what nobody saw.
 *
 * @param {{ signal?: AbortSignal, renew?: boolean }} [how] `renew`: whether the service keeps it longer for that
 */
export async function read(client, id, { signal, renew = true } = {}) {
  const path = `/v1/jobs/${encodeURIComponent(id)}/transcript`;
  const { revision, undo, redo } = await client.question(`${path}/history?limit=1`, { signal });
  const { segments, metadata } = await client.question(`${path}?renew=${renew}`, { signal });
  return { segments, metadata, edits: { revision, undo, redo } };
}

/** The jobs of a list, none older than what is known of it: answers may overtake each other. Pure. */
export function newest(known, listed) {
  const before = new Map(known.map((job) => [job.id, job]));
  return listed.map((job) => {
    const one = before.get(job.id);
    return one && isOver(one) && !isOver(job) && one.last_event >= job.last_event ? one : job;
  });
}

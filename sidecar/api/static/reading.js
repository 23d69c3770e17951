/** Jobs as they come, and the transcript of one. */

const OVER = new Set(["done", "failed", "cancelled"]);

export const isOver = (job) => OVER.has(job.state);

/**
 * What was said, and how often it was edited. Of two revisions the older is told: then an edit of ours
 * is refused, and not done to what nobody saw.
 * `renew`: whether the service keeps it longer for that.
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

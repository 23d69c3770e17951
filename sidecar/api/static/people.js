/** People whose voices are known, where the service has that on: remembered when somebody says so. */

import { client } from "./session.js";

/** Whether the service has had its answer since the page was loaded. */
let agreed = false;

/**
 * Have a speaker of a job identified in later recordings: somebody new, or one more recording of
 * somebody who is known by that name.
 *
 * @param {string} name @param {string} job @param {string} speaker
 * @param {boolean} consent whether the service asks once if it may store voices
 * @returns {Promise<boolean>} whether it is somebody new
 */
export async function remember(name, job, speaker, consent) {
  const asks = consent && !agreed;
  const { people } = asks ? { people: [] } : await client().question("/v1/people");
  const known = people.find((one) => one.name === name);
  const path = known ? `/v1/people/${encodeURIComponent(known.id)}` : "/v1/people";
  const json = known ? { job, speaker } : { name, job, speaker, ...(asks && { consent }) };
  await client().question(path, { method: known ? "PATCH" : "POST", json, once: true, long: true });
  agreed = true;
  return !known;
}

/** One question to the service, asked until there is an answer, or it has been enough. */

import { fine, refusalOf } from "./calls.js";
import { Connection } from "./connection.js";
import { ServiceError, ServiceUnreachable } from "./errors.js";
import { passes, waitMs } from "./retry.js";

/**
 * How it is asked: how patiently, and until when.
 *
 * @typedef {object} Asking
 * @property {import("./retry.js").Retry} retry
 * @property {import("./world.js").World} world
 * @property {AbortSignal} [signal]
 */

/**
 * @param {import("./connection.js").Service} service
 * @param {import("./calls.js").Call} call
 * @param {Asking} how
 * @returns {Promise<import("./calls.js").Answer>} a good one
 * @throws {ServiceUnreachable} there was none
 * @throws {ServiceError} the service said no
 * @throws {import("./errors.js").AnswerNotUnderstood} somebody else answers
 */
export async function ask(service, call, { retry, world, signal }) {
  for (let failures = 1; ; failures += 1) {
    const reply = await attempt(service, call, signal);
    let error;
    if (reply instanceof ServiceUnreachable) error = reply;
    else {
      const gone = call.ends && reply.status === 404 && failures > 1; // by an attempt before
      if (fine(reply.status) || gone) return reply;
      error = refusalOf(reply, world.now());
      if (!passes(reply.status)) throw error;
    }
    const asked = error instanceof ServiceError ? error.retryAfter : null;
    const wait = waitMs(retry, failures, world.random(), asked);
    if (wait === null) throw error;
    await world.sleep(wait, signal);
  }
}

/**
 * @param {import("./connection.js").Service} service
 * @param {import("./calls.js").Call} call
 * @param {AbortSignal} [signal]
 * @returns {Promise<import("./calls.js").Answer | ServiceUnreachable>}
 */
async function attempt(service, call, signal) {
  const connection = new Connection(service, signal);
  try {
    const { status, headers } = await connection.open(call);
    if (call.bytes && fine(status)) return { status, headers, text: "", bytes: await connection.blob() };
    return { status, headers, text: await connection.text() };
  } catch (trouble) {
    if (trouble instanceof ServiceUnreachable) return trouble;
    throw trouble;
  } finally {
    connection.close();
  }
}

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
export function ask(service: import("./connection.js").Service, call: import("./calls.js").Call, { retry, world, signal }: Asking): Promise<import("./calls.js").Answer>;
/**
 * How it is asked: how patiently, and until when.
 */
export type Asking = {
    retry: import("./retry.js").Retry;
    world: import("./world.js").World;
    signal?: AbortSignal | undefined;
};

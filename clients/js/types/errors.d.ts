/**
 * What the service said no with, in an answer (problem+json, RFC 9457, or OpenAI's) or as the error of
 * a job.
 *
 * @param {Record<string, unknown>} body
 * @param {number | null} [status]
 * @param {number | null} [retryAfter]
 */
export function errorOf(body: Record<string, unknown>, status?: number | null, retryAfter?: number | null): ServiceError;
/** What can go wrong. A call that its `AbortSignal` ended rejects with the signal's reason instead. */
/** Everything that this package throws. `hint` says what to do, where that is known. */
export class ClientError extends Error {
    /**
     * @param {string} detail
     * @param {{ hint?: string, cause?: unknown }} [more]
     */
    constructor(detail: string, { hint, cause }?: {
        hint?: string;
        cause?: unknown;
    });
    detail: string;
    hint: string;
}
/** Nothing answers at the address, or the address is none. */
export class ServiceUnreachable extends ClientError {
}
/** The connection broke off, again and again; what was asked for may have been done or not. */
export class ConnectionLost extends ServiceUnreachable {
}
/** What answers is not this service, or another version of it. */
export class AnswerNotUnderstood extends ClientError {
}
/** The service said no, or a job failed. `code` does not change between versions; `detail` may. */
export class ServiceError extends ClientError {
    /**
     * @param {string} detail
     * @param {{ code?: string, hint?: string, status?: number | null, retryAfter?: number | null,
     *   requestId?: string }} [said]
     */
    constructor(detail: string, { code, hint, status, retryAfter, requestId }?: {
        code?: string;
        hint?: string;
        status?: number | null;
        retryAfter?: number | null;
        requestId?: string;
    });
    /** One of docs/errors.md; "" where a proxy said it. */
    code: string;
    /** Of HTTP; null where a job failed. */
    status: number | null;
    /** Seconds, where trying again may help. */
    retryAfter: number | null;
    /** What the service's log has. */
    requestId: string;
}

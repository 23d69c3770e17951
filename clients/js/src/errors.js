/** What can go wrong. A call that its `AbortSignal` ended rejects with the signal's reason instead. */

/** Everything that this package throws. `hint` says what to do, where that is known. */
export class ClientError extends Error {
  /**
   * @param {string} detail
   * @param {{ hint?: string, cause?: unknown }} [more]
   */
  constructor(detail, { hint = "", cause } = {}) {
    super(detail, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.detail = detail;
    this.hint = hint;
  }
}

/** Nothing answers at the address, or the address is none. */
export class ServiceUnreachable extends ClientError {}

/** The connection broke off, again and again; what was asked for may have been done or not. */
export class ConnectionLost extends ServiceUnreachable {}

/** What answers is not this service, or another version of it. */
export class AnswerNotUnderstood extends ClientError {}

/** The service said no, or a job failed. `code` does not change between versions; `detail` may. */
export class ServiceError extends ClientError {
  /**
   * @param {string} detail
   * @param {{ code?: string, hint?: string, status?: number | null, retryAfter?: number | null,
   *   requestId?: string }} [said]
   */
  constructor(detail, { code = "", hint = "", status = null, retryAfter = null, requestId = "" } = {}) {
    super(detail, { hint });
    /** One of docs/errors.md; "" where a proxy said it. */
    this.code = code;
    /** Of HTTP; null where a job failed. */
    this.status = status;
    /** Seconds, where trying again may help. */
    this.retryAfter = retryAfter;
    /** What the service's log has. */
    this.requestId = requestId;
  }
}

/**
 * What the service said no with, in an answer (problem+json, RFC 9457, or OpenAI's) or as the error of
 * a job.
 *
 * @param {Record<string, unknown>} body
 * @param {number | null} [status]
 * @param {number | null} [retryAfter]
 */
export function errorOf(body, status = null, retryAfter = null) {
  const asked = body.retry_after;
  return new ServiceError(String(body.detail || body.title || body.message || "The service said no."), {
    code: String(body.code ?? ""),
    hint: String(body.hint ?? ""),
    status,
    retryAfter: retryAfter ?? (typeof asked === "number" ? asked : null),
    requestId: String(body.request_id ?? ""),
  });
}

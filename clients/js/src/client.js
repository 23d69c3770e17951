/** The client: what is asked for one after the other. What is decided is in the modules beside it. */

import { ask } from "./asking.js";
import * as calls from "./calls.js";
import { Connection } from "./connection.js";
import { ConnectionLost, errorOf, ServiceUnreachable } from "./errors.js";
import { eventOf, Following, hasEnded } from "./following.js";
import { LiveSession } from "./live.js";
import { progress, progressAfter, progressOf } from "./progress.js";
import { NEVER, PATIENT } from "./retry.js";
import { Parser } from "./sse.js";
import { carry, waveOf } from "./wave.js";
import { checked } from "./wire.js";
import { newKey, REAL } from "./world.js";

/** @typedef {import("./wire.js").Job} Job */
/** @typedef {import("./wire.js").Options} Options */
/** @typedef {import("./wire.js").Transcript} Transcript */

/**
 * `url`: the service's address. `token`: identifies the client. `fetch`: another one, such as Tauri's. `silenceMs`:
 * the longest silence of the service that is borne, a minute if unset. `world`: time and chance.
 *
 * @typedef {object} ClientOptions
 * @property {string} url
 * @property {string} [token]
 * @property {typeof globalThis.fetch} [fetch]
 * @property {Partial<import("./retry.js").Retry>} [retry]
 * @property {number} [silenceMs]
 * @property {Partial<import("./world.js").World>} [world]
 */

/**
 * @typedef {object} Waiting
 * @property {AbortSignal} [signal] ends the call, which then rejects with its reason
 * @property {(progress: import("./progress.js").Progress) => void} [onProgress]
 */

/**
 * `key`: whatever is sent with the same one is the same job (`Idempotency-Key`); a new one if unset.
 * `name`: what the recording is called; a `File` has one.
 *
 * @typedef {Waiting & { key?: string, name?: string }} Submission
 */

const SILENCE_MS = 60_000;
/** How long to wait for the end of a job that nobody waits for. */
const FAREWELL_MS = 10_000;
const JOB = { id: "string", state: "string" };

/**
 * One service and whoever `token` names. Every call may reject with `ServiceUnreachable`,
 * `ServiceError` (by its `code`), `AnswerNotUnderstood`, or the reason of its signal.
 */
export class VibevoiceClient {
  #service;
  #retry;
  #world;

  /**
   * @param {ClientOptions} options
   * @throws {ServiceUnreachable} `url` is no address
   */
  constructor({ url, token, fetch = globalThis.fetch, retry, silenceMs = SILENCE_MS, world }) {
    this.#service = { url: calls.address(url), token, fetch, silenceMs };
    this.#retry = { ...PATIENT, ...retry };
    this.#world = { ...REAL, ...world };
  }

  /** The service's address. */
  get url() {
    return this.#service.url;
  }

  /**
   * How the service is, now: asked once, whatever becomes of it.
   *
   * @param {{ signal?: AbortSignal }} [how]
   * @returns {Promise<import("./wire.js").Health>}
   */
  async health({ signal } = {}) {
    const answer = await this.#ask(calls.health(), signal, NEVER);
    return checked(calls.bodyOf(answer), { status: "string" });
  }

  /**
   * Anything else of the service's API (`/docs`) that is answered in JSON. `json` is the body; `once`:
   * not to be tried again; `long`: the answer may take its time.
   *
   * @param {string} path
   * @param {{ method?: string, json?: unknown, once?: boolean, long?: boolean, signal?: AbortSignal }} [how]
   * @returns {Promise<Record<string, any>>}
   */
  async question(path, { method = "GET", json, once = false, long = false, signal } = {}) {
    const call = calls.question(method, path, json, long);
    return calls.bodyOf(await this.#ask(call, signal, once ? NEVER : this.#retry));
  }

  /**
   * Send a recording and wait for what was said. The job is forgotten then, and where this is left
   * early it is cancelled.
   *
   * @param {calls.Audio} audio
   * @param {Options} [options]
   * @param {Submission} [how]
   * @returns {Promise<Transcript>}
   * @throws {import("./errors.js").ServiceError} the job failed, or was cancelled by somebody
   */
  async transcribe(audio, options = {}, how = {}) {
    const { id } = await this.submit(audio, options, how);
    let done = false;
    try {
      const job = await this.wait(id, how);
      if (job.error) throw errorOf(job.error);
      const transcript = await this.transcript(id, undefined, how);
      done = true;
      return transcript;
    } finally {
      if (done) await this.#forget(id, this.#retry, how.signal);
      else await this.#forget(id, NEVER, AbortSignal.timeout(FAREWELL_MS));
    }
  }

  /**
   * Send a recording; the job that works on it, which goes on without us. An answer that was lost
   * costs no second job.
   *
   * @param {calls.Audio} audio
   * @param {Options} [options]
   * @param {Submission} [how]
   * @returns {Promise<Job>}
   */
  async submit(audio, options = {}, { signal, onProgress, key = newKey(), name = "" } = {}) {
    const call = calls.submit(audio, { ...options }, key, name);
    const size = "size" in audio ? audio.size : audio.byteLength;
    onProgress?.(progress("uploading", 0, size));
    const answer = await this.#ask(call, signal);
    onProgress?.(progress("uploading", size, size));
    return checked(calls.bodyOf(answer), JOB);
  }

  /**
   * A job as it stands.
   *
   * @param {string} id
   * @param {{ signal?: AbortSignal }} [how]
   * @returns {Promise<Job>}
   */
  async job(id, { signal } = {}) {
    return checked(calls.bodyOf(await this.#ask(calls.job(id), signal)), JOB);
  }

  /**
   * The caller's jobs, oldest first; `after`: `next` of the page before.
   *
   * @param {{ state?: string | string[], limit?: number, after?: string, signal?: AbortSignal }} [which]
   * @returns {Promise<import("./wire.js").JobPage>}
   */
  async jobs({ signal, ...which } = {}) {
    return checked(calls.bodyOf(await this.#ask(calls.jobs(which), signal)), { jobs: "array" });
  }

  /**
   * What happened to a job (after the event `after`) and happens, to its end. A connection that is
   * lost is made again where it was; no event is lost and none comes twice.
   *
   * @param {string} id
   * @param {{ after?: number, signal?: AbortSignal }} [how]
   * @returns {AsyncGenerator<import("./following.js").JobEvent, void, void>}
   */
  async *events(id, { after, signal } = {}) {
    const following = new Following(id, after ?? null, this.#retry);
    while (!following.ended) {
      /** @type {import("./errors.js").ClientError | null} */
      let error = null;
      const connection = new Connection(this.#service, signal);
      try {
        const response = await connection.open(following.call);
        const { status, headers } = response;
        const text = response.ok ? "" : await connection.text();
        error = following.opened({ status, headers, text }, this.#world.now());
        if (!error)
          for await (const piece of connection.pieces()) {
            yield* following.took(piece);
            if (following.ended) return;
          }
      } catch (trouble) {
        if (!(trouble instanceof ServiceUnreachable)) throw trouble;
        error = trouble;
      } finally {
        connection.close();
      }
      if (!following.ended)
        await this.#world.sleep(following.closed(error, this.#world.random()), signal);
    }
  }

  /**
   * The job, once it has ended in whatever way.
   *
   * @param {string} id
   * @param {Waiting} [how]
   * @returns {Promise<Job>}
   */
  async wait(id, { signal, onProgress } = {}) {
    const job = await this.job(id, { signal });
    onProgress?.(progressOf(job));
    if (hasEnded(job)) return job;
    for await (const event of this.events(id, { signal })) {
      const told = progressAfter(event);
      if (told) onProgress?.(told);
    }
    return this.job(id, { signal });
  }

  /**
   * What was said; with a `format`, as text in it.
   *
   * @overload
   * @param {string} id
   * @param {undefined} [format]
   * @param {{ signal?: AbortSignal }} [how]
   * @returns {Promise<Transcript>}
   *
   * @overload
   * @param {string} id
   * @param {calls.Format} format
   * @param {{ signal?: AbortSignal }} [how]
   * @returns {Promise<string>}
   *
   * @param {string} id
   * @param {calls.Format} [format]
   * @param {{ signal?: AbortSignal }} [how]
   * @returns {Promise<Transcript | string>}
   */
  async transcript(id, format, { signal } = {}) {
    const answer = await this.#ask(calls.transcript(id, format ?? "json"), signal);
    if (format) return answer.text;
    return checked(calls.bodyOf(answer), { segments: "array", metadata: "object" });
  }

  /**
   * The recording itself, where the service keeps it (`job.recording`).
   *
   * @param {string} id
   * @param {{ signal?: AbortSignal }} [how]
   * @returns {Promise<Blob>}
   */
  async recording(id, { signal } = {}) {
    const { bytes } = await this.#ask(calls.recording(id), signal);
    return /** @type {Blob} */ (bytes);
  }

  /**
   * Change what was said and by whom, after the fact; all operations or none. It is sent once, and
   * where the answer is lost the transcript says whether it was done.
   *
   * `operations` as `PATCH /v1/jobs/ID/transcript` takes them, such as
   * `{ op: "rename", speaker: "Speaker_0", name: "Nell" }` or `{ op: "undo" }`. `revision`: reject
   * with `transcript_changed` if it is another by now.
   *
   * @param {string} id
   * @param {readonly Record<string, unknown>[]} operations
   * @param {{ revision?: number, signal?: AbortSignal }} [how]
   * @returns {Promise<import("./wire.js").Edited>}
   */
  async edit(id, operations, { revision, signal } = {}) {
    const answer = await this.#ask(calls.edit(id, operations, revision), signal, NEVER);
    return checked(calls.bodyOf(answer), { revision: "number", segments: "array" });
  }

  /**
   * Take a speaker apart that is several people, by what its segments sound like: as many as there
   * seem to be, or `into`. Which segments went where is in `parts` of the answer; it can be undone.
   *
   * @param {string} id
   * @param {string} speaker such as `Speaker_0`
   * @param {{ into?: number, revision?: number, signal?: AbortSignal }} [how]
   * @returns {Promise<import("./wire.js").Edited>}
   */
  async splitSpeaker(id, speaker, { into, ...how } = {}) {
    return this.edit(id, [{ op: "split_speaker", speaker, ...(into && { into }) }], how);
  }

  /**
   * Tell the speakers of a transcript apart again, with another number of them; without one, as many
   * as there seem to be. Corrected texts and names stay, `not_carried` of the answer has what does
   * not, and it can be undone. Rejects with `diarization_not_kept` where nothing was kept of the job
   * to tell them by.
   *
   * @param {string} id
   * @param {import("./wire.js").SpeakerCounts & { revision?: number, signal?: AbortSignal }} [how]
   * @returns {Promise<import("./wire.js").Diarized>}
   */
  async diarize(id, { revision, signal, ...counts } = {}) {
    const answer = await this.#ask(calls.diarize(id, counts, revision), signal, NEVER);
    return checked(calls.bodyOf(answer), { revision: "number", segments: "array" });
  }

  /**
   * End a job, or forget one that has ended: it and its words are gone then. `revision`: not if it is
   * another by now (`transcript_changed`).
   *
   * @param {string} id
   * @param {{ revision?: number, signal?: AbortSignal }} [how]
   */
  async cancel(id, { revision, signal } = {}) {
    await this.#ask(calls.cancel(id, revision), signal);
  }

  /**
   * The models that can be used or downloaded there.
   *
   * @param {{ signal?: AbortSignal }} [how]
   * @returns {Promise<import("./wire.js").LocalModel[]>}
   */
  async models({ signal } = {}) {
    const answer = await this.#ask(calls.question("GET", "/v1/models"), signal);
    /** @type {{ models: import("./wire.js").LocalModel[] }} */
    const { models } = checked({ models: [], ...calls.bodyOf(answer) }, { models: "array" });
    return models;
  }

  /**
   * Download a model: its events `progress` (`bytes_done`, `bytes_total`) and `notice`, then `done`.
   * Leaving them ends the download, and another one resumes it.
   *
   * @param {string} name as in `models`, or OWNER/NAME
   * @param {{ revision?: string, signal?: AbortSignal }} [how]
   * @returns {AsyncGenerator<import("./following.js").JobEvent, void, void>}
   * @throws {import("./errors.js").ServiceError} it failed, or was refused
   */
  async *pullModel(name, { revision, signal } = {}) {
    const connection = new Connection(this.#service, signal);
    const parser = new Parser();
    try {
      const call = calls.question("POST", "/v1/models/pull", { name, revision });
      const { ok, status, headers } = await connection.open(call);
      if (!ok) throw calls.refusalOf({ status, headers, text: await connection.text() }, this.#world.now());
      for await (const piece of connection.pieces())
        for (const frame of parser.feed(piece)) {
          const event = eventOf(frame);
          if (event?.kind === "failed") throw errorOf(event.data.error);
          if (event) yield event;
          if (event?.kind === "done") return;
        }
    } finally {
      connection.close();
    }
    throw new ConnectionLost("The service broke off the download.");
  }

  /**
   * Delete a downloaded model.
   *
   * @param {string} name
   * @param {{ signal?: AbortSignal }} [how]
   */
  async deleteModel(name, { signal } = {}) {
    await this.#ask(calls.deleteModel(name), signal);
  }

  /**
   * A live session: sound goes up while it is spoken, and words come back.
   *
   * @param {import("./live.js").LiveSetup} [setup]
   * @returns {LiveSession}
   */
  live(setup = {}) {
    return new LiveSession(this.#service, setup, { retry: this.#retry, world: this.#world });
  }

  /**
   * What is said of a recording as if it were spoken now: a plain wav of 16 bits, mono, or stereo with
   * `channels: 2`. `pace`: seconds of it that go up in a second, 0: as fast as they are taken.
   *
   * @param {Blob} recording a `File` from a page, or `fs.openAsBlob` of Node
   * @param {import("./live.js").LiveSetup & { pace?: number }} [setup]
   * @returns {AsyncGenerator<import("./live.js").LiveEvent, void, undefined>}
   * @throws {TypeError} it is another kind of file, or has another number of channels
   */
  async *liveFile(recording, { pace = 1, ...setup } = {}) {
    const wave = await waveOf(recording, setup.channels);
    const live = this.live({ ...setup, rate: wave.rate, encoding: "pcm16" });
    let [wrong, over] = [null, false];
    const carrying = carry(live, wave, pace).catch((error) => {
      wrong = error; // of the session's own the iterator tells
      live.close();
    });
    try {
      for await (const event of live) {
        over = event.type === "summary";
        yield event;
      }
      if (wrong && !over) throw wrong;
    } finally {
      live.close();
      await carrying;
    }
  }

  /**
   * @param {string} id
   * @param {import("./retry.js").Retry} retry
   * @param {AbortSignal} [signal]
   */
  async #forget(id, retry, signal) {
    try {
      await this.#ask(calls.cancel(id), signal, retry);
    } catch {
      // Then the service forgets it by itself; what this call came to is not changed by it.
    }
  }

  /**
   * @param {calls.Call} call
   * @param {AbortSignal} [signal]
   * @param {import("./retry.js").Retry} [retry]
   */
  #ask(call, signal, retry = this.#retry) {
    return ask(this.#service, call, { retry, world: this.#world, signal });
  }
}

/** What the service says and is told, as it stands in its OpenAPI (`/docs`); `tests/client/test_js.py` compares. */

/** @typedef {"queued" | "running" | "done" | "failed" | "cancelled"} JobState */

/**
 * The fields of a transcription, as docs/generate.py writes them. What is left out is as the service has it.
 *
 * @typedef {object} Options
 * @property {"auto" | "fp32" | "bf16" | "fp16" | "int8" | "int4"} [precision] Preferred precision ('auto' is the loaded one)
 * @property {string} [language] Language tag such as 'en' or 'de-CH'; 'auto' detects it
 * @property {boolean} [diarize] Label the speakers; false costs less work
 * @property {"balanced" | "accurate"} [diarization] Effort of diarization
 * @property {boolean} [recognise] Identify enrolled speakers, if there are any
 * @property {boolean} [voiceprints] Where nobody has agreed yet to enrolled speakers: keep the embeddings of this job's speakers in memory with it, so that one can be enrolled
 * @property {string | string[]} [hotwords] Names and terms to expect, separated by commas or in free text
 * @property {string} [prompt] Topic of the recording, in its language
 * @property {string} [context] The same as 'prompt'; send one of them
 * @property {number} [num_speakers] Number of speakers, if known: a hint (1 to 20)
 * @property {number} [speakers] The same as 'num_speakers'; send one of them (1 to 20)
 * @property {number} [min_speakers] Least number of speakers, instead of 'num_speakers' (1 to 20)
 * @property {number} [max_speakers] Greatest number of speakers, instead of 'num_speakers' (1 to 20)
 * @property {number} [temperature] Sampling temperature; 0 takes the likeliest words (0 to 1)
 * @property {number} [max_tokens] Limit of the model's output (1 to 65536)
 * @property {"auto" | "parallel" | "single"} [windows] 'parallel' transcribes windows of about five minutes, several at once, if the memory suffices
 * @property {number} [track] Number of the audio track, for a film with several (1 to 99)
 * @property {number} [skip_seconds] Seconds at the beginning that the engine gets as silence, and so transcribes nothing of (0 to 86400)
 * @property {"mix" | "separate"} [channels] 'separate' transcribes each channel for itself: for calls and interviews with a microphone for each person
 * @property {string | string[]} [channel_names] Names of separate channels in their order, separated by commas
 * @property {boolean} [words] Return word timestamps, also from an engine for which they are more work
 * @property {"interactive" | "batch"} [priority] 'batch' runs after your other jobs
 */

/** @typedef {{ start_time: number, end_time: number, text: string, confidence?: number }} Word */

/**
 * One stretch of speech by one speaker (`Speaker_0`); times in seconds.
 *
 * @typedef {object} Segment
 * @property {string} speaker Label of its speaker, 'Speaker_0', 'Speaker_1' and so on: if there is none or it is unknown, the first, and a flag says so.
 * @property {string} [name] Name of the identified speaker, or channel.
 * @property {number} start_time Seconds from the start.
 * @property {number} end_time Seconds from the start.
 * @property {string} text What is said.
 * @property {Word[]} [words] Its words, if they were asked for.
 * @property {string} [words_by] Source of word times: 'attention' (of the model), 'server' (of an upstream), 'aligned' (at pauses and changes of sound), 'spread' (evenly, a guess).
 * @property {("non_speech" | "loop" | "overlap" | "unheard" | "speaker_unknown")[]} [flags] What is unusual about it: 'non_speech' (music, noise or silence: nobody speaks), 'loop' (audio that the model could not transcribe: it repeats itself), 'overlap' (another person speaks at the same time in the same channel, by the diarizer), 'unheard' (live speech that was not recognized to its end: the words that were shown last), 'speaker_unknown' (speech of somebody who was not told apart)
 * @property {number} [confidence] How sure the engine is, up to 1.
 * @property {number} [no_speech_probability] Probability that nobody speaks in it; omitted if unknown.
 * @property {string} [language] Language tag; omitted if unknown.
 */

/**
 * About a transcript as a whole; `duration` in seconds of audio.
 *
 * @typedef {object} Metadata
 * @property {number} duration
 * @property {number} [recognized_s] of live sound: no word is missing before it, where some are behind
 * @property {string} language
 * @property {number} [language_probability] where it was detected
 * @property {number} processing_time
 * @property {string} model_precision
 * @property {number} num_speakers
 * @property {string} engine
 * @property {boolean} diarized
 * @property {boolean} no_speech
 * @property {string} job_id
 * @property {{ code: string, message: string }[]} warnings
 * @property {string} [device] cuda or cpu, where the engine may use either
 * @property {string} [model] which one heard it, where the engine may have one of several
 * @property {string} [words_by] the least sure of the segments'
 * @property {string[]} [hotwords] those that the engine got: of the request, of the service, and names of the owner
 * @property {object[]} [speakers] what is known of them by voice
 */

/** @typedef {{ segments: Segment[], metadata: Metadata }} Transcript */

/**
 * @typedef {object} AudioProgress
 * @property {number} audio_seconds_done
 * @property {number | null} audio_seconds_total
 * @property {number | null} fraction
 */

/**
 * A job as it stands, without what was said.
 *
 * @typedef {object} Job
 * @property {string} id
 * @property {JobState} state
 * @property {number | null} position
 * @property {number} attempts
 * @property {string} created in UTC
 * @property {number | null} duration
 * @property {AudioProgress} progress
 * @property {{ code: string, detail: string, hint: string }} [error]
 * @property {{ code: string, detail: string, hint: string } | null} [refused] why no node can do it
 * @property {"interactive" | "batch"} priority
 * @property {number | null} estimated_wait_seconds
 * @property {number | null} estimated_remaining_seconds predicted time until it is done; null unless it runs
 * @property {string | null} ended in UTC
 * @property {number} last_event
 * @property {number | null} expires_in seconds until it is deleted for its age
 * @property {number | null} space_left share of its owner's space that newer ones may fill until it is deleted for them; null if it never is, as one that was edited
 * @property {number} revision how often its transcript was edited
 * @property {boolean} recording whether its recording is kept
 * @property {number} [channels] that are transcribed one by one; left out if it is 1
 * @property {string} [name] of its file, where it was sent
 */

/** @typedef {{ jobs: Job[], next: string | null }} JobPage */

/**
 * What an edit came to: how the transcript stands, who is in it, and the segments that are not as they
 * were. `undo`, `redo`: how many steps there are in each direction.
 *
 * @typedef {object} Edited
 * @property {number} revision
 * @property {number} undo
 * @property {number} redo
 * @property {{ speaker: string, name: string | null }[]} speakers
 * @property {{ index: number, segment: Segment }[]} segments
 * @property {number} segment_count how many the transcript has now
 * @property {Part[]} [parts] who was split by voice
 */

/**
 * How many speakers there are: their number, or its limits, 1 to 20.
 *
 * @typedef {object} SpeakerCounts
 * @property {number} [num_speakers]
 * @property {number} [min_speakers]
 * @property {number} [max_speakers]
 */

/**
 * What another diarization came to; `not_carried`: names that nobody has now, and how many edits had
 * given segments to speakers. `warnings`: `speaker_count_differs`, if there are not so many voices.
 *
 * @typedef {Edited & { not_carried: { names: string[], reassignments: number }, warnings: { code: string, message: string }[] }} Diarized
 */

/**
 * A speaker that was split by voice, and which segments went where; `likeness`: of the two groups that
 * are most alike, from 0.55 on they may well be one person.
 *
 * @typedef {object} Part
 * @property {string} speaker
 * @property {number} likeness
 * @property {{ speaker: string, segments: number[] }[]} groups
 */

/**
 * A model that can be used or downloaded there; sizes in bytes.
 *
 * @typedef {object} LocalModel
 * @property {string} name for `pullModel` and `deleteModel`
 * @property {string} engine
 * @property {string[]} languages none: any
 * @property {boolean} recordings
 * @property {boolean} live
 * @property {boolean} speakers
 * @property {number | null} download_bytes
 * @property {number | null} memory_bytes of its weights in the smallest precision
 * @property {string[]} lacking packages that its engine needs there
 * @property {boolean} installed
 * @property {number} bytes on the disk, also of a part
 * @property {string} commit
 * @property {("recordings" | "live")[]} [used_for] what is transcribed with it there now
 */

/**
 * How the service is.
 *
 * @typedef {object} Health
 * @property {string} status ok, loading, or stopping
 * @property {boolean} model_loaded
 * @property {boolean} gpu_available
 * @property {number | null} vram_used_mb
 * @property {number | null} vram_total_mb
 * @property {number} contract
 * @property {string} version
 * @property {number} pid
 * @property {string} instance
 * @property {string} engine
 * @property {string} precision
 * @property {string} requested_precision by the setting; an engine that lacks it uses its own
 * @property {"cuda" | "cpu"} device of the engine for recordings
 * @property {"absent" | "loading" | "ready" | "busy" | "stuck"} engine_state
 * @property {number | null} load_percent
 * @property {number | null} worker_pid
 * @property {string | null} live_engine
 * @property {"absent" | "loading" | "ready" | "busy" | "stuck" | null} live_engine_state
 * @property {number} [grpc_port]
 * @property {number} [wyoming_port]
 * @property {number} [talk_port]
 * @property {number} jobs_waiting
 * @property {string | null} jobs_paused why none begins now
 * @property {Record<string, string>} faults what jobs need and does not work, with the code of its error
 * @property {"ok" | "degraded" | "unreachable"} vllm
 * @property {string} pipeline_state
 * @property {boolean} initialized
 * @property {boolean} grpc_running
 * @property {boolean} model_pool_healthy
 * @property {boolean} models_loaded
 * @property {number} model_count
 * @property {number} model_worker_total
 * @property {number} model_worker_shutdown
 * @property {number} active_sessions
 * @property {number} decode_queue_depth
 * @property {number} decode_latency_avg
 * @property {number} decode_latency_max
 */

import { AnswerNotUnderstood } from "./errors.js";

/**
 * A body of which it is known that it is what was asked for.
 *
 * @template T
 * @param {Record<string, unknown>} body
 * @param {Record<string, string>} has the kind of what it must have, by name; "array" is one
 * @returns {T}
 * @throws {AnswerNotUnderstood} it has not
 */
export function checked(body, has) {
  for (const [name, kind] of Object.entries(has)) {
    const value = body[name];
    if ((Array.isArray(value) ? "array" : typeof value) !== kind)
      throw new AnswerNotUnderstood(`The service's answer is not understood ('${name}').`, {
        hint: "Use the same version of vibevoice-asr on both ends.",
      });
  }
  return /** @type {T} */ (body);
}

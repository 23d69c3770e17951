/** What the service says, as types. */

/**
 * What a transcription may ask for (docs/http-api.md). What is left out is as the service has it.
 *
 * @typedef {object} Options
 * @property {"auto" | "fp32" | "bf16" | "fp16" | "int8" | "int4"} [precision] Preferred precision ('auto' is the loaded one)
 * @property {string} [language] Language tag such as 'en' or 'de-CH'; 'auto' detects it
 * @property {boolean} [diarize] Label the speakers; false costs less work
 * @property {"balanced" | "accurate"} [diarization] Effort of diarization
 * @property {boolean} [recognise] Identify enrolled speakers, if there are any
 * @property {boolean} [voiceprints] Where nobody has agreed yet to enrolled speakers: keep the embeddings of this job's speakers in memory with it, so that one can be enrolled
 * @property {string} [hotwords] Names and terms to expect, separated by commas or in free text
 * @property {string} [prompt] Topic of the recording, in its language
 * @property {number} [num_speakers] Number of speakers, if known: a hint (1 to 20)
 * @property {number} [min_speakers] Least number of speakers, instead of 'num_speakers' (1 to 20)
 * @property {number} [max_speakers] Greatest number of speakers, instead of 'num_speakers' (1 to 20)
 * @property {number} [temperature] Sampling temperature; 0 takes the likeliest words (0 to 1)
 * @property {number} [max_tokens] Limit of the model's output (1 to 65536)
 * @property {"auto" | "parallel" | "single"} [windows] 'parallel' transcribes windows of about five minutes, several at once, if the memory suffices
 * @property {number} [track] Number of the audio track, for a film with several (1 to 99)
 * @property {number} [skip_seconds] Seconds at the beginning that the engine gets as silence, and so transcribes nothing of (0 to 86400)
 * @property {"mix" | "separate"} [channels] 'separate' transcribes each channel for itself: for calls and interviews with a microphone for each person
 * @property {string} [channel_names] Names of separate channels in their order, separated by commas
 * @property {boolean} [words] Return word timestamps, also from an engine for which they are more work
 * @property {"interactive" | "batch"} [priority] 'batch' runs after your other jobs
 *
 * @typedef {{ start_time: number, end_time: number, text: string, confidence?: number }} Word
 *
 * One stretch of speech by one speaker; times in seconds.
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
 *
 * @typedef {{ duration: number, recognized_s?: number, language: string, language_probability?: number, num_speakers: number,
 *   engine: string, model_precision: string, warnings: { code: string, message: string }[] }} Metadata
 *
 * @typedef {{ segments: Segment[], metadata: Metadata }} Transcript
 *
 * @typedef {{ status: string, version: string, pid: number, instance: string, engine: string,
 *   engine_state: "absent" | "loading" | "ready" | "busy" | "stuck", precision: string,
 *   device: "cpu" | "cuda", jobs_waiting: number }} Health
 *
 * A model that can be used or downloaded here; `languages` is empty if it knows any, `lacking` has packages
 * that the service would need for it, `used_for` what is transcribed with it now. Sizes in bytes,
 * `memory_bytes` of its weights alone.
 * @typedef {{ name: string, engine: string, languages: string[], recordings: boolean, live: boolean,
 *   speakers: boolean, download_bytes: number | null, memory_bytes: number | null,
 *   lacking: string[], installed: boolean, bytes: number, commit: string,
 *   used_for: ("recordings" | "live")[] }} LocalModel
 *
 * What live audio may ask for (docs/live-wire.md).
 * @typedef {object} LiveOptions
 * @property {string} [language]
 * @property {"silence" | "client" | "one"} [turns] who ends a turn
 * @property {boolean} [partials] words while somebody speaks
 * @property {boolean} [diarize]
 * @property {boolean} [keep] the session becomes a job
 * @property {string} [name] of that job
 * @property {boolean} [words] times of words in finals
 * @property {string} [prompt]
 * @property {string} [hotwords] names and terms that may be said, between commas
 * @property {1 | 2} [channels] 2: each channel of the stream is one speaker
 * @property {string} [channel_names] of two channels, between commas
 *
 * What is told of live audio; times in seconds of its sound. A `partial` is replaced by the next of its
 * `piece`, and by its `final`, whose speaker `speakers_revised` may change.
 * @typedef {{ type: "speech_started" | "speech_stopped" | "turn_dropped", turn: number, at: number }
 *   | { type: "partial", turn: number, piece: number, start: number, end: number, text: string, stable: string, tail: string }
 *   | { type: "final", turn: number, piece: number, segment: Segment }
 *   | { type: "turn_ended", turn: number, start: number, end: number, text: string }
 *   | { type: "speakers_revised", speakers: Record<string, string>, names: Record<string, string | null> }
 *   | { type: "notice", code: string, message: string }
 *   | { type: "summary", transcript: Transcript, job: string | null }
 *   | { type: "unknown" }} LiveEvent
 */

export {};

/**
 * A body of which it is known that it is what was asked for.
 *
 * @template T
 * @param {Record<string, unknown>} body
 * @param {Record<string, string>} has the kind of what it must have, by name; "array" is one
 * @returns {T}
 * @throws {AnswerNotUnderstood} it has not
 */
export function checked<T>(body: Record<string, unknown>, has: Record<string, string>): T;
export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";
/**
 * The fields of a transcription, as docs/generate.py writes them. What is left out is as the service has it.
 */
export type Options = {
    /**
     * Preferred precision ('auto' is the loaded one)
     */
    precision?: "auto" | "fp32" | "bf16" | "fp16" | "int8" | "int4" | undefined;
    /**
     * Language tag such as 'en' or 'de-CH'; 'auto' detects it
     */
    language?: string | undefined;
    /**
     * Label the speakers; false costs less work
     */
    diarize?: boolean | undefined;
    /**
     * Effort of diarization
     */
    diarization?: "balanced" | "accurate" | undefined;
    /**
     * Identify enrolled speakers, if there are any
     */
    recognise?: boolean | undefined;
    /**
     * Where nobody has agreed yet to enrolled speakers: keep the embeddings of this job's speakers in memory with it, so that one can be enrolled
     */
    voiceprints?: boolean | undefined;
    /**
     * Names and terms to expect, separated by commas or in free text
     */
    hotwords?: string | string[] | undefined;
    /**
     * Topic of the recording, in its language
     */
    prompt?: string | undefined;
    /**
     * The same as 'prompt'; send one of them
     */
    context?: string | undefined;
    /**
     * Number of speakers, if known: a hint (1 to 20)
     */
    num_speakers?: number | undefined;
    /**
     * The same as 'num_speakers'; send one of them (1 to 20)
     */
    speakers?: number | undefined;
    /**
     * Least number of speakers, instead of 'num_speakers' (1 to 20)
     */
    min_speakers?: number | undefined;
    /**
     * Greatest number of speakers, instead of 'num_speakers' (1 to 20)
     */
    max_speakers?: number | undefined;
    /**
     * Sampling temperature; 0 takes the likeliest words (0 to 1)
     */
    temperature?: number | undefined;
    /**
     * Limit of the model's output (1 to 65536)
     */
    max_tokens?: number | undefined;
    /**
     * 'parallel' transcribes windows of about five minutes, several at once, if the memory suffices
     */
    windows?: "auto" | "parallel" | "single" | undefined;
    /**
     * Number of the audio track, for a film with several (1 to 99)
     */
    track?: number | undefined;
    /**
     * Seconds at the beginning that the engine gets as silence, and so transcribes nothing of (0 to 86400)
     */
    skip_seconds?: number | undefined;
    /**
     * 'separate' transcribes each channel for itself: for calls and interviews with a microphone for each person
     */
    channels?: "mix" | "separate" | undefined;
    /**
     * Names of separate channels in their order, separated by commas
     */
    channel_names?: string | string[] | undefined;
    /**
     * Return word timestamps, also from an engine for which they are more work
     */
    words?: boolean | undefined;
    /**
     * 'batch' runs after your other jobs
     */
    priority?: "interactive" | "batch" | undefined;
};
export type Word = {
    start_time: number;
    end_time: number;
    text: string;
    confidence?: number;
};
/**
 * One stretch of speech by one speaker (`Speaker_0`); times in seconds.
 */
export type Segment = {
    /**
     * Label of its speaker, 'Speaker_0', 'Speaker_1' and so on: if there is none or it is unknown, the first, and a flag says so.
     */
    speaker: string;
    /**
     * Name of the identified speaker, or channel.
     */
    name?: string | undefined;
    /**
     * Seconds from the start.
     */
    start_time: number;
    /**
     * Seconds from the start.
     */
    end_time: number;
    /**
     * What is said.
     */
    text: string;
    /**
     * Its words, if they were asked for.
     */
    words?: Word[] | undefined;
    /**
     * Source of word times: 'attention' (of the model), 'server' (of an upstream), 'aligned' (at pauses and changes of sound), 'spread' (evenly, a guess).
     */
    words_by?: string | undefined;
    /**
     * What is unusual about it: 'non_speech' (music, noise or silence: nobody speaks), 'loop' (audio that the model could not transcribe: it repeats itself), 'overlap' (another person speaks at the same time in the same channel, by the diarizer), 'unheard' (live speech that was not recognized to its end: the words that were shown last), 'speaker_unknown' (speech of somebody who was not told apart)
     */
    flags?: ("non_speech" | "loop" | "overlap" | "unheard" | "speaker_unknown")[] | undefined;
    /**
     * How sure the engine is, up to 1.
     */
    confidence?: number | undefined;
    /**
     * Probability that nobody speaks in it; omitted if unknown.
     */
    no_speech_probability?: number | undefined;
    /**
     * Language tag; omitted if unknown.
     */
    language?: string | undefined;
};
/**
 * About a transcript as a whole; `duration` in seconds of audio.
 */
export type Metadata = {
    duration: number;
    /**
     * of live sound: no word is missing before it, where some are behind
     */
    recognized_s?: number | undefined;
    language: string;
    /**
     * where it was detected
     */
    language_probability?: number | undefined;
    processing_time: number;
    model_precision: string;
    num_speakers: number;
    engine: string;
    diarized: boolean;
    no_speech: boolean;
    job_id: string;
    warnings: {
        code: string;
        message: string;
    }[];
    /**
     * cuda or cpu, where the engine may use either
     */
    device?: string | undefined;
    /**
     * which one heard it, where the engine may have one of several
     */
    model?: string | undefined;
    /**
     * the least sure of the segments'
     */
    words_by?: string | undefined;
    /**
     * those that the engine got: of the request, of the service, and names of the owner
     */
    hotwords?: string[] | undefined;
    /**
     * what is known of them by voice
     */
    speakers?: object[] | undefined;
};
export type Transcript = {
    segments: Segment[];
    metadata: Metadata;
};
export type AudioProgress = {
    audio_seconds_done: number;
    audio_seconds_total: number | null;
    fraction: number | null;
};
/**
 * A job as it stands, without what was said.
 */
export type Job = {
    id: string;
    state: JobState;
    position: number | null;
    attempts: number;
    /**
     * in UTC
     */
    created: string;
    duration: number | null;
    progress: AudioProgress;
    error?: {
        code: string;
        detail: string;
        hint: string;
    } | undefined;
    /**
     * why no node can do it
     */
    refused?: {
        code: string;
        detail: string;
        hint: string;
    } | null | undefined;
    priority: "interactive" | "batch";
    estimated_wait_seconds: number | null;
    /**
     * predicted time until it is done; null unless it runs
     */
    estimated_remaining_seconds: number | null;
    /**
     * in UTC
     */
    ended: string | null;
    last_event: number;
    /**
     * seconds until it is deleted for its age
     */
    expires_in: number | null;
    /**
     * share of its owner's space that newer ones may fill until it is deleted for them; null if it never is, as one that was edited
     */
    space_left: number | null;
    /**
     * how often its transcript was edited
     */
    revision: number;
    /**
     * whether its recording is kept
     */
    recording: boolean;
    /**
     * that are transcribed one by one; left out if it is 1
     */
    channels?: number | undefined;
    /**
     * of its file, where it was sent
     */
    name?: string | undefined;
};
export type JobPage = {
    jobs: Job[];
    next: string | null;
};
/**
 * What an edit came to: how the transcript stands, who is in it, and the segments that are not as they
 * were. `undo`, `redo`: how many steps there are in each direction.
 */
export type Edited = {
    revision: number;
    undo: number;
    redo: number;
    speakers: {
        speaker: string;
        name: string | null;
    }[];
    segments: {
        index: number;
        segment: Segment;
    }[];
    /**
     * how many the transcript has now
     */
    segment_count: number;
    /**
     * who was split by voice
     */
    parts?: Part[] | undefined;
};
/**
 * How many speakers there are: their number, or its limits, 1 to 20.
 */
export type SpeakerCounts = {
    num_speakers?: number | undefined;
    min_speakers?: number | undefined;
    max_speakers?: number | undefined;
};
/**
 * What another diarization came to; `not_carried`: names that nobody has now, and how many edits had
 * given segments to speakers. `warnings`: `speaker_count_differs`, if there are not so many voices.
 */
export type Diarized = Edited & {
    not_carried: {
        names: string[];
        reassignments: number;
    };
    warnings: {
        code: string;
        message: string;
    }[];
};
/**
 * A speaker that was split by voice, and which segments went where; `likeness`: of the two groups that
 * are most alike, from 0.55 on they may well be one person.
 */
export type Part = {
    speaker: string;
    likeness: number;
    groups: {
        speaker: string;
        segments: number[];
    }[];
};
/**
 * A model that can be used or downloaded there; sizes in bytes.
 */
export type LocalModel = {
    /**
     * for `pullModel` and `deleteModel`
     */
    name: string;
    engine: string;
    /**
     * none: any
     */
    languages: string[];
    recordings: boolean;
    live: boolean;
    speakers: boolean;
    download_bytes: number | null;
    /**
     * of its weights in the smallest precision
     */
    memory_bytes: number | null;
    /**
     * packages that its engine needs there
     */
    lacking: string[];
    installed: boolean;
    /**
     * on the disk, also of a part
     */
    bytes: number;
    commit: string;
    /**
     * what is transcribed with it there now
     */
    used_for?: ("live" | "recordings")[] | undefined;
};
/**
 * How the service is.
 */
export type Health = {
    /**
     * ok, loading, or stopping
     */
    status: string;
    model_loaded: boolean;
    gpu_available: boolean;
    vram_used_mb: number | null;
    vram_total_mb: number | null;
    contract: number;
    version: string;
    pid: number;
    instance: string;
    engine: string;
    precision: string;
    /**
     * by the setting; an engine that lacks it uses its own
     */
    requested_precision: string;
    /**
     * of the engine for recordings
     */
    device: "cuda" | "cpu";
    engine_state: "absent" | "loading" | "ready" | "busy" | "stuck";
    load_percent: number | null;
    worker_pid: number | null;
    live_engine: string | null;
    live_engine_state: "absent" | "loading" | "ready" | "busy" | "stuck" | null;
    grpc_port?: number | undefined;
    wyoming_port?: number | undefined;
    talk_port?: number | undefined;
    jobs_waiting: number;
    /**
     * why none begins now
     */
    jobs_paused: string | null;
    /**
     * what jobs need and does not work, with the code of its error
     */
    faults: Record<string, string>;
    vllm: "ok" | "degraded" | "unreachable";
    pipeline_state: string;
    initialized: boolean;
    grpc_running: boolean;
    model_pool_healthy: boolean;
    models_loaded: boolean;
    model_count: number;
    model_worker_total: number;
    model_worker_shutdown: number;
    active_sessions: number;
    decode_queue_depth: number;
    decode_latency_avg: number;
    decode_latency_max: number;
};

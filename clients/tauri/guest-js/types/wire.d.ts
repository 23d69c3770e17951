/**
 * What a transcription may ask for (docs/http-api.md). What is left out is as the service has it.
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
    hotwords?: string | undefined;
    /**
     * Topic of the recording, in its language
     */
    prompt?: string | undefined;
    /**
     * Number of speakers, if known: a hint (1 to 20)
     */
    num_speakers?: number | undefined;
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
    channel_names?: string | undefined;
    /**
     * Return word timestamps, also from an engine for which they are more work
     */
    words?: boolean | undefined;
    /**
     * 'batch' runs after your other jobs
     */
    priority?: "interactive" | "batch" | undefined;
};
/**
 * One stretch of speech by one speaker (`Speaker_0`); `name` if it is an enrolled one. Times in seconds.
 */
export type Word = {
    start_time: number;
    end_time: number;
    text: string;
    confidence?: number;
};
/**
 * What a transcription may ask for (docs/http-api.md). What is left out is as the service has it.
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
 * What a transcription may ask for (docs/http-api.md). What is left out is as the service has it.
 */
export type Metadata = {
    duration: number;
    recognized_s?: number;
    language: string;
    language_probability?: number;
    num_speakers: number;
    engine: string;
    model_precision: string;
    warnings: {
        code: string;
        message: string;
    }[];
};
/**
 * What a transcription may ask for (docs/http-api.md). What is left out is as the service has it.
 */
export type Transcript = {
    segments: Segment[];
    metadata: Metadata;
};
/**
 * A model that can be used or downloaded here; `languages` is empty if it knows any, `lacking` has packages
 * that the service would need for it, `used_for` what is transcribed with it now. Sizes in bytes,
 * `memory_bytes` of its weights alone.
 */
export type Health = {
    status: string;
    version: string;
    pid: number;
    instance: string;
    engine: string;
    engine_state: "absent" | "loading" | "ready" | "busy" | "stuck";
    precision: string;
    device: "cpu" | "cuda";
    jobs_waiting: number;
};
/**
 * What live audio may ask for (docs/live-wire.md).
 */
export type LocalModel = {
    name: string;
    engine: string;
    languages: string[];
    recordings: boolean;
    live: boolean;
    speakers: boolean;
    download_bytes: number | null;
    memory_bytes: number | null;
    lacking: string[];
    installed: boolean;
    bytes: number;
    commit: string;
    used_for: ("recordings" | "live")[];
};
/**
 * What a transcription may ask for (docs/http-api.md). What is left out is as the service has it.
 */
export type LiveOptions = {
    language?: string | undefined;
    /**
     * who ends a turn
     */
    turns?: "client" | "one" | "silence" | undefined;
    /**
     * words while somebody speaks
     */
    partials?: boolean | undefined;
    diarize?: boolean | undefined;
    /**
     * the session becomes a job
     */
    keep?: boolean | undefined;
    /**
     * of that job
     */
    name?: string | undefined;
    /**
     * times of words in finals
     */
    words?: boolean | undefined;
    prompt?: string | undefined;
    /**
     * names and terms that may be said, between commas
     */
    hotwords?: string | undefined;
    /**
     * 2: each channel of the stream is one speaker
     */
    channels?: 2 | 1 | undefined;
    /**
     * of two channels, between commas
     *
     * What is told of live audio; times in seconds of its sound. A `partial` is replaced by the next of its
     * `piece`, and by its `final`, whose speaker `speakers_revised` may change.
     */
    channel_names?: string | undefined;
};
/**
 * What a transcription may ask for (docs/http-api.md). What is left out is as the service has it.
 */
export type LiveEvent = {
    type: "speech_started" | "speech_stopped" | "turn_dropped";
    turn: number;
    at: number;
} | {
    type: "partial";
    turn: number;
    piece: number;
    start: number;
    end: number;
    text: string;
    stable: string;
    tail: string;
} | {
    type: "final";
    turn: number;
    piece: number;
    segment: Segment;
} | {
    type: "turn_ended";
    turn: number;
    start: number;
    end: number;
    text: string;
} | {
    type: "speakers_revised";
    speakers: Record<string, string>;
    names: Record<string, string | null>;
} | {
    type: "notice";
    code: string;
    message: string;
} | {
    type: "summary";
    transcript: Transcript;
    job: string | null;
} | {
    type: "unknown";
};

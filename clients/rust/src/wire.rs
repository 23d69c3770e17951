//! The bodies of the service, as types. Keys that are not here are ignored: the service may add some.

use serde::{Deserialize, Serialize};

/// The version of the contract that this crate keeps (docs/embedding.md).
pub const CONTRACT: u32 = 1;

/// The one line on standard output.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum StartLine {
    Ready(Ready),
    Fatal(Fatal),
}

/// The service can serve.
#[derive(Clone, Deserialize)]
pub struct Ready {
    /// Version of the contract.
    pub contract: u32,
    /// Where it serves: `http://127.0.0.1:49152`.
    pub url: String,
    /// Version of the service.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// What recordings are transcribed on: `cuda` or `cpu`.
    pub device: String,
    /// The token of this start.
    pub token: Option<String>,
    /// SHA-256 of its certificate, `5F:3A:…`, with `--tls self-signed`.
    pub fingerprint: Option<String>,
}

impl std::fmt::Debug for Ready {
    /// Without the token: what is shown lands in logs.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Ready { url, version, pid, device, .. } = self;
        write!(out, "Ready({url}, version {version}, process {pid}, {device})")
    }
}

/// The service cannot start.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Fatal {
    /// What to decide by: one of docs/errors.md.
    pub code: String,
    /// What is wrong, for developers.
    pub message: String,
    /// What may help, for developers.
    pub hint: String,
}

/// The body of every error.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Problem {
    /// Status of HTTP.
    pub status: u16,
    /// What to decide by: one of docs/errors.md.
    pub code: String,
    /// What is wrong, for developers.
    pub detail: String,
    /// What may help, for developers.
    pub hint: String,
}

/// How the service is (`GET /health`).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Health {
    /// `ok`, `loading` or `stopping`.
    pub status: String,
    /// Version of the service.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// New at every start.
    pub instance: String,
    /// Name of the engine for recordings.
    pub engine: String,
    /// `absent` (the next job loads it), `loading`, `ready`, `busy` or `stuck`.
    pub engine_state: String,
    /// The precision that is loaded.
    pub precision: String,
    /// `cuda` or `cpu`.
    pub device: String,
    /// Jobs that wait.
    pub jobs_waiting: u32,
}

/// What a transcription may ask for; what is `None` is as the service has it
/// (docs/http-api.md, "Fields of transcribe"); written by docs/generate.py.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Options {
    /// Preferred precision ('auto' is the loaded one): `auto`, `fp32`, `bf16`, `fp16`, `int8`,
    /// `int4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// Language tag such as 'en' or 'de-CH'; 'auto' detects it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Label the speakers; false costs less work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diarize: Option<bool>,
    /// Effort of diarization: `balanced`, `accurate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diarization: Option<String>,
    /// Identify enrolled speakers, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recognise: Option<bool>,
    /// Where nobody has agreed yet to enrolled speakers: keep the embeddings of this job's speakers
    /// in memory with it, so that one can be enrolled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voiceprints: Option<bool>,
    /// Names and terms to expect, separated by commas or in free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotwords: Option<String>,
    /// Topic of the recording, in its language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Number of speakers, if known: a hint (1 to 20).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_speakers: Option<u32>,
    /// Least number of speakers, instead of 'num_speakers' (1 to 20).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_speakers: Option<u32>,
    /// Greatest number of speakers, instead of 'num_speakers' (1 to 20).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_speakers: Option<u32>,
    /// Sampling temperature; 0 takes the likeliest words (0 to 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Limit of the model's output (1 to 65536).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// 'parallel' transcribes windows of about five minutes, several at once, if the memory
    /// suffices: `auto`, `parallel`, `single`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<String>,
    /// Number of the audio track, for a film with several (1 to 99).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<u32>,
    /// Seconds at the beginning that the engine gets as silence, and so transcribes nothing of (0
    /// to 86400).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_seconds: Option<f64>,
    /// 'separate' transcribes each channel for itself: for calls and interviews with a microphone
    /// for each person: `mix`, `separate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<String>,
    /// Names of separate channels in their order, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_names: Option<String>,
    /// Return word timestamps, also from an engine for which they are more work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<bool>,
    /// 'batch' runs after your other jobs: `interactive`, `batch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
}

/// A word with its times, in seconds.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[allow(missing_docs)]
pub struct Word {
    pub start_time: f64,
    pub end_time: f64,
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
}

/// One stretch of speech by one speaker; times in seconds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Segment {
    /// Label of its speaker, 'Speaker_0', 'Speaker_1' and so on: if there is none or it is unknown,
    /// the first, and a flag says so.
    pub speaker: String,
    /// Name of the identified speaker, or channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Seconds from the start.
    pub start_time: f64,
    /// Seconds from the start.
    pub end_time: f64,
    /// What is said.
    pub text: String,
    /// Its words, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<Vec<Word>>,
    /// Source of word times: 'attention' (of the model), 'server' (of an upstream), 'aligned' (at
    /// pauses and changes of sound), 'spread' (evenly, a guess).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words_by: Option<String>,
    /// What is unusual about it: 'non_speech' (music, noise or silence: nobody speaks), 'loop'
    /// (audio that the model could not transcribe: it repeats itself), 'overlap' (another person
    /// speaks at the same time in the same channel, by the diarizer), 'unheard' (live speech that
    /// was not recognized to its end: the words that were shown last), 'speaker_unknown' (speech of
    /// somebody who was not told apart)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Vec<String>>,
    /// How sure the engine is, up to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Probability that nobody speaks in it; omitted if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_speech_probability: Option<f64>,
    /// Language tag; omitted if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// What to know of a transcript: decide by `code`, `message` is for developers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[allow(missing_docs)]
pub struct Warning {
    pub code: String,
    pub message: String,
}

/// About a transcript as a whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Metadata {
    /// Seconds of audio.
    pub duration: f64,
    /// Of live audio: seconds in which no word is missing, if that is not all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recognized_s: Option<f64>,
    /// Language tag.
    pub language: String,
    /// Probability of that language, if it was detected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language_probability: Option<f64>,
    /// How many speak.
    pub num_speakers: u32,
    /// Which engine transcribed it.
    pub engine: String,
    /// Which precision was used.
    pub model_precision: String,
    /// What to know of it.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}

/// A whole transcript.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[allow(missing_docs)]
pub struct Transcript {
    pub segments: Vec<Segment>,
    pub metadata: Metadata,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum JobState {
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

/// How much of the audio was transcribed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct AudioProgress {
    /// Seconds of audio that are done.
    pub audio_seconds_done: f64,
    /// Seconds of audio in all, if that is known.
    pub audio_seconds_total: Option<f64>,
    /// 0 to 1, if the length is known.
    pub fraction: Option<f64>,
}

/// The same while it runs, with the time that is left.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Progress {
    /// How far it is.
    #[serde(flatten)]
    pub audio: AudioProgress,
    /// Seconds until it is done, if that can be told.
    #[serde(rename(deserialize = "estimated_remaining_seconds"))]
    pub seconds_left: Option<f64>,
}

/// Why a job failed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[allow(missing_docs)]
pub struct JobError {
    pub code: String,
    pub detail: String,
    pub hint: String,
}

/// A job, without its words (`GET /v1/jobs/{id}`).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: JobState,
    /// Jobs that go first, until it runs.
    pub position: Option<u32>,
    /// Seconds of audio, if that is known.
    pub duration: Option<f64>,
    /// How far it is.
    pub progress: AudioProgress,
    /// Seconds until it begins.
    pub estimated_wait_seconds: Option<f64>,
    /// Seconds until it is done, while it runs.
    pub estimated_remaining_seconds: Option<f64>,
    /// Seconds until it is deleted, once it has ended.
    pub expires_in: Option<f64>,
    /// Share of its owner's space that newer results may fill until it is deleted for them; `None`
    /// if it never is, as one that was edited.
    pub space_left: Option<f64>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<JobError>,
    /// Channels that are transcribed one by one; `None` if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u32>,
    /// Name of its file, where it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A name of the loaded model (`GET /v1/models`).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Model {
    /// Its name.
    pub id: String,
    /// All else that the service says of it.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// A model that can be used or downloaded here (`GET /v1/models`).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LocalModel {
    /// Its name, for pull and delete.
    pub name: String,
    /// The engine that loads it.
    pub engine: String,
    /// Languages that it knows; empty: any.
    pub languages: Vec<String>,
    /// Whether it transcribes recordings.
    pub recordings: bool,
    /// Whether it transcribes live audio.
    pub live: bool,
    /// Whether it tells speakers apart.
    pub speakers: bool,
    /// Size of its download, if that is known.
    pub download_bytes: Option<u64>,
    /// Memory of its weights in the smallest precision, if that is known.
    pub memory_bytes: Option<u64>,
    /// Packages that its engine needs and that this service lacks.
    pub lacking: Vec<String>,
    /// Whether it is here, whole.
    pub installed: bool,
    /// Its size on the disk, also of a part.
    pub bytes: u64,
    /// The version that is here.
    pub commit: String,
    /// What is transcribed with it now: `recordings`, `live`.
    #[serde(default)]
    pub used_for: Vec<String>,
}

/// What a recording will need (`POST /v1/estimate`).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Estimate {
    /// Whether there is enough memory for it.
    pub fits: bool,
    /// Seconds that it will take, if that is known.
    pub seconds: Option<f64>,
    /// The same for developers.
    pub sentence: String,
}

/// A reload is done (`POST /reload-model`).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[allow(missing_docs)]
pub struct Reloaded {
    pub status: String,
    pub message: String,
}

//! What the service says, as strictly as a host's parser takes it: every field must be there and of
//! its type, only an `Option` may be null, and keys beyond these are ignored.

#![allow(dead_code)] // a field that nobody reads must be there all the same

use serde::{Deserialize, Serialize};

/// The version of the contract that this program was written for.
pub const CONTRACT: u32 = 1;

/// The one line on standard output.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum StartLine {
    Ready(Ready),
    Fatal(Fatal),
}

/// It can serve.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    pub contract: u32,
    pub port: u16,
    pub url: String,
    pub version: String,
    pub pid: u32,
    /// Only where the host asked for one with `--generate-token`.
    pub token: Option<String>,
}

/// It cannot start; an exit code follows.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Fatal {
    pub contract: u32,
    pub code: String,
    pub message: String,
    pub hint: String,
}

/// GET /health.
#[derive(Debug, Deserialize)]
pub struct Health {
    pub contract: u32,
    pub version: String,
    pub pid: u32,
    /// New at every start: tells an orphan from the real one.
    pub instance: String,
    /// `absent` (the next job loads the model), `loading`, `ready`, `busy` or `stuck`.
    pub engine_state: String,
    pub precision: String,
}

/// What a request may ask for; a field that is `None` has the service's default. All fields:
/// docs/http-api.md#fields-of-transcribe
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct TranscribeOptions {
    /// A tag such as `en` or `de-DE`, or `auto`.
    pub language: Option<String>,
    /// 1 to 20, if it is known.
    pub num_speakers: Option<u32>,
    /// Whether to tell speakers apart.
    pub diarize: Option<bool>,
    /// Names and terms to expect, for the engines that take them.
    pub prompt: Option<String>,
}

/// One stretch of speech by one speaker; times in seconds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Segment {
    pub speaker: String,
    pub start_time: f64,
    pub end_time: f64,
    pub text: String,
}

/// About a transcript as a whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Metadata {
    pub duration: f64,
    pub language: String,
    pub model_precision: String,
    pub num_speakers: u32,
    pub engine: String,
    pub warnings: Vec<Warning>,
}

/// What to know of a transcript: decide by `code` and show a text of your own; `message` is for
/// developers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Warning {
    pub code: String,
    pub message: String,
}

/// GET /v1/jobs/{id}/transcript.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Transcription {
    pub segments: Vec<Segment>,
    pub metadata: Metadata,
}

/// POST /reload-model.
#[derive(Debug, Deserialize)]
pub struct Reloaded {
    pub status: String,
    pub message: String,
}

/// How far a job is; `fraction` is unknown until the length of the audio is known.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Progress {
    pub fraction: Option<f64>,
}

/// GET /v1/jobs/{id}.
#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    pub id: String,
    pub state: JobState,
    pub progress: Progress,
    /// The seconds that a running job will still take, if that is known.
    pub estimated_remaining_seconds: Option<f64>,
    pub error: Option<JobError>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    Queued,
    Running,
    Done,
    Failed,
    Cancelled,
}

impl JobState {
    pub fn is_final(self) -> bool {
        matches!(self, JobState::Done | JobState::Failed | JobState::Cancelled)
    }
}

/// Why a job failed.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct JobError {
    pub code: String,
    pub detail: String,
    pub hint: String,
}

/// The body of every error (application/problem+json).
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Problem {
    pub status: u16,
    pub code: String,
    pub detail: String,
    pub hint: String,
}

//! Calls of a running service. Each one blocks: call them from
//! `tauri::async_runtime::spawn_blocking`, or from a thread.

#![allow(dead_code)] // a host calls what it needs of it

use crate::wire::{
    Health, Job, JobState, Problem, Ready, Reloaded, TranscribeOptions, Transcription,
};
use serde_json::{json, Value};
use std::fmt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

const POLL: Duration = Duration::from_millis(100);

/// Why a call has no result.
#[derive(Debug)]
pub enum CallError {
    /// The service says why.
    Problem(Problem),
    /// Nobody answers: look whether the service still runs, and start it again if not.
    Unreachable(String),
    /// Somebody answers, in a way that is not the service's.
    Strange(String),
    /// The job was cancelled.
    Cancelled,
}

impl CallError {
    /// What to decide by: of docs/errors.md, or one of those below.
    pub fn code(&self) -> &str {
        match self {
            CallError::Problem(problem) => &problem.code,
            CallError::Unreachable(_) => "unreachable",
            CallError::Strange(_) => "strange",
            CallError::Cancelled => "cancelled",
        }
    }
}

/// For developers, not for users.
impl fmt::Display for CallError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Problem(problem) => {
                write!(out, "{} {} ({})", problem.detail, problem.hint, problem.code)
            }
            CallError::Unreachable(what) => write!(out, "no answer: {what}"),
            CallError::Strange(what) => write!(out, "not understood: {what}"),
            CallError::Cancelled => write!(out, "cancelled"),
        }
    }
}

/// Calls of a service.
#[derive(Clone)]
pub struct Client {
    url: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Client {
    /// Calls of the service that said this.
    pub fn new(ready: &Ready) -> Client {
        Client {
            url: ready.url.clone(),
            token: ready.token.clone(),
            agent: ureq::AgentBuilder::new().redirects(0).build(),
        }
    }

    /// The same service, with another token or none.
    pub fn with_token(&self, token: Option<&str>) -> Client {
        Client { token: token.map(str::to_string), ..self.clone() }
    }

    pub fn health(&self) -> Result<Health, CallError> {
        answer(self.request("GET", "/health", 3).call())
    }

    /// Transcribe a file of this machine. `on_progress` sees the job about ten times a second, and
    /// cancels it by answering false.
    pub fn transcribe(
        &self,
        audio: &Path,
        options: &TranscribeOptions,
        on_progress: impl FnMut(&Job) -> bool,
    ) -> Result<Transcription, CallError> {
        self.follow(self.submit(audio, options)?, on_progress)
    }

    /// Begin to transcribe a file of this machine; the job, as it stands.
    pub fn submit(&self, audio: &Path, options: &TranscribeOptions) -> Result<Job, CallError> {
        let path = audio.to_str().ok_or_else(|| CallError::Strange("path not UTF-8".into()))?;
        let mut body = json!(options); // a null is a default
        body["audio_path"] = json!(path);
        answer(
            self.request("POST", "/transcribe", 60).set("Prefer", "respond-async").send_json(body),
        )
    }

    /// Begin to transcribe a recording that is in memory, in any format of a file.
    pub fn upload(&self, audio: &[u8], options: &TranscribeOptions) -> Result<Job, CallError> {
        let mark = "----vibevoice-asr-recording";
        let part = format!("--{mark}\r\nContent-Disposition: form-data; name=");
        let mut body = Vec::new();
        for (name, value) in json!(options).as_object().into_iter().flatten() {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            body.extend(format!("{part}\"{name}\"\r\n\r\n{text}\r\n").into_bytes());
        }
        body.extend(
            format!(
                "{part}\"audio\"; filename=\"recording\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            )
            .into_bytes(),
        );
        body.extend_from_slice(audio);
        body.extend_from_slice(format!("\r\n--{mark}--\r\n").as_bytes());
        answer(
            self.request("POST", "/transcribe", 300)
                .set("Prefer", "respond-async")
                .set("Content-Type", &format!("multipart/form-data; boundary={mark}"))
                .send_bytes(&body),
        )
    }

    /// Wait for a job's result, as `transcribe` does.
    pub fn follow(
        &self,
        mut job: Job,
        mut on_progress: impl FnMut(&Job) -> bool,
    ) -> Result<Transcription, CallError> {
        while !job.state.is_final() {
            if !on_progress(&job) {
                job = self.cancel(&job.id)?;
            } else {
                sleep(POLL);
                job = self.job(&job.id)?;
            }
        }
        match (job.state, job.error) {
            (JobState::Failed, Some(error)) => Err(CallError::Problem(Problem {
                status: 500,
                code: error.code,
                detail: error.detail,
                hint: error.hint,
            })),
            (JobState::Cancelled, _) => Err(CallError::Cancelled),
            _ => answer(self.request("GET", &format!("/v1/jobs/{}/transcript", job.id), 60).call()),
        }
    }

    pub fn job(&self, id: &str) -> Result<Job, CallError> {
        answer(self.request("GET", &format!("/v1/jobs/{id}"), 10).call())
    }

    /// End a job; the job, as it is then.
    pub fn cancel(&self, id: &str) -> Result<Job, CallError> {
        answer(self.request("DELETE", &format!("/v1/jobs/{id}?keep=true"), 10).call())
    }

    /// Load the engine anew at another precision: fp16, int8, int4 …
    pub fn reload(&self, precision: &str) -> Result<Reloaded, CallError> {
        let body = json!({ "precision": precision });
        answer(self.request("POST", "/reload-model", 600).send_json(body))
    }

    fn request(&self, method: &str, address: &str, limit_s: u64) -> ureq::Request {
        let request = self
            .agent
            .request(method, &format!("{}{address}", self.url))
            .timeout(Duration::from_secs(limit_s));
        match &self.token {
            Some(token) => request.set("Authorization", &format!("Bearer {token}")),
            None => request,
        }
    }
}

/// A body of the type that is expected, or why there is none.
fn answer<T: serde::de::DeserializeOwned>(
    outcome: Result<ureq::Response, ureq::Error>,
) -> Result<T, CallError> {
    match outcome {
        Ok(response) => response.into_json().map_err(|error| CallError::Strange(error.to_string())),
        Err(ureq::Error::Status(status, response)) => {
            let text = response.into_string().unwrap_or_default();
            Err(match serde_json::from_str(&text) {
                Ok(problem) => CallError::Problem(problem),
                Err(_) => CallError::Strange(format!("HTTP {status}: {text}")),
            })
        }
        Err(ureq::Error::Transport(error)) => Err(CallError::Unreachable(error.to_string())),
    }
}

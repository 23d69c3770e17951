//! Downloads of models by the service: their progress as it comes.

use crate::error::Error;
use crate::sse::{Frame, Parser};
use crate::wire::JobError;
use crate::Result;
use reqwest::Response;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::timeout;

/// The service says something every 15 s; who is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);

/// What happens to a download.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PullStep {
    /// So much is here and checked.
    Progress {
        /// Bytes so far; fewer than before, where a file is downloaded again.
        bytes_done: u64,
        /// Bytes of the whole model.
        bytes_total: u64,
    },
    /// What to know of it, for developers.
    Notice {
        /// The notice.
        message: String,
    },
    /// The last step: it is here, whole and checked.
    Done {
        /// Its name.
        name: String,
        /// Its version.
        commit: String,
    },
}

/// A download that runs. It ends when this is dropped; what came stays, and the next one resumes it.
pub struct Pulling {
    response: Response,
    parser: Parser,
    frames: VecDeque<Frame>,
    over: bool,
}

impl Pulling {
    pub(crate) fn new(response: Response) -> Pulling {
        let (parser, frames) = (Parser::default(), VecDeque::new());
        Pulling { response, parser, frames, over: false }
    }

    /// The next step; `None` behind `Done` or an error. It may be dropped and asked again.
    pub async fn next(&mut self) -> Option<Result<PullStep>> {
        if self.over {
            return None;
        }
        let step = self.step().await;
        self.over = matches!(step, Err(_) | Ok(PullStep::Done { .. }));
        Some(step)
    }

    async fn step(&mut self) -> Result<PullStep> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                match step_of(&frame)? {
                    Some(step) => return Ok(step),
                    None => continue,
                }
            }
            let piece = timeout(SILENCE, self.response.chunk()).await;
            let silent = |_| Error::Unreachable(format!("silent for {SILENCE:?}"));
            let piece = piece.map_err(silent)??;
            let broken = || Error::Unreachable("the download broke off".into());
            self.frames.extend(self.parser.feed(&piece.ok_or_else(broken)?));
        }
    }
}

/// What an event is; `None`: nothing that a host needs.
fn step_of(frame: &Frame) -> Result<Option<PullStep>> {
    #[derive(Deserialize)]
    struct Failed {
        error: JobError,
    }
    let strange = |error: serde_json::Error| Error::Strange(error.to_string());
    let mut data: serde_json::Value = serde_json::from_str(&frame.data).map_err(strange)?;
    match frame.event.as_str() {
        "failed" => Err(serde_json::from_value::<Failed>(data).map_err(strange)?.error.into()),
        event @ ("progress" | "notice" | "done") => {
            data["step"] = event.into();
            Ok(Some(serde_json::from_value(data).map_err(strange)?))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(event: &str, data: &str) -> Result<Option<PullStep>> {
        step_of(&Frame { event: event.into(), id: None, data: data.into() })
    }

    #[test]
    fn events_become_steps_and_failure_an_error_with_its_code() {
        let progress = step("progress", r#"{"bytes_done": 1, "bytes_total": 16700000000}"#);
        let expected = PullStep::Progress { bytes_done: 1, bytes_total: 16_700_000_000 };
        assert_eq!(progress.unwrap(), Some(expected));
        let done = step("done", r#"{"name": "whisper:small", "commit": "aa"}"#);
        let expected = PullStep::Done { name: "whisper:small".into(), commit: "aa".into() };
        assert_eq!(done.unwrap(), Some(expected));
        assert_eq!(step("new in a later version", "{}").unwrap(), None);
        let error = r#"{"error": {"code": "disk_full", "detail": "", "hint": ""}}"#;
        assert_eq!(step("failed", error).unwrap_err().code(), "disk_full");
    }
}

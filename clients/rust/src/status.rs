//! What a host is told of its service.

use serde::Serialize;

/// What the service is about.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// It is being started.
    Starting,
    /// It can serve, and has nothing to do for this program.
    Ready {
        /// Its version.
        version: String,
        /// `cuda` or `cpu`.
        device: String,
        /// Its process.
        pid: u32,
    },
    /// It works for this program.
    Busy {
        /// Transcriptions of this program that are not done.
        jobs: usize,
    },
    /// It ended, or could not be started.
    Crashed {
        /// What to decide by: a code of docs/errors.md, `crashed` or `not_started`.
        code: String,
        /// What happened, for developers.
        reason: String,
        /// The end of its log.
        log: Vec<String>,
        /// Seconds until it is started again; `None`: it is not, before
        /// [`restart`](crate::Supervisor::restart).
        restart_in: Option<f64>,
    },
    /// It was stopped, or somebody asked it to end.
    Stopped,
}

//! Why something did not work. Decide by `code()`; the texts are for developers.

use crate::find::NotFound;
use crate::wire::{Fatal, JobError, Problem, CONTRACT};

/// Why a call has no result.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service says why.
    #[error("{} {} ({})", .0.detail, .0.hint, .0.code)]
    Problem(Problem),
    /// Nobody answers: the service has ended, or was never there.
    #[error("the service does not answer: {0}")]
    Unreachable(String),
    /// Somebody answers, in a way that is not the service's.
    #[error("the answer is not understood: {0}")]
    Strange(String),
    /// The file cannot be read here.
    #[error("the recording cannot be read: {0}")]
    Unreadable(String),
    /// The job was cancelled.
    #[error("the job was cancelled")]
    Cancelled,
    /// There is no service to call.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Error {
    /// What to decide by: a code of docs/errors.md, or `unreachable`, `strange`, `unreadable`,
    /// `cancelled`, `stopped` or `not_started`.
    pub fn code(&self) -> &str {
        match self {
            Error::Problem(problem) => &problem.code,
            Error::Unreachable(_) => "unreachable",
            Error::Strange(_) => "strange",
            Error::Unreadable(_) => "unreadable",
            Error::Cancelled => "cancelled",
            Error::Start(error) => error.code(),
        }
    }
}

impl From<reqwest::Error> for Error {
    fn from(error: reqwest::Error) -> Error {
        let text = with_causes(&error);
        if error.is_builder() {
            Error::Strange(text)
        } else {
            Error::Unreachable(text)
        }
    }
}

impl From<JobError> for Error {
    fn from(error: JobError) -> Error {
        let JobError { code, detail, hint } = error;
        Error::Problem(Problem { status: 500, code, detail, hint })
    }
}

/// Why there is no service.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no executable.
    #[error(transparent)]
    NotFound(#[from] NotFound),
    /// The executable cannot be run.
    #[error("{program} cannot be started: {reason}")]
    NotSpawned {
        /// What was to be run.
        program: String,
        /// What the system says.
        reason: String,
    },
    /// It said why it cannot start.
    #[error("{} {} ({})", .fatal.message, .fatal.hint, .fatal.code)]
    Fatal {
        /// Its line.
        fatal: Fatal,
        /// Its exit code; `None`: it was killed.
        exit_code: Option<i32>,
    },
    /// It ended, or was silent for too long.
    #[error("{what}")]
    Silent {
        /// What happened.
        what: String,
        /// Its exit code, if it has ended by itself.
        exit_code: Option<i32>,
        /// The end of its log.
        log: Vec<String>,
    },
    /// It keeps another version of the contract.
    #[error("it keeps version {0} of the contract, this program version {CONTRACT}")]
    Contract(u32),
    /// It crashed too often; this is the end of its log.
    #[error("it ended with {exit}{}", in_a_row(.times))]
    CrashLoop {
        /// How often in a row.
        times: u32,
        /// How the last time.
        exit: String,
        /// The end of its log.
        log: Vec<String>,
    },
    /// It was stopped by this program, or ended by somebody who asked it to.
    #[error("it was stopped")]
    Stopped,
}

impl StartError {
    /// What to decide by: a code of docs/errors.md, `stopped` or `not_started`.
    pub fn code(&self) -> &str {
        match self {
            StartError::Fatal { fatal, .. } => &fatal.code,
            StartError::Stopped => "stopped",
            _ => "not_started",
        }
    }

    /// The end of the service's log, where there is one.
    pub fn log(&self) -> &[String] {
        match self {
            StartError::Silent { log, .. } | StartError::CrashLoop { log, .. } => log,
            _ => &[],
        }
    }
}

/// An error with all that it is due to, which libraries keep out of its own text.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        text += &format!(": {one}");
        cause = one.source();
    }
    text
}

fn in_a_row(times: &u32) -> String {
    match times {
        1 => String::new(),
        _ => format!(", {times} times in a row"),
    }
}

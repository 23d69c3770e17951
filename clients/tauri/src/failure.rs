//! An error as the page gets it.

use serde::Serialize;
use vibevoice_asr::{Error, StartError};

/// Why a command has no result. The page decides by `code`; `detail` is for developers.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// A code of docs/errors.md, or one of [`Error::code`].
    pub code: String,
    /// What is wrong, for developers.
    pub detail: String,
}

impl Failure {
    pub(crate) fn new(code: &str, detail: impl ToString) -> Failure {
        Failure { code: code.to_string(), detail: detail.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(error.code(), &error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        Failure::new(error.code(), &error)
    }
}

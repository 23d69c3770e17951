//! The transcriptions that pages wait for, and recordings on their way to one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vibevoice_asr::Cancel;

/// Recordings that were uploaded and not asked for, at most, for each page.
const UPLOADS: usize = 4;

/// Whose: the label of a webview, and a name that its page chose.
type Name = (String, String);

/// By whose they are.
#[derive(Default)]
pub(crate) struct Jobs {
    running: Mutex<HashMap<Name, Cancel>>,
    uploads: Mutex<HashMap<Name, Vec<u8>>>,
}

impl Jobs {
    pub(crate) fn begin(&self, label: &str, job: &str, cancel: Cancel) {
        held(&self.running).insert(name(label, job), cancel);
    }

    pub(crate) fn end(&self, label: &str, job: &str) {
        held(&self.running).remove(&name(label, job));
    }

    /// End a job, and forget a recording that waits for it; one that is not there has ended.
    pub(crate) fn cancel(&self, label: &str, job: &str) {
        held(&self.uploads).remove(&name(label, job));
        if let Some(cancel) = held(&self.running).get(&name(label, job)) {
            cancel.cancel();
        }
    }

    /// Keep a recording until its job begins; false: too many of this page wait.
    pub(crate) fn upload(&self, label: &str, job: &str, data: Vec<u8>) -> bool {
        let mut uploads = held(&self.uploads);
        let room = uploads.keys().filter(|(owner, _)| owner == label).count() < UPLOADS;
        if room {
            uploads.insert(name(label, job), data);
        }
        room
    }

    pub(crate) fn uploaded(&self, label: &str, job: &str) -> Option<Vec<u8>> {
        held(&self.uploads).remove(&name(label, job))
    }

    /// The page is gone: nobody waits for its jobs.
    pub(crate) fn leave(&self, label: &str) {
        held(&self.uploads).retain(|(owner, _), _| owner != label);
        held(&self.running).retain(|(owner, _), cancel| {
            if owner == label {
                cancel.cancel();
            }
            owner != label
        });
    }
}

fn name(label: &str, job: &str) -> Name {
    (label.to_string(), job.to_string())
}

pub(crate) fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

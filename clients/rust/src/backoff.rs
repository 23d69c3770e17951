//! How long to wait before the next start, and when to give up.

use crate::error::StartError;
use crate::service::Exit;
use std::time::Duration;

/// When a [`Supervisor`](crate::Supervisor) starts the service again.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The wait after the first crash (0.25 s); it doubles with each that follows.
    pub first_wait: Duration,
    /// The longest wait (30 s).
    pub longest_wait: Duration,
    /// After so many failures in a row it is given up (6).
    pub attempts: u32,
    /// Who ran for so long has not failed in a row (60 s).
    pub steady: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(30),
            attempts: 6,
            steady: Duration::from_secs(60),
        }
    }
}

/// Failures in a row.
pub(crate) struct Backoff {
    policy: Policy,
    pub(crate) failures: u32,
}

impl Backoff {
    pub(crate) fn new(policy: Policy) -> Backoff {
        Backoff { policy, failures: 0 }
    }

    /// The wait before the next start of what ran for `lasted`; `None`: there is none.
    pub(crate) fn next(&mut self, lasted: Duration) -> Option<Duration> {
        self.failures = if lasted >= self.policy.steady { 1 } else { self.failures + 1 };
        if self.failures >= self.policy.attempts {
            return None;
        }
        let factor = 2_u32.saturating_pow(self.failures - 1);
        Some(self.policy.first_wait.saturating_mul(factor).min(self.policy.longest_wait))
    }
}

/// What an end means, by the table of docs/embedding.md.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Somebody asked it to end.
    Stopped,
    /// It would end the same way again.
    Hopeless,
    /// It may work the next time.
    Crashed,
}

pub(crate) fn verdict_of_exit(exit: &Exit) -> Verdict {
    match exit.code {
        Some(0 | 130) => Verdict::Stopped,
        Some(2 | 66 | 69 | 78) => Verdict::Hopeless,
        _ => Verdict::Crashed,
    }
}

pub(crate) fn verdict_of_start(error: &StartError) -> Verdict {
    match error {
        StartError::Fatal { fatal, .. } if fatal.code == "hub_unreachable" => Verdict::Crashed,
        StartError::Fatal { exit_code: Some(66 | 69 | 78), .. } => Verdict::Hopeless,
        StartError::Silent { exit_code: Some(2), .. } => Verdict::Hopeless,
        StartError::Fatal { .. } | StartError::Silent { .. } => Verdict::Crashed,
        _ => Verdict::Hopeless,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Fatal;

    #[test]
    fn wait_doubles_to_longest_and_ends_after_attempts() {
        let policy = Policy { longest_wait: Duration::from_millis(700), ..Policy::default() };
        let mut backoff = Backoff::new(policy);
        let waits: Vec<_> = (0..6).map(|_| backoff.next(Duration::ZERO)).collect();
        let ms = |wait| Some(Duration::from_millis(wait));
        assert_eq!(waits, [ms(250), ms(500), ms(700), ms(700), ms(700), None]);
    }

    #[test]
    fn run_that_was_steady_begins_anew() {
        let mut backoff = Backoff::new(Policy::default());
        for _ in 0..20 {
            assert_eq!(backoff.next(Duration::from_secs(61)), Some(Duration::from_millis(250)));
        }
    }

    #[test]
    fn verdicts_follow_table_of_contract() {
        let exit = |code| Exit { code, text: String::new(), log: Vec::new() };
        assert_eq!(verdict_of_exit(&exit(Some(0))), Verdict::Stopped);
        assert_eq!(verdict_of_exit(&exit(None)), Verdict::Crashed);
        assert_eq!(verdict_of_exit(&exit(Some(1))), Verdict::Crashed);
        let fatal = |code: &str, exit| StartError::Fatal {
            fatal: Fatal { code: code.into(), message: String::new(), hint: String::new() },
            exit_code: Some(exit),
        };
        assert_eq!(verdict_of_start(&fatal("settings_invalid", 78)), Verdict::Hopeless);
        assert_eq!(verdict_of_start(&fatal("engine_unavailable", 69)), Verdict::Hopeless);
        assert_eq!(verdict_of_start(&fatal("hub_unreachable", 69)), Verdict::Crashed);
        assert_eq!(verdict_of_start(&fatal("port_in_use", 75)), Verdict::Crashed);
        assert_eq!(verdict_of_start(&fatal("internal", 1)), Verdict::Crashed);
    }
}

//! What held and what did not, one line each.

use crate::processes::is_alive;
use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Report {
    held: usize,
    broken: usize,
}

impl Report {
    pub fn ok(&mut self, what: &str, detail: impl Display) {
        self.check(what, true, detail);
    }

    pub fn check(&mut self, what: &str, holds: bool, detail: impl Display) {
        println!("{}  {what}: {detail}", if holds { "ok  " } else { "FAIL" });
        *(if holds { &mut self.held } else { &mut self.broken }) += 1;
    }

    /// Whether a family of processes ends within the limit.
    pub fn gone(&mut self, what: &str, family: &[(u32, u64)], limit: Duration) {
        if family.is_empty() {
            println!("--    {what}: not looked at on this system");
            return;
        }
        let begin = Instant::now();
        while family.iter().any(|one| is_alive(*one)) && begin.elapsed() < limit {
            sleep(Duration::from_millis(10));
        }
        let left = family.iter().filter(|one| is_alive(**one)).count();
        let took = begin.elapsed();
        self.check(
            what,
            left == 0,
            format!("{} processes, {left} left after {took:.1?}", family.len()),
        );
    }

    /// The last line; whether everything held.
    pub fn end(&self, outcome: Result<(), String>) -> bool {
        if let Err(error) = &outcome {
            println!("FAIL  {error}");
        }
        let broken = self.broken + usize::from(outcome.is_err());
        println!("{} held, {broken} did not", self.held);
        broken == 0 && self.held > 0
    }
}

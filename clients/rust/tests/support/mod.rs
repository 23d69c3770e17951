//! The real service for tests: its command, a folder of its own, a recording, and who is left.
//!
//! `VIBEVOICE_TEST_COMMAND` is how it is started (`/path/to/python -m sidecar.main`); the program
//! `vibevoice-asr` of the PATH without it.

#![allow(dead_code, unused_imports)] // each file of tests needs some of it

mod processes;

pub use processes::{kill, running, Process};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vibevoice_asr::Launch;

/// A limit for what is no promise: a busy machine is nobody's fault.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const RATE: usize = 16_000;

/// Where a test's service has its files.
pub struct Stage {
    pub folder: TempDir,
}

impl Stage {
    pub fn new() -> Stage {
        Stage { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The service with the scripted engine, which makes up a segment for each second of audio.
    pub fn launch(&self) -> Launch {
        let mut words = command().into_iter();
        let launch = Launch::new(words.next().unwrap());
        words
            .fold(launch, |launch, word| launch.argument(word))
            .data_folder(self.path("data"))
            .env("PYTHONPATH", repository())
            .env("VIBEVOICE_ENGINE", "scripted")
            .start_limit(PATIENCE)
    }

    /// The same, at so many seconds of audio per second.
    pub fn launch_at_speed(&self, speed: u32) -> Launch {
        self.launch().env("VIBEVOICE_SCRIPTED_SPEED", speed.to_string())
    }

    /// The same; no attempt goes further than its first second while [`Stage::hold`] is there.
    pub fn launch_held(&self) -> Launch {
        std::fs::write(self.hold(), "").unwrap();
        self.launch().env("VIBEVOICE_SCRIPTED_HOLD", self.hold())
    }

    pub fn hold(&self) -> PathBuf {
        self.path("hold")
    }

    /// A recording of so many seconds.
    pub fn recording(&self, seconds: usize) -> PathBuf {
        let path = self.path(&format!("{seconds} s – süß.wav"));
        std::fs::write(&path, wave(seconds)).unwrap();
        path
    }
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn command() -> Vec<String> {
    let said = std::env::var("VIBEVOICE_TEST_COMMAND");
    let text = said.unwrap_or_else(|_| "vibevoice-asr".into());
    text.split_whitespace().map(str::to_string).collect()
}

/// Loud samples, each second of them others.
pub fn samples(seconds: usize) -> Vec<u8> {
    let sample = |n: usize| {
        let second = n / RATE + 1;
        (((n * second * 37) % 200) as i16 - 100) * 100
    };
    (0..seconds * RATE).flat_map(|n| sample(n).to_le_bytes()).collect()
}

/// A file of them.
pub fn wave(seconds: usize) -> Vec<u8> {
    let samples = samples(seconds);
    let mut file = Vec::new();
    file.extend(b"RIFF");
    file.extend((36 + samples.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend((RATE as u32).to_le_bytes());
    file.extend((2 * RATE as u32).to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend((samples.len() as u32).to_le_bytes());
    file.extend(samples);
    file
}

/// Wait for what must come to be.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The process and all that it started.
pub fn family(pid: u32) -> BTreeSet<Process> {
    let all = running();
    let mut found: BTreeSet<Process> = all.iter().copied().filter(|one| one.id == pid).collect();
    loop {
        let before = found.len();
        let ids: BTreeSet<u32> = found.iter().map(|one| one.id).collect();
        found.extend(all.iter().filter(|one| ids.contains(&one.parent)));
        if found.len() == before {
            return found;
        }
    }
}

/// Whether any of them runs.
pub fn any_alive(family: &BTreeSet<Process>) -> bool {
    running().iter().any(|one| family.iter().any(|was| (was.id, was.birth) == (one.id, one.birth)))
}

/// A program of examples/ or the stand-in, which cargo builds beside the tests.
pub fn built(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop(); // target/debug/deps
    folder.pop();
    folder.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// A start of the stand-in; its kinds are in stand_in.rs.
pub fn stand_in(kind: &str, note: &Path) -> Launch {
    Launch::new(built("stand_in")).argument(kind).argument(note)
}

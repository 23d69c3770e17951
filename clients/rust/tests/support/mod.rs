//! The real service for tests: its command, a folder of its own, a recording, and who is left.
//!
//! `VIBEVOICE_TEST_COMMAND` is how it is started (`/path/to/python -m sidecar.main`); the program
//! `vibevoice-asr` of the PATH without it.

#![allow(dead_code)] // each file of tests needs some of it

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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
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

/// The process and all that it started, with the time of their birth, which tells one from another
/// that got its number later.
pub fn family(pid: u32) -> BTreeSet<(u32, u64)> {
    let all: Vec<(u32, u32, u64)> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter_map(|one| stat(one).map(|(parent, birth, _)| (one, parent, birth)))
        .collect();
    let mut found: BTreeSet<u32> = BTreeSet::from([pid]);
    loop {
        let more: Vec<u32> = all
            .iter()
            .filter(|(one, parent, _)| found.contains(parent) && !found.contains(one))
            .map(|(one, ..)| *one)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    all.iter()
        .filter(|(one, ..)| found.contains(one))
        .map(|(one, _, birth)| (*one, *birth))
        .collect()
}

/// Whether any of them runs.
pub fn any_alive(family: &BTreeSet<(u32, u64)>) -> bool {
    family.iter().any(|(pid, birth)| matches!(stat(*pid), Some((_, born, false)) if born == *birth))
}

fn stat(pid: u32) -> Option<(u32, u64, bool)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?, fields[0] == "Z"))
}

/// Kill a process, as its user or the system would.
pub fn kill(pid: u32) {
    // SAFETY: two numbers.
    assert_eq!(unsafe { libc::kill(pid as i32, libc::SIGKILL) }, 0);
}

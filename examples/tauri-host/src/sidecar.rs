//! The service as a child process, in the way of today: a free port, a token of this start, one
//! line on standard output, and an end when standard input closes.
//!
//! This file, `client.rs` and `wire.rs` are what a Tauri app copies into `src-tauri/src/`; they know
//! nothing of Tauri.

#![allow(dead_code)] // a host calls what it needs of it

use crate::client::Client;
use crate::wire::{Fatal, Ready, StartLine, CONTRACT};
use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

const KEPT_LINES: usize = 50;
const POLL: Duration = Duration::from_millis(100);

/// Why there is no service.
#[derive(Debug)]
pub enum StartError {
    /// There is no such program, or it may not be run.
    NotSpawned(std::io::Error),
    /// It said why, and ended with this exit code.
    Fatal(Fatal, Option<i32>),
    /// It ended, or was silent for too long, and this is the end of its log.
    Silent(String, Vec<String>),
    /// It speaks another version of the contract.
    Contract(u32),
}

impl StartError {
    /// What to decide by: of docs/tauri.md, or `not_started`.
    pub fn code(&self) -> &str {
        match self {
            StartError::Fatal(fatal, _) => &fatal.code,
            _ => "not_started",
        }
    }
}

/// For developers, not for users.
impl fmt::Display for StartError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NotSpawned(error) => write!(out, "cannot be started: {error}"),
            StartError::Fatal(fatal, _) => {
                write!(out, "{} {} ({})", fatal.message, fatal.hint, fatal.code)
            }
            StartError::Silent(what, log) => write!(out, "{what}\n{}", log.join("\n")),
            StartError::Contract(version) => {
                write!(out, "speaks contract {version}, this program {CONTRACT}")
            }
        }
    }
}

/// A running service. Dropping it kills the process.
pub struct Sidecar {
    child: Child,
    stdin: Option<ChildStdin>,
    ready: Ready,
    log: Arc<Mutex<VecDeque<String>>>,
    said_later: Arc<Mutex<Vec<u8>>>,
}

impl Sidecar {
    /// Start `command` (the program, and `-m sidecar.main` where it is Python) on a free port, with a
    /// token of this start, and wait for its line.
    pub fn start(mut command: Command, limit: Duration) -> Result<Sidecar, StartError> {
        command.args(["--port", "0", "--generate-token", "--exit-with-stdin"]);
        Sidecar::start_as_is(command, limit)
    }

    /// The same, with the arguments that `command` has.
    pub fn start_as_is(mut command: Command, limit: Duration) -> Result<Sidecar, StartError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(windows)]
        {
            use std::os::windows::process::CommandExt;
            command.creation_flags(0x0800_0000); // CREATE_NO_WINDOW: no console flashes up
        }
        let mut child = command.spawn().map_err(StartError::NotSpawned)?;
        let log = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = child.stderr.take() {
            let kept = Arc::clone(&log);
            spawn(move || keep_last_lines(stderr, &kept));
        }
        let said_later = Arc::new(Mutex::new(Vec::new()));
        let (sender, first_line) = channel();
        if let Some(stdout) = child.stdout.take() {
            let later = Arc::clone(&said_later);
            spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = String::new();
                let outcome = stdout.read_line(&mut line).map(|_| line);
                let _ = sender.send(outcome);
                let mut rest = Vec::new();
                let _ = stdout.read_to_end(&mut rest);
                later.lock().unwrap().extend(rest);
            });
        }
        let silent = |child: &mut Child, what: &str| {
            let _ = child.kill();
            let _ = child.wait();
            sleep(POLL); // for the last lines of its log
            let kept = log.lock().unwrap().iter().cloned().collect();
            Err(StartError::Silent(what.to_string(), kept))
        };
        let line = match first_line.recv_timeout(limit) {
            Ok(Ok(line)) if !line.is_empty() => line,
            Err(RecvTimeoutError::Timeout) => {
                return silent(&mut child, &format!("no line within {limit:?}"));
            }
            _ => return silent(&mut child, "it ended without a word"),
        };
        let ready = match serde_json::from_str(&line) {
            Ok(StartLine::Ready(ready)) => ready,
            Ok(StartLine::Fatal(fatal)) => {
                let code = child.wait().ok().and_then(|status| status.code());
                return Err(StartError::Fatal(fatal, code));
            }
            Err(error) => return silent(&mut child, &format!("{error} in its line: {line}")),
        };
        let stdin = child.stdin.take();
        let sidecar = Sidecar { child, stdin, ready, log, said_later };
        if sidecar.ready.contract != CONTRACT {
            return Err(StartError::Contract(sidecar.ready.contract));
        }
        Ok(sidecar)
    }

    /// What it said when it could serve.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Something to call it with, from any thread.
    pub fn client(&self) -> Client {
        Client::new(&self.ready)
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The last lines of its log, for a report of what went wrong.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().cloned().collect()
    }

    /// What came on standard output after the line; complete once it has ended. It should be nothing.
    pub fn said_later(&self) -> Vec<u8> {
        self.said_later.lock().unwrap().clone()
    }

    /// Let it end by itself: standard input closes, which is how it would notice this program's own
    /// end, so a running job is not waited for. After `limit` it is killed, and there is no status.
    pub fn stop(&mut self, limit: Duration) -> Option<ExitStatus> {
        drop(self.stdin.take());
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep_last_lines(stderr: impl Read, kept: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(stderr).split(b'\n').flatten() {
        let mut kept = kept.lock().unwrap();
        kept.push_back(String::from_utf8_lossy(&line).trim_end().to_string());
        if kept.len() > KEPT_LINES {
            kept.pop_front();
        }
    }
}

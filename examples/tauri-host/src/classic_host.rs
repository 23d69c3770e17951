//! The classic host itself: how it starts and kills the service, reads its standard error, and calls it.

use crate::wire::{ClassicHealth, Transcription};
use crate::Options;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::error::Error as _;
use std::io::{BufRead, BufReader, ErrorKind};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(500);
const HEALTH: Duration = Duration::from_secs(3);
const TRANSCRIBE: Duration = Duration::from_secs(300);
const KEPT_LINES: usize = 50;
const SHOWN_LINES: usize = 10;

/// What the host makes of a failed call.
#[derive(Debug)]
#[allow(dead_code)] // what they hold is read in the report
pub enum CallError {
    NotRunning,
    Connection(String),
    Server(u16, String),
    OutOfMemory(String),
    Parse(String),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Level {
    Error,
    Warning,
    Debug,
}

/// How severe a line of standard error is.
fn level(line: &str) -> Level {
    if line.starts_with("ERROR:") || line.contains(" - ERROR - ") || line.contains(" - CRITICAL - ")
    {
        Level::Error
    } else if line.starts_with("WARNING:")
        || [" - WARNING - ", "DeprecationWarning", "UserWarning"]
            .iter()
            .any(|one| line.contains(one))
    {
        Level::Warning
    } else {
        Level::Debug
    }
}

#[derive(Default)]
pub struct Log {
    lines: VecDeque<String>,
    /// How many lines were an error, a warning, or neither.
    pub of_level: [usize; 3],
    pub not_utf8: bool,
}

pub struct Host {
    child: Child,
    patience: Duration,
    pub log: Arc<Mutex<Log>>,
}

impl Host {
    pub fn spawn(options: &Options) -> std::io::Result<Host> {
        let mut command = Command::new(&options.command[0]);
        command
            .args(&options.command[1..])
            .env("TRISPR_DEV_BUILD", "0")
            .stdout(Stdio::piped()) // the pipe is held by `child`, and nobody reads it
            .stderr(Stdio::piped());
        if let Some(folder) = &options.folder {
            command.current_dir(folder);
        }
        let mut child = command.spawn()?;
        let log = Arc::new(Mutex::new(Log::default()));
        let stderr = child.stderr.take().expect("it is piped");
        let kept = Arc::clone(&log);
        spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let mut log = kept.lock().unwrap();
                let line = match line {
                    Ok(line) => line,
                    Err(_) => {
                        log.not_utf8 = true; // here the host stops to read, for good
                        return;
                    }
                };
                log.of_level[level(&line) as usize] += 1;
                log.lines.push_back(line);
                if log.lines.len() > KEPT_LINES {
                    log.lines.pop_front();
                }
            }
        });
        Ok(Host { child, patience: Duration::from_secs(options.patience), log })
    }

    /// Wait for /health as the host does: only a refused connection is tried again.
    pub fn wait(&mut self, port: u16) -> Result<(Duration, ClassicHealth), String> {
        let begin = Instant::now();
        loop {
            match health(port) {
                Ok(health) => return Ok((begin.elapsed(), health)),
                Err(CallError::NotRunning) if begin.elapsed() < self.patience => sleep(POLL),
                Err(error) => return Err(format!("{error:?}; its log:\n{}", self.last_lines())),
            }
        }
    }

    fn last_lines(&self) -> String {
        let log = self.log.lock().unwrap();
        let skipped = log.lines.len().saturating_sub(SHOWN_LINES);
        log.lines.iter().skip(skipped).cloned().collect::<Vec<_>>().join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn call<T: DeserializeOwned>(
    method: &str,
    port: u16,
    address: &str,
    limit: Duration,
    body: Option<serde_json::Value>,
) -> Result<T, CallError> {
    let url = format!("http://127.0.0.1:{port}{address}");
    let request = ureq::request(method, &url).timeout(limit);
    let outcome = match body {
        Some(body) => request.send_json(body),
        None => request.call(),
    };
    match outcome {
        Ok(response) => response.into_json().map_err(|error| CallError::Parse(error.to_string())),
        Err(ureq::Error::Status(status, response)) => {
            let text = response.into_string().unwrap_or_default();
            let no_memory = ["CUDA out of memory", "OutOfMemoryError"];
            Err(if no_memory.iter().any(|one| text.contains(one)) {
                CallError::OutOfMemory(text)
            } else {
                CallError::Server(status, text)
            })
        }
        Err(ureq::Error::Transport(error)) => {
            let refused = error
                .source()
                .and_then(|source| source.downcast_ref::<std::io::Error>())
                .map_or(false, |source| source.kind() == ErrorKind::ConnectionRefused);
            Err(match refused {
                true => CallError::NotRunning,
                false => CallError::Connection(error.to_string()),
            })
        }
    }
}

pub fn health(port: u16) -> Result<ClassicHealth, CallError> {
    call("GET", port, "/health", HEALTH, None)
}

/// Whether it works on a recording, which a classic host does not ask.
pub fn busy(port: u16) -> bool {
    call::<serde_json::Value>("GET", port, "/health", HEALTH, None)
        .map_or(false, |health| health["engine_state"] == "busy")
}

pub fn transcribe(port: u16, path: &str) -> Result<Transcription, CallError> {
    let body = serde_json::json!({"audio_path": path, "precision": "fp16", "language": "auto"});
    call("POST", port, "/transcribe", TRANSCRIBE, Some(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_level_that_the_host_reads_in_them() {
        for (line, expected) in [
            ("2026-11-20 15:00:00,000 - sidecar.app - ERROR - no", Level::Error),
            ("2026-11-20 15:00:00,000 - sidecar.app - CRITICAL - no", Level::Error),
            ("ERROR:    [Errno 98] in use", Level::Error),
            ("2026-11-20 15:00:00,000 - sidecar.app - WARNING - hm", Level::Warning),
            ("x.py:1: DeprecationWarning: old", Level::Warning),
            ("2026-11-20 15:00:00,000 - sidecar.app - INFO - an ERROR: inside", Level::Debug),
        ] {
            assert_eq!(level(line), expected, "{line}");
        }
    }
}

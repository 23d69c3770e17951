//! A desktop host in small: starts vibevoice-asr, uses it as hosts do, and reports what held.
//!
//!     tauri-host classic --audio FILE [--port 8765] [--requests 1500] [--patience 30] -- COMMAND...
//!     tauri-host modern --audio FILE -- COMMAND...
//!
//! COMMAND is `vibevoice-asr`, the path of the executable, or `python -m sidecar.main`. The exit code
//! is 0 when everything held, 1 when something did not, 2 when this line was not understood.

mod classic;
mod classic_host;
mod client;
mod modern;
mod processes;
mod report;
mod sidecar;
mod wire;

use std::process::exit;

const USAGE: &str = "usage: tauri-host classic|modern --audio FILE [--port N] [--requests N] \
                     [--patience SECONDS] [--folder DIR] [--instant] -- COMMAND...";

/// What the command line says.
pub struct Options {
    /// Absolute path of a recording that takes the engine some seconds.
    audio: String,
    /// Where the classic host looks; it tells the service nothing.
    port: u16,
    /// Requests that are sent while nobody reads standard output.
    requests: u32,
    /// Seconds that the classic host waits for the first answer.
    patience: u64,
    /// Working directory of the service.
    folder: Option<String>,
    /// The engine answers at once: progress and cancelling cannot be seen.
    instant: bool,
    command: Vec<String>,
}

fn parse(words: &[String]) -> Option<(String, Options)> {
    let end = words.iter().position(|word| word == "--")?;
    let (mut audio, mut folder, mut port, mut requests) = (None, None, 8765, 1500);
    let (mut patience, mut instant) = (30, false);
    let mut rest = words[1..end].iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--audio" => audio = Some(rest.next()?.clone()),
            "--folder" => folder = Some(rest.next()?.clone()),
            "--port" => port = rest.next()?.parse().ok()?,
            "--requests" => requests = rest.next()?.parse().ok()?,
            "--patience" => patience = rest.next()?.parse().ok()?,
            "--instant" => instant = true,
            _ => return None,
        }
    }
    let command = words[end + 1..].to_vec();
    if command.is_empty() {
        return None;
    }
    let options = Options { audio: audio?, port, requests, patience, folder, instant, command };
    Some((words[0].clone(), options))
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (name, options) = parse(&words).unwrap_or_else(|| {
        eprintln!("{USAGE}");
        exit(2)
    });
    let mut report = report::Report::default();
    let outcome = match name.as_str() {
        "classic" => classic::run(&options, &mut report),
        "modern" => modern::run(&options, &mut report),
        _ => {
            eprintln!("{USAGE}");
            exit(2)
        }
    };
    exit(if report.end(&name, outcome) { 0 } else { 1 })
}

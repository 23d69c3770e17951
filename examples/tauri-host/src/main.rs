//! A desktop host in small: starts vibevoice-asr, uses it as hosts do, and reports what held.
//!
//!     tauri-host --audio FILE -- COMMAND...
//!
//! COMMAND is `vibevoice-asr`, the path of the executable, or `python -m sidecar.main`. The exit code
//! is 0 when everything held, 1 when something did not, 2 when this line was not understood.

mod client;
mod host;
mod processes;
mod report;
mod sidecar;
mod wire;

use std::process::exit;

const USAGE: &str = "usage: tauri-host --audio FILE [--folder DIR] [--instant] -- COMMAND...";

/// What the command line says.
pub struct Options {
    /// Absolute path of a recording that takes the engine some seconds.
    audio: String,
    /// Working directory of the service.
    folder: Option<String>,
    /// The engine answers at once: progress and cancelling cannot be seen.
    instant: bool,
    command: Vec<String>,
}

fn parse(words: &[String]) -> Option<Options> {
    let end = words.iter().position(|word| word == "--")?;
    let (mut audio, mut folder, mut instant) = (None, None, false);
    let mut rest = words[..end].iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--audio" => audio = Some(rest.next()?.clone()),
            "--folder" => folder = Some(rest.next()?.clone()),
            "--instant" => instant = true,
            _ => return None,
        }
    }
    let command = words[end + 1..].to_vec();
    if command.is_empty() {
        return None;
    }
    Some(Options { audio: audio?, folder, instant, command })
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let options = parse(&words).unwrap_or_else(|| {
        eprintln!("{USAGE}");
        exit(2)
    });
    let mut report = report::Report::default();
    let outcome = host::run(&options, &mut report);
    exit(if report.end(outcome) { 0 } else { 1 })
}

//! What a host does with the service, by `sidecar.rs`, and what has to hold.

use crate::client::{CallError, Client};
use crate::processes::descendants;
use crate::report::Report;
use crate::sidecar::{Sidecar, StartError};
use crate::wire::{JobState, TranscribeOptions, Transcription, CONTRACT};
use crate::Options;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);
const GONE: Duration = Duration::from_secs(30);
const PORT_IN_USE: i32 = 75;

fn command(options: &Options) -> Command {
    let mut command = Command::new(&options.command[0]);
    command.args(&options.command[1..]);
    if let Some(folder) = &options.folder {
        command.current_dir(folder);
    }
    command
}

fn code<T>(outcome: Result<T, CallError>) -> String {
    match outcome {
        Ok(_) => "an answer".to_string(),
        Err(CallError::Problem(problem)) => format!("{} {}", problem.status, problem.code),
        Err(error) => format!("{} {error:?}", error.code()),
    }
}

/// A whole transcription, and the fractions that were seen on the way.
fn followed(client: &Client, audio: &str) -> Result<(Transcription, Vec<f64>), String> {
    let mut seen = Vec::new();
    let outcome = client.transcribe(Path::new(audio), &TranscribeOptions::default(), |job| {
        seen.extend(job.progress.fraction);
        true
    });
    Ok((outcome.map_err(|error| format!("transcribe: {error}"))?, seen))
}

/// Everything that a host does, in order.
pub fn run(options: &Options, report: &mut Report) -> Result<(), String> {
    let begin = Instant::now();
    let mut sidecar = Sidecar::start(command(options), START).map_err(|error| error.to_string())?;
    let ready = sidecar.ready().clone();
    let shown = format!("port {}, version {}, pid {}", ready.port, ready.version, ready.pid);
    report.ok("ready, said in one line", format!("{:.1?}, {shown}", begin.elapsed()));
    report.check(
        "on a port of its own",
        ready.port != 0 && ready.url == format!("http://127.0.0.1:{}", ready.port),
        &ready.url,
    );
    let token = ready.token.clone().unwrap_or_default();
    report.check(
        "with a token of this start",
        token.len() >= 32,
        format!("{} characters", token.len()),
    );

    let client = sidecar.client();
    let health = client.health().map_err(|error| error.to_string())?;
    let same =
        health.pid == ready.pid && health.version == ready.version && health.contract == CONTRACT;
    report.check("/health is of the same process and contract", same, format!("{health:?}"));

    let audio = Path::new(&options.audio);
    let usual = TranscribeOptions::default();
    let nameless = code(client.with_token(None).submit(audio, &usual));
    report.check("without the token nothing is done", nameless == "401 token_missing", nameless);
    let forged = code(client.with_token(Some(&"x".repeat(43))).submit(audio, &usual));
    report.check("nor with another", forged == "401 token_invalid", forged);

    let (first, seen) = followed(&client, &options.audio)?;
    let rising = seen.windows(2).all(|two| two[0] <= two[1]);
    let inside = seen.iter().filter(|one| **one > 0.0 && **one < 1.0).count();
    report.check(
        "a transcript, with progress on the way",
        rising && !first.segments.is_empty() && (inside > 0 || options.instant),
        format!("{} segments, {inside} fractions between 0 and 1", first.segments.len()),
    );

    let mut left = Vec::new();
    let cancelled = client.transcribe(audio, &usual, |job| {
        left.extend(job.estimated_remaining_seconds);
        job.state != JobState::Running
    });
    report.check(
        "the time left is told while it runs",
        !left.is_empty() || options.instant,
        format!("{left:?}"),
    );
    let state = client.health().map_err(|error| error.to_string())?.engine_state;
    report.check("/health says what the engine does", state != "absent", state);
    report.check(
        "a job is cancelled",
        matches!(&cancelled, Err(error) if error.code() == "cancelled") || options.instant,
        code(cancelled),
    );
    let (second, _) = followed(&client, &options.audio)?;
    let whole = texts(&first) == texts(&second);
    report.check("and the next one is whole", whole, format!("{} segments", second.segments.len()));

    let bytes = std::fs::read(audio).map_err(|error| error.to_string())?;
    let uploaded = client.upload(&bytes, &usual).and_then(|job| client.follow(job, |_| true));
    let same = matches!(&uploaded, Ok(third) if texts(third) == texts(&first));
    report.check("uploaded from memory it is the same", same, code(uploaded));

    let plain = TranscribeOptions {
        language: Some("en".to_string()),
        num_speakers: Some(1),
        diarize: Some(false),
        prompt: None,
    };
    let one_speaker = |outcome: Result<Transcription, CallError>| {
        outcome.map_or(false, |it| it.metadata.num_speakers == 1 && it.metadata.language == "en")
    };
    let named = client.transcribe(audio, &plain, |_| true);
    let uploaded = client.upload(&bytes, &plain).and_then(|job| client.follow(job, |_| true));
    report.check(
        "options count, of a file that is named and of one that is uploaded",
        first.metadata.num_speakers > 1 && one_speaker(named) && one_speaker(uploaded),
        format!("{} speakers without", first.metadata.num_speakers),
    );
    let odd = TranscribeOptions { language: Some("Klingonish".to_string()), ..plain };
    let refused = [client.submit(audio, &odd), client.upload(&bytes, &odd)].map(code);
    let expected = ["422 language_invalid", "422 language_invalid"];
    report.check("and what they may not be is refused", refused == expected, refused.join(", "));

    let nowhere = if cfg!(windows) { "C:\\no\\such.wav" } else { "/no/such.wav" };
    let missing = code(client.submit(Path::new(nowhere), &usual));
    report.check("an error has a code", missing.ends_with("audio_path_not_found"), missing);

    let reloaded = client.reload("int8").map_err(|error| format!("reload: {error}"))?;
    let precision = client.health().map_err(|error| error.to_string())?.precision;
    report.check(
        "the engine is loaded anew at another precision",
        reloaded.status == "success" && reloaded.message.ends_with(&precision),
        format!("{} / {precision}", reloaded.message),
    );

    let mut twin = command(options);
    twin.args(["--port", &ready.port.to_string()]);
    match second_start(twin) {
        Ok((StartError::Fatal(fatal, code), took)) => report.check(
            "a second one on its port says why not",
            fatal.code == "port_in_use" && code == Some(PORT_IN_USE) && fatal.contract == CONTRACT,
            format!("{} {} (exit code {code:?}, {took:.1?})", fatal.message, fatal.hint),
        ),
        Ok((other, _)) => report.check("a second one on its port says why not", false, other),
        Err(()) => report.check("a second one on its port says why not", false, "it serves"),
    }

    report.check("which the first one does not notice", sidecar.is_running(), "it runs");
    let log = sidecar.log();
    let told = log.iter().any(|line| line.contains(&token));
    report.check("the token is not in its log", !told && !log.is_empty(), log.len());

    let family = descendants(ready.pid);
    let begin = Instant::now();
    let status = sidecar.stop(STOP);
    report.check(
        "it ends when standard input closes",
        status.map_or(false, |status| status.success()),
        format!("{status:?} after {:.1?}", begin.elapsed()),
    );
    report.gone("with all its workers", &family, GONE);
    sleep(Duration::from_millis(100)); // for the thread that reads it to its end
    let later = sidecar.said_later();
    report.check(
        "standard output held one line",
        later.is_empty(),
        format!("{} bytes after it", later.len()),
    );
    let after = code(client.health());
    report.check("and nobody answers any more", after.contains("Unreachable"), after);
    Ok(())
}

/// Why the second does not start.
fn second_start(twin: Command) -> Result<(StartError, Duration), ()> {
    let begin = Instant::now();
    match Sidecar::start_as_is(twin, START) {
        Ok(_) => Err(()),
        Err(error) => Ok((error, begin.elapsed())),
    }
}

fn texts(transcription: &Transcription) -> Vec<&str> {
    transcription.segments.iter().map(|one| one.text.as_str()).collect()
}

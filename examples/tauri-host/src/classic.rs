//! The service as the hosts of today start it: no arguments, a fixed port, standard output piped
//! and never read, standard error parsed, /health polled, killed without a word.

use crate::classic_host::{busy, call, health, transcribe, CallError, Host};
use crate::processes::descendants;
use crate::report::Report;
use crate::wire::Reloaded;
use crate::Options;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

const RELOAD: Duration = Duration::from_secs(60);
const RESTART_PAUSE: Duration = Duration::from_secs(1);
const GONE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// Everything that the classic host does, in order.
pub fn run(options: &Options, report: &mut Report) -> Result<(), String> {
    let (port, audio) = (options.port, options.audio.as_str());
    match health(port) {
        Err(CallError::NotRunning) => report.ok("nobody is there before", format!("port {port}")),
        other => return Err(format!("port {port} is not free: {other:?}")),
    }

    let mut host = Host::spawn(options).map_err(|error| format!("not spawned: {error}"))?;
    let (took, first) = host.wait(port)?;
    report.ok("healthy in time after its start", format!("{took:.1?}, {first:?}"));
    report.check(
        "the first answer says 'ok' or 'loading'",
        first.status == "ok" || first.status == "loading",
        first.status,
    );

    let answer = transcribe(port, audio).map_err(|error| format!("transcribe: {error:?}"))?;
    let about = format!("{:?}", answer.metadata);
    report.check(
        "a transcript parses",
        answer.status == "success" && answer.metadata.duration > 0.0,
        about,
    );
    let ordered = answer.segments.windows(2).all(|two| two[0].start_time <= two[1].start_time);
    let named = answer.segments.iter().all(|one| {
        one.speaker.strip_prefix("Speaker_").map_or(false, |rest| rest.parse::<u32>().is_ok())
            && one.end_time >= one.start_time
            && !one.text.is_empty()
    });
    report.check(
        "its segments are in order, with speakers and text",
        ordered && named && !answer.segments.is_empty(),
        format!("{} segments", answer.segments.len()),
    );

    let path = audio.to_string();
    let working = spawn(move || transcribe(port, &path));
    let (mut polls, mut slowest) = (0, Duration::ZERO);
    while !working.is_finished() {
        let begin = Instant::now();
        health(port).map_err(|error| format!("/health during a transcription: {error:?}"))?;
        slowest = slowest.max(begin.elapsed());
        polls += 1;
        sleep(LOOK);
    }
    working.join().expect("no panic").map_err(|error| format!("{error:?}"))?;
    report.check(
        "/health answers while it transcribes",
        polls > 0,
        format!("{polls} polls, slowest {slowest:.1?}"),
    );

    let outcome = call::<Reloaded>(
        "POST",
        port,
        "/reload-model",
        RELOAD,
        Some(serde_json::json!({"precision": "int8"})),
    );
    let reloaded = outcome.map_err(|error| format!("reload: {error:?}"))?;
    report.check("the model is loaded anew", reloaded.status == "success", reloaded.message);

    let missing = transcribe(port, if cfg!(windows) { "C:\\no\\such.wav" } else { "/no/such.wav" });
    report.check(
        "a missing file is a server error with a body",
        matches!(&missing, Err(CallError::Server(400..=499, text)) if text.contains("detail")),
        format!("{missing:?}"),
    );

    for number in 0..options.requests {
        health(port)
            .map_err(|error| format!("request {number} with standard output unread: {error:?}"))?;
    }
    report.ok("standard output may stay unread", format!("{} requests", options.requests));

    {
        let log = host.log.lock().unwrap();
        let found = format!(
            "{} debug, {} warning, {} error",
            log.of_level[2], log.of_level[1], log.of_level[0]
        );
        report.check(
            "standard error is UTF-8, and nothing in it was an error",
            !log.not_utf8 && log.of_level[0] == 0 && log.of_level[2] > 0,
            found,
        );
    }

    let path = audio.to_string();
    let working = spawn(move || transcribe(port, &path));
    while !working.is_finished() && !busy(port) {
        sleep(LOOK);
    }
    let family = descendants(host.pid());
    host.kill();
    let broken = working.join().expect("no panic");
    report.check(
        "killed in the middle, the call ends at once",
        broken.is_err() || options.instant,
        format!("{broken:?}"),
    );
    report.gone("its workers are gone after the kill", &family, GONE);

    sleep(RESTART_PAUSE);
    let mut host = Host::spawn(options).map_err(|error| format!("not spawned again: {error}"))?;
    let (took, _) = host.wait(port)?;
    report.ok("healthy again on the same port", format!("{took:.1?}"));
    let family = descendants(host.pid());
    host.kill();
    report.gone("and nothing is left of it", &family, GONE);
    let after = health(port);
    report.check(
        "the port is free",
        matches!(after, Err(CallError::NotRunning)),
        format!("{after:?}"),
    );
    Ok(())
}

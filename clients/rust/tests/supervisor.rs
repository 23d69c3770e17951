//! The supervisor with the real service: crashes, restarts, and when it gives up.
#![cfg(any(target_os = "linux", windows))]

mod support;

use std::path::Path;
use std::time::Duration;
use support::{any_alive, family, kill, stand_in, until, Stage};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;
use vibevoice_asr::{Audio, Options, Policy, Service, StartError, Status, Step, Supervisor};

async fn seen(events: &mut Receiver<Status>, what: fn(&Status) -> bool) -> Status {
    let found = async {
        loop {
            let status = events.recv().await.unwrap();
            if what(&status) {
                return status;
            }
        }
    };
    timeout(support::PATIENCE, found).await.expect("the status comes")
}

async fn pid(speech: &Supervisor) -> u32 {
    speech.client().await.unwrap().health().await.unwrap().pid
}

#[tokio::test]
async fn killed_service_is_started_again_and_its_job_is_done() {
    let stage = Stage::new();
    let speech = Supervisor::start(stage.launch_held(), Policy::default());
    let mut events = speech.events();
    let first = pid(&speech).await;
    let mut job = speech.transcribe(Audio::path(stage.recording(3)), Options::default());
    while !matches!(job.next().await.unwrap().unwrap(), Step::Segment { .. } | Step::Progress(_)) {}
    let Status::Busy { jobs: 1 } = speech.status() else { panic!("{:?}", speech.status()) };

    kill(first);
    let Status::Crashed { code, log, restart_in, .. } =
        seen(&mut events, |status| matches!(status, Status::Crashed { .. })).await
    else {
        unreachable!()
    };
    assert_eq!((code.as_str(), restart_in), ("crashed", Some(0.25)));
    assert!(!log.is_empty(), "the end of its log");
    std::fs::remove_file(stage.hold()).unwrap();
    let mut steps = Vec::new();
    while let Some(step) = job.next().await {
        steps.push(step.unwrap());
    }
    assert!(steps
        .iter()
        .any(|step| matches!(step, Step::Again { code } if code == "service_crashed")));
    let Some(Step::Done(transcript)) = steps.last() else { panic!("{steps:?}") };
    assert_eq!(transcript.segments.len(), 3);
    assert_ne!(pid(&speech).await, first);
    seen(&mut events, |status| matches!(status, Status::Ready { .. })).await;
    let left = family(pid(&speech).await);
    speech.stop().await;
    assert!(!any_alive(&left));
    assert!(matches!(speech.status(), Status::Stopped));
    assert_eq!(speech.client().await.err().unwrap().code(), "stopped");
}

#[tokio::test]
async fn model_in_use_is_loaded_again_after_a_crash() {
    let stage = Stage::new();
    let speech = Supervisor::start(stage.launch(), Policy::default());
    let engine = || async { speech.client().await.unwrap().health().await.unwrap().engine };
    assert_eq!(engine().await, "scripted");
    speech.use_model("moonshine").await.unwrap();
    assert_eq!(speech.use_model("whisper:small").await.unwrap_err().code(), "model_not_found");
    let mut events = speech.events();
    kill(pid(&speech).await);
    seen(&mut events, |status| matches!(status, Status::Crashed { .. })).await;
    assert_eq!(engine().await, "moonshine");
    speech.stop().await;
}

#[tokio::test]
async fn start_that_cannot_work_is_not_tried_again_until_asked() {
    let stage = Stage::new();
    let launch = stage.launch().env("VIBEVOICE_LOG_LEVEL", "nonsense");
    let speech = Supervisor::start(launch, Policy::default());
    let mut events = speech.events();
    assert_eq!(speech.client().await.err().unwrap().code(), "settings_invalid");
    let job = speech.transcribe(Audio::path("none.wav"), Options::default());
    assert_eq!(job.transcript().await.unwrap_err().code(), "settings_invalid");
    let crashed = seen(&mut events, |status| matches!(status, Status::Crashed { .. })).await;
    assert!(matches!(crashed, Status::Crashed { restart_in: None, .. }));
    speech.restart();
    seen(&mut events, |status| matches!(status, Status::Starting)).await;
    speech.stop().await;
}

#[tokio::test]
async fn crashes_at_once_are_given_up_after_attempts() {
    let stage = Stage::new();
    let note = stage.path("starts");
    let launch = stand_in("ends", &note);
    let policy = Policy { first_wait: Duration::from_millis(1), attempts: 4, ..Policy::default() };
    let speech = Supervisor::start(launch, policy);
    assert_eq!(speech.client().await.err().unwrap().code(), "not_started");
    assert_eq!(std::fs::read_to_string(note).unwrap().lines().count(), 4);
}

#[tokio::test]
async fn stop_during_start_leaves_nothing_when_it_returns() {
    let stage = Stage::new();
    let note = stage.path("pid");
    let speech = Supervisor::start(stand_in("waits", &note), Policy::default());
    until("it has begun", || note.exists()).await;
    let process: u32 = std::fs::read_to_string(note).unwrap().parse().unwrap();
    assert!(!family(process).is_empty());
    speech.stop().await;
    assert!(family(process).is_empty(), "nobody has waited for its end");
    assert_eq!(speech.client().await.err().unwrap().code(), "stopped");
}

#[tokio::test]
async fn service_that_cannot_start_and_does_not_end_is_killed() {
    let launch = stand_in("cannot start", Path::new(""));
    let launch = launch.stop_limit(Duration::from_millis(100));
    let error = Service::start(&launch).await.err().unwrap();
    let StartError::Fatal { fatal, exit_code: None } = error else { panic!("{error:?}") };
    assert_eq!(fatal.code, "port_in_use");
}

#[tokio::test]
async fn service_ends_with_last_handle() {
    let stage = Stage::new();
    let speech = Supervisor::start(stage.launch(), Policy::default());
    let other = speech.clone();
    let left = family(pid(&speech).await);
    drop(speech);
    assert_eq!(other.client().await.unwrap().health().await.unwrap().status, "ok");
    drop(other);
    until("all are gone", || !any_alive(&left)).await;
}

#[tokio::test]
async fn job_that_waits_for_start_is_cancelled_at_once() {
    let stage = Stage::new();
    let launch = stand_in("waits", &stage.path("pid"));
    let speech = Supervisor::start(launch, Policy::default());
    let job = speech.transcribe(Audio::path(stage.recording(1)), Options::default());
    job.cancel_handle().cancel();
    assert_eq!(job.transcript().await.unwrap_err().code(), "cancelled");
    speech.stop().await;
}

//! One run of the real service: its start, its calls, its end.
#![cfg(any(target_os = "linux", windows))] // tests/support/processes.rs knows who is left there

mod support;

use support::{
    any_alive, built, command, family, kill, repository, stand_in, until, wave, Stage, PATIENCE,
};
use vibevoice_asr::{Audio, Error, JobState, Launch, Options, Service, StartError, Step};

#[tokio::test]
async fn path_becomes_transcript_with_steps_on_the_way() {
    let stage = Stage::new();
    let service = Service::start(&stage.launch_at_speed(4)).await.unwrap();
    assert_eq!(service.ready().contract, 1);
    let mut job = service.client().transcribe(Audio::path(stage.recording(3)), Options::default());
    let (mut fractions, mut segments, mut done) = (Vec::new(), Vec::new(), None);
    while let Some(step) = job.next().await {
        match step.unwrap() {
            Step::Progress(progress) => fractions.extend(progress.audio.fraction),
            Step::Segment { index, segment } => segments.push((index, segment.text)),
            Step::Done(transcript) => done = Some(transcript),
            _ => {}
        }
    }
    assert!(fractions.is_sorted() && fractions.iter().any(|part| 0.0 < *part && *part < 1.0));
    let transcript = done.unwrap();
    assert_eq!(transcript.segments.len(), 3);
    for (index, text) in segments {
        assert_eq!(transcript.segments[index].text, text);
    }
    let exit = service.stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log.join("\n"));
}

#[tokio::test]
async fn bytes_and_path_have_the_same_transcript_and_become_jobs_in_the_list() {
    let stage = Stage::new();
    let service = Service::start(&stage.launch()).await.unwrap();
    let client = service.client();
    let options = Options { num_speakers: Some(2), words: Some(true), ..Options::default() };
    let path = Audio::path(stage.recording(2));
    let here = client.transcribe(path, options.clone()).transcript().await.unwrap();
    let bytes = Audio::bytes("talk.wav", wave(2));
    let sent = client.transcribe(bytes, options).transcript().await.unwrap();
    let texts = |one: &vibevoice_asr::Transcript| {
        one.segments.iter().map(|segment| segment.text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(texts(&here), texts(&sent));
    assert!(!here.metadata.warnings.iter().any(|one| one.code == "field_unknown"));

    let page = client.jobs(None).await.unwrap();
    assert_eq!((page.jobs.len(), page.next), (2, None));
    let id = &page.jobs[0].id;
    assert_eq!(page.jobs[0].state, JobState::Done);
    assert!(client.transcript_as(id, "srt").await.unwrap().contains("00:00:01,"));
    client.delete(id).await.unwrap();
    assert_eq!(client.job(id).await.unwrap_err().code(), "job_not_found");
    service.stop().await;
}

#[tokio::test]
async fn health_models_estimate_reload_and_ticket_are_understood() {
    let stage = Stage::new();
    let service = Service::start(&stage.launch()).await.unwrap();
    let client = service.client();
    let health = client.health().await.unwrap();
    assert_eq!((health.pid, health.engine.as_str()), (service.ready().pid, "scripted"));
    assert!(!client.models().await.unwrap().is_empty());
    assert!(client.estimate(60.0).await.unwrap().fits);
    assert_eq!(client.reload("int8").await.unwrap().status, "success");
    assert_eq!(client.health().await.unwrap().precision, "int8");
    let error = client.use_model("whisper:small").await.unwrap_err();
    assert_eq!(error.code(), "model_not_found");
    assert!(!client.live_ticket().await.unwrap().is_empty());
    service.stop().await;
}

#[tokio::test]
async fn models_of_this_machine_are_listed_and_failed_pull_says_why() {
    let stage = Stage::new();
    let launch = stage.launch().env("HF_HOME", stage.path("hub"));
    let launch = launch.env("VIBEVOICE_ENGINE", "moonshine");
    let service = Service::start(&launch.env("HF_ENDPOINT", "http://127.0.0.1:1")).await.unwrap();
    let client = service.client();
    let models = client.local_models().await.unwrap();
    let small = models.iter().find(|model| model.name == "whisper:small").unwrap();
    assert!(!small.installed && small.live && small.languages.contains(&"de".to_string()));
    let embedded = models.iter().find(|model| model.name == "moonshine").unwrap();
    assert!(small.used_for.is_empty() && embedded.used_for == ["recordings", "live"]);
    let error = client.pull_model("nothing").await.err().unwrap();
    assert_eq!(error.code(), "repository_not_found");
    let mut pull = client.pull_model("whisper:small").await.unwrap();
    assert_eq!(pull.next().await.unwrap().unwrap_err().code(), "hub_unreachable");
    assert!(pull.next().await.is_none());
    let error = client.delete_model("whisper:small").await.unwrap_err();
    assert_eq!(error.code(), "model_not_found");
    for other in ["../jobs/none", "x/..", "whisper:small?x#y"] {
        assert_eq!(client.delete_model(other).await.unwrap_err().code(), "model_not_found");
    }
    service.stop().await;
}

#[tokio::test]
async fn cancelled_job_ends_at_once_and_so_does_one_that_is_dropped() {
    let stage = Stage::new();
    let service = Service::start(&stage.launch_held()).await.unwrap();
    let client = service.client();
    let mut job = client.transcribe(Audio::path(stage.recording(5)), Options::default());
    let cancel = job.cancel_handle();
    let mut last = None;
    while let Some(step) = job.next().await {
        if matches!(step, Ok(Step::Progress(_) | Step::Segment { .. })) {
            cancel.cancel();
        }
        last = Some(step);
    }
    assert!(matches!(last, Some(Err(Error::Cancelled))));

    let mut job = client.transcribe(Audio::path(stage.recording(4)), Options::default());
    assert!(matches!(job.next().await, Some(Ok(Step::Queued { .. }))));
    drop(job);
    loop {
        let jobs = client.jobs(None).await.unwrap().jobs;
        if jobs.len() == 2 && jobs.iter().all(|job| job.state == JobState::Cancelled) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    service.stop().await;
}

#[tokio::test]
async fn refusals_have_the_code_of_the_service() {
    let stage = Stage::new();
    let service = Service::start(&stage.launch()).await.unwrap();
    let client = service.client();
    let code = |audio| async {
        let job = client.transcribe(audio, Options::default());
        job.transcript().await.unwrap_err().code().to_string()
    };
    assert_eq!(code(Audio::path(stage.path("none.wav"))).await, "audio_path_not_found");
    assert_eq!(code(Audio::bytes("none.wav", "no audio")).await, "audio_format_unsupported");
    let access = vibevoice_asr::Access { token: None, ..client.access().clone() };
    let stranger = vibevoice_asr::Client::connect(access).unwrap();
    assert_eq!(stranger.jobs(None).await.unwrap_err().code(), "token_missing");
    service.stop().await;
    assert_eq!(client_after(&stage).await, "unreachable");
}

async fn client_after(stage: &Stage) -> String {
    let service = Service::start(&stage.launch()).await.unwrap();
    let client = service.client().clone();
    service.stop().await;
    client.health().await.unwrap_err().code().to_string()
}

#[tokio::test]
async fn start_that_fails_says_why() {
    let stage = Stage::new();
    let why = |launch: Launch| async move { Service::start(&launch).await.err().unwrap() };

    let error = why(stage.launch().env("VIBEVOICE_LOG_LEVEL", "nonsense")).await;
    assert!(matches!(error, StartError::Fatal { exit_code: Some(78), .. }), "{error:?}");

    let error = why(stage.launch().argument("--no-such-flag")).await;
    assert!(matches!(error, StartError::Silent { exit_code: Some(2), .. }), "{error:?}");
    assert!(error.log().iter().any(|line| line.contains("no-such-flag")), "{error:?}");

    let error = why(Launch::new("/no/such/program")).await;
    assert_eq!(error.code(), "not_started");
    assert!(matches!(error, StartError::NotSpawned { .. }));
}

#[tokio::test]
async fn silent_program_is_killed_with_what_it_started() {
    let stage = Stage::new();
    let note = stage.path("pid");
    let launch = stand_in("has a child", &note);
    let launch = launch.start_limit(std::time::Duration::from_secs(5));
    let error = Service::start(&launch).await.err().unwrap();
    assert!(matches!(error, StartError::Silent { exit_code: None, .. }), "{error:?}");
    let child: u32 = std::fs::read_to_string(note).unwrap().trim().parse().unwrap();
    let left = family(child);
    until("its child is gone", || !any_alive(&left)).await;
}

#[tokio::test]
async fn dropped_service_is_gone_with_its_workers() {
    let stage = Stage::new();
    let service = Service::start(&stage.launch_held()).await.unwrap();
    let mut job = service.client().transcribe(Audio::path(stage.recording(5)), Options::default());
    while !matches!(job.next().await, Some(Ok(Step::Begun))) {}
    let family = family(service.ready().pid);
    assert!(family.len() >= 2, "the service and its engine");
    drop(service);
    until("all are gone", || !any_alive(&family)).await;
}

/// The example `host` is killed in the middle of a job, as a user's task manager does it.
#[tokio::test]
async fn killed_host_leaves_nothing() {
    let stage = Stage::new();
    std::fs::write(stage.hold(), "").unwrap();
    let mut host = std::process::Command::new(built("transcribe"))
        .arg(stage.recording(5))
        .args(command())
        .envs([("VIBEVOICE_ENGINE", "scripted"), ("PYTHONPATH", repository().to_str().unwrap())])
        .env("VIBEVOICE_SCRIPTED_HOLD", stage.hold())
        .env("VIBEVOICE_CONFIG", stage.path("none.toml"))
        .env("VIBEVOICE_DATA_DIR", stage.path("data"))
        .spawn()
        .unwrap();
    let mut all = family(host.id());
    until("host, service and engine", || {
        all = family(host.id());
        all.len() >= 3
    })
    .await;
    kill(host.id());
    host.wait().unwrap();
    let began = std::time::Instant::now();
    until("all are gone", || !any_alive(&all)).await;
    assert!(began.elapsed() < PATIENCE);
}

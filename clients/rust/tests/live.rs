//! Live audio with the real service, also over TLS.
#![cfg(any(target_os = "linux", windows))]

mod support;

use support::{samples, Stage};
use vibevoice_asr::{Access, Client, LiveEvent, LiveOptions, Service};

async fn heard(client: &Client) -> (Vec<String>, usize) {
    let (mut input, mut live) = client.live(&LiveOptions::default()).await.unwrap();
    let speech = samples(2);
    let silence = vec![0; speech.len() / 2];
    for piece in [speech, silence].concat().chunks(3200) {
        input.send(piece.to_vec()).await.unwrap();
    }
    input.finish().await.unwrap();
    let (mut finals, mut summary) = (Vec::new(), 0);
    while let Some(event) = live.next().await {
        match event.unwrap() {
            LiveEvent::Final { segment, .. } => finals.push(segment.text),
            LiveEvent::Summary { transcript, .. } => summary = transcript.segments.len(),
            _ => {}
        }
    }
    (finals, summary)
}

#[tokio::test]
async fn audio_becomes_finals_and_summary() {
    let stage = Stage::new();
    let service = Service::start(&stage.launch()).await.unwrap();
    let (finals, summary) = heard(service.client()).await;
    assert!(!finals.is_empty() && finals.len() == summary, "{finals:?}, {summary}");
    service.stop().await;
}

#[tokio::test]
async fn closed_session_gives_no_summary() {
    let stage = Stage::new();
    let service = Service::start(&stage.launch()).await.unwrap();
    let (mut input, mut live) = service.client().live(&LiveOptions::default()).await.unwrap();
    input.send(samples(1)).await.unwrap();
    input.close().await;
    while let Some(event) = live.next().await {
        assert!(!matches!(event.unwrap(), LiveEvent::Summary { .. }));
    }
    service.stop().await;
}

#[tokio::test]
async fn refused_option_has_the_code_of_the_service() {
    let stage = Stage::new();
    let service = Service::start(&stage.launch()).await.unwrap();
    let options = LiveOptions { rate: Some(1), ..LiveOptions::default() };
    let error = service.client().live(&options).await.err().unwrap();
    assert_eq!(error.code(), "field_invalid");
    let access = Access { token: None, ..service.client().access().clone() };
    let stranger = Client::connect(access).unwrap();
    let error = stranger.live(&LiveOptions::default()).await.err().unwrap();
    assert_eq!(error.code(), "token_missing");
    service.stop().await;
}

#[tokio::test]
async fn certificate_of_ready_line_is_taken_and_no_other() {
    let stage = Stage::new();
    let service = Service::start(&stage.launch().tls()).await.unwrap();
    assert!(service.ready().url.starts_with("https://"));
    assert_eq!(service.client().health().await.unwrap().status, "ok");
    let (finals, _) = heard(service.client()).await;
    assert!(!finals.is_empty());

    let fingerprint = Some(["AB"; 32].join(":"));
    let access = Access { fingerprint, ..service.client().access().clone() };
    let wary = Client::connect(access).unwrap();
    assert_eq!(wary.health().await.unwrap_err().code(), "unreachable");
    assert_eq!(wary.live(&LiveOptions::default()).await.err().unwrap().code(), "unreachable");
    let access = Access { fingerprint: None, ..service.client().access().clone() };
    let blind = Client::connect(access).unwrap();
    assert_eq!(blind.health().await.unwrap_err().code(), "unreachable");
    service.stop().await;
}

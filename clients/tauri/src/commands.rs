//! What a page may ask for, but for live audio.

use crate::failure::Failure;
use crate::jobs::Jobs;
use std::path::PathBuf;
use tauri::ipc::{Channel, InvokeBody, Request};
use tauri::{command, State, Webview};
use vibevoice_asr::{
    Audio, Cancel, Error, Health, LocalModel, Model, Options, PullStep, Reloaded, Status, Step,
    Supervisor, Transcript,
};

type Answer<T> = Result<T, Failure>;

/// Transcribe a file, or what was uploaded as `job`. `on_step` gets all steps but the last.
#[command]
#[allow(clippy::too_many_arguments)] // three of them are Tauri's
pub(crate) async fn transcribe<R: tauri::Runtime>(
    webview: Webview<R>,
    speech: State<'_, Supervisor>,
    jobs: State<'_, Jobs>,
    job: String,
    path: Option<PathBuf>,
    name: Option<String>,
    options: Options,
    on_step: Channel<Step>,
) -> Answer<Transcript> {
    let label = webview.label();
    let audio = match (path, jobs.uploaded(label, &job)) {
        (Some(path), _) => Audio::Path(path),
        (None, Some(data)) => Audio::bytes(name.unwrap_or_else(|| "recording".into()), data),
        (None, None) => return Err(Failure::new("unreadable", "there is neither path nor upload")),
    };
    let mut steps = speech.transcribe(audio, options);
    jobs.begin(label, &job, steps.cancel_handle());
    let outcome = loop {
        match steps.next().await {
            Some(Ok(Step::Done(transcript))) => break Ok(transcript),
            Some(Ok(step)) => {
                if let Err(error) = on_step.send(step) {
                    break Err(Failure::new("cancelled", error)); // nobody is there any more
                }
            }
            Some(Err(error)) => break Err(error.into()),
            None => break Err(Error::Cancelled.into()),
        }
    };
    jobs.end(label, &job);
    outcome
}

/// Keep the recording in the body of this call for the job that its header names.
#[command]
pub(crate) fn upload<R: tauri::Runtime>(
    webview: Webview<R>,
    jobs: State<'_, Jobs>,
    request: Request<'_>,
) -> Answer<()> {
    let (job, data) = raw(&request, "job")?;
    if !jobs.upload(webview.label(), job, data.to_vec()) {
        return Err(Failure::new("uploads_full", "too many recordings wait for their jobs"));
    }
    Ok(())
}

/// End a job.
#[command]
pub(crate) fn cancel<R: tauri::Runtime>(webview: Webview<R>, jobs: State<'_, Jobs>, job: &str) {
    jobs.cancel(webview.label(), job);
}

/// How the service is now; later changes are events.
#[command]
pub(crate) fn status(speech: State<'_, Supervisor>) -> Status {
    speech.status()
}

/// Start it at once, also if it was given up.
#[command]
pub(crate) fn restart(speech: State<'_, Supervisor>) {
    speech.restart();
}

/// What the service says of itself.
#[command]
pub(crate) async fn health(speech: State<'_, Supervisor>) -> Answer<Health> {
    Ok(speech.client().await?.health().await?)
}

/// The names of the loaded model.
#[command]
pub(crate) async fn models(speech: State<'_, Supervisor>) -> Answer<Vec<Model>> {
    Ok(speech.client().await?.models().await?)
}

/// The models that can be used or downloaded here.
#[command]
pub(crate) async fn local_models(speech: State<'_, Supervisor>) -> Answer<Vec<LocalModel>> {
    Ok(speech.client().await?.local_models().await?)
}

/// Download a model. `on_step` gets all steps; `cancel` with the name `job` ends it.
#[command]
pub(crate) async fn pull_model<R: tauri::Runtime>(
    webview: Webview<R>,
    speech: State<'_, Supervisor>,
    jobs: State<'_, Jobs>,
    job: String,
    name: String,
    on_step: Channel<PullStep>,
) -> Answer<()> {
    let cancel = Cancel::default();
    jobs.begin(webview.label(), &job, cancel.clone());
    let work = async {
        let mut pull = speech.client().await?.pull_model(&name).await?;
        while let Some(step) = pull.next().await {
            on_step.send(step?).map_err(|error| Failure::new("cancelled", error))?;
        }
        Ok(())
    };
    let outcome = tokio::select! {
        () = cancel.cancelled() => Err(Error::Cancelled.into()),
        outcome = work => outcome,
    };
    jobs.end(webview.label(), &job);
    outcome
}

/// Delete a downloaded model.
#[command]
pub(crate) async fn delete_model(speech: State<'_, Supervisor>, name: String) -> Answer<()> {
    Ok(speech.client().await?.delete_model(&name).await?)
}

/// Load an installed model for recordings, also after a restart of the service.
#[command]
pub(crate) async fn use_model(speech: State<'_, Supervisor>, name: String) -> Answer<()> {
    Ok(speech.use_model(&name).await?)
}

/// Load the engine anew at another precision.
#[command]
pub(crate) async fn reload(speech: State<'_, Supervisor>, precision: String) -> Answer<Reloaded> {
    Ok(speech.client().await?.reload(&precision).await?)
}

/// A header of a call, and the bytes that are its body.
pub(crate) fn raw<'a>(request: &'a Request<'_>, header: &str) -> Answer<(&'a str, &'a [u8])> {
    let value = request.headers().get(header).and_then(|value| value.to_str().ok());
    match (value, request.body()) {
        (Some(value), InvokeBody::Raw(data)) => Ok((value, data)),
        _ => Err(Failure::new("strange", format!("bytes and the header '{header}' are expected"))),
    }
}

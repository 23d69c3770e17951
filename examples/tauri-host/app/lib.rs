mod client;
mod sidecar;
mod wire;

use client::{CallError, Client};
use serde::Serialize;
use sidecar::{Sidecar, StartError};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;
use std::time::Duration;
use tauri::{ipc::Channel, path::BaseDirectory, AppHandle, Manager, RunEvent};

const START: Duration = Duration::from_secs(60); // the first start after an install is scanned
const STOP: Duration = Duration::from_secs(3);

#[derive(Default)]
struct Speech {
    starting: Mutex<()>, // held for seconds; `service` never is, so that `stop` does not wait
    service: Mutex<Option<Sidecar>>,
    cancelled: AtomicBool,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    loading: bool, // the model, which takes seconds: the job has not begun
    fraction: Option<f64>,
    seconds_left: Option<f64>,
}

/// Why there is no transcript. The page decides by `code`; `detail` is for developers.
#[derive(Serialize)]
struct Failure {
    code: String,
    detail: String,
}

impl Failure {
    fn new(code: &str, error: impl ToString) -> Failure {
        Failure { code: code.to_string(), detail: error.to_string() }
    }
}

impl From<tauri::Error> for Failure {
    fn from(error: tauri::Error) -> Failure {
        Failure::new("app", error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        Failure::new(error.code(), &error)
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        Failure::new(error.code(), &error)
    }
}

/// The executable of the bundle; in development another one, such as that of a venv.
fn program(app: &AppHandle) -> Result<PathBuf, Failure> {
    if cfg!(debug_assertions) {
        if let Some(path) = std::env::var_os("SPEECH_PROGRAM") {
            return Ok(path.into());
        }
    }
    let name = if cfg!(windows) { "vibevoice-asr.exe" } else { "vibevoice-asr" };
    let path = app.path().resolve(format!("vibevoice-asr/{name}"), BaseDirectory::Resource)?;
    // On Windows it comes with the prefix \\?\, which not every program takes for its own path.
    let text = path.to_string_lossy();
    Ok(text.strip_prefix(r"\\?\").map(PathBuf::from).unwrap_or_else(|| path.clone()))
}

/// The service, started if it does not run (any more).
fn client(app: &AppHandle) -> Result<Client, Failure> {
    let speech = app.state::<Speech>();
    let _alone = speech.starting.lock().unwrap();
    if let Some(running) = speech.service.lock().unwrap().as_mut() {
        if running.is_running() {
            return Ok(running.client());
        }
    }
    let folder = app.path().app_data_dir()?;
    let mut command = Command::new(program(app)?);
    command
        .arg("--preload") // the model is loaded before the first job asks for it
        .env("VIBEVOICE_CONFIG", folder.join("speech.toml")) // ours, not the user's own
        .env("VIBEVOICE_DATA_DIR", folder.join("speech")); // log and crash notes
    let started = Sidecar::start(command, START)?;
    let client = started.client();
    *speech.service.lock().unwrap() = Some(started);
    Ok(client)
}

#[tauri::command]
async fn transcribe(
    app: AppHandle,
    path: PathBuf,
    options: wire::TranscribeOptions,
    on_step: Channel<Step>,
) -> Result<wire::Transcription, Failure> {
    let work = move || {
        let client = client(&app)?;
        let speech = app.state::<Speech>();
        speech.cancelled.store(false, Ordering::Relaxed);
        let result = client.transcribe(&path, &options, |job| {
            let begun = job.progress.fraction.unwrap_or(0.0) > 0.0;
            let step = Step {
                loading: !begun && client.health().map_or(false, |it| it.engine_state == "loading"),
                fraction: job.progress.fraction,
                seconds_left: job.estimated_remaining_seconds,
            };
            let heard = on_step.send(step).is_ok(); // a closed window cancels its job
            heard && !speech.cancelled.load(Ordering::Relaxed)
        });
        Ok(result?)
    };
    tauri::async_runtime::spawn_blocking(work).await?
}

#[tauri::command]
fn cancel(app: AppHandle) {
    app.state::<Speech>().cancelled.store(true, Ordering::Relaxed);
}

/// End the service, with all its workers. One that still starts ends with this process.
fn stop(app: &AppHandle) {
    if let Some(mut service) = app.state::<Speech>().service.lock().unwrap().take() {
        service.stop(STOP);
    }
}

pub fn run() {
    tauri::Builder::default()
        .plugin(tauri_plugin_dialog::init())
        .manage(Speech::default())
        .setup(|app| {
            let app = app.handle().clone(); // ready by the time that it is wanted
            tauri::async_runtime::spawn_blocking(move || client(&app).map(|_| ()));
            Ok(())
        })
        .invoke_handler(tauri::generate_handler![transcribe, cancel])
        .build(tauri::generate_context!())
        .expect("the app could not be built")
        .run(|app, event| {
            if let RunEvent::Exit = event {
                stop(app);
            }
        });
}

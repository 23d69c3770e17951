//! vibevoice-asr in a Tauri app: the service starts with the app, is started again when it crashes,
//! and ends with the app, however that ends. The page transcribes by the bindings in `guest-js`;
//! Rust code by [`SpeechExt::speech`].
//!
//! ```
//! fn with_speech<R: tauri::Runtime>(app: tauri::Builder<R>) -> tauri::Builder<R> {
//!     app.plugin(tauri_plugin_vibevoice_asr::init())
//! }
//! ```

mod commands;
mod config;
mod failure;
mod jobs;
mod live;
mod place;

pub use config::Config;
pub use failure::Failure;
pub use vibevoice_asr;

use jobs::Jobs;
use live::Sessions;
use tauri::plugin::{Builder, PluginApi, TauriPlugin};
use tauri::webview::PageLoadEvent;
use tauri::{async_runtime, AppHandle, Emitter, Manager, RunEvent, Runtime, WindowEvent};
use tokio::sync::broadcast::error::RecvError;
use vibevoice_asr::{Policy, Supervisor};

/// The event with each new [`Status`](vibevoice_asr::Status) of the service.
pub const STATUS_EVENT: &str = "vibevoice-asr://status";

/// The service, for Rust code of the app.
pub trait SpeechExt<R: Runtime> {
    /// What keeps the service running; all calls are there.
    fn speech(&self) -> &Supervisor;
}

impl<R: Runtime, T: Manager<R>> SpeechExt<R> for T {
    fn speech(&self) -> &Supervisor {
        self.state::<Supervisor>().inner()
    }
}

/// The plugin; what it does is set in `tauri.conf.json`, `plugins`, `vibevoice-asr` ([`Config`]).
pub fn init<R: Runtime>() -> TauriPlugin<R, Option<Config>> {
    Builder::<R, Option<Config>>::new("vibevoice-asr")
        .invoke_handler(tauri::generate_handler![
            commands::transcribe,
            commands::upload,
            commands::cancel,
            commands::status,
            commands::restart,
            commands::health,
            commands::models,
            commands::local_models,
            commands::pull_model,
            commands::delete_model,
            commands::use_model,
            commands::reload,
            live::live_begin,
            live::live_send,
            live::live_order,
        ])
        .setup(set_up)
        .on_page_load(|webview, page| {
            if let PageLoadEvent::Started = page.event() {
                leave(webview.app_handle(), webview.label()); // the page that asked is gone
            }
        })
        .on_event(|app, event| match event {
            RunEvent::WindowEvent { label, event: WindowEvent::Destroyed, .. } => leave(app, label),
            RunEvent::Exit => async_runtime::block_on(app.speech().stop()),
            _ => {}
        })
        .build()
}

fn set_up<R: Runtime>(
    app: &AppHandle<R>,
    api: PluginApi<R, Option<Config>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let config = api.config().clone().unwrap_or_default();
    let launch = place::launch(app, &config)?;
    let speech = async_runtime::block_on(async { Supervisor::start(launch, Policy::default()) });
    let mut events = speech.events();
    let handle = app.clone();
    async_runtime::spawn(async move {
        loop {
            match events.recv().await {
                Ok(status) => {
                    let _ = handle.emit(STATUS_EVENT, status); // no page may be there yet
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
    app.manage(speech);
    app.manage(Jobs::default());
    app.manage(Sessions::default());
    Ok(())
}

/// End what a page began that is not there any more.
fn leave<R: Runtime>(app: &AppHandle<R>, label: &str) {
    app.state::<Jobs>().leave(label);
    app.state::<Sessions>().leave(label);
}

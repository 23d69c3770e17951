//! Which executable is started, and where it has its files.

use crate::config::Config;
use std::path::PathBuf;
use tauri::{AppHandle, Manager, Runtime};
use vibevoice_asr::{Finder, Launch};

/// Names another executable in development, such as that of a venv. A release looks at its bundle
/// only: nobody gets it to run something else by a variable.
const OTHER: &str = "VIBEVOICE_EXECUTABLE";

/// The service of the bundle, with files in the app's own folder.
pub(crate) fn launch<R: Runtime>(app: &AppHandle<R>, config: &Config) -> tauri::Result<Launch> {
    let folder = app.path().app_data_dir()?.join("speech");
    let mut launch = Launch::new(program(app, config)?).data_folder(folder);
    if config.preload {
        launch = launch.preload();
    }
    for (name, value) in &config.settings {
        launch = launch.env(format!("VIBEVOICE_{}", name.to_uppercase()), value);
    }
    Ok(launch)
}

/// Where there is none the start fails, and the page is told so as of any other failure.
fn program<R: Runtime>(app: &AppHandle<R>, config: &Config) -> tauri::Result<PathBuf> {
    let other = std::env::var_os(OTHER).filter(|_| cfg!(debug_assertions));
    if let Some(other) = other {
        return Ok(other.into());
    }
    let folder = app.path().resource_dir()?.join(&config.folder);
    let finder = Finder::new().folder(&folder);
    let finder = if cfg!(debug_assertions) { finder } else { finder.not_on_path() };
    Ok(finder.find().unwrap_or_else(|error| {
        tracing::error!("{error}");
        folder.join("vibevoice-asr").join("vibevoice-asr")
    }))
}

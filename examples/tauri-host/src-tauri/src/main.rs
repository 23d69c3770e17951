#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]
//! The app's own part: windows, the microphone's permission, and files that are saved.

use tauri::webview::{PermissionKind, PermissionResponse};

/// Write a transcript where the user's dialog said. A file that is there is replaced by all of it.
#[tauri::command]
async fn save_text(path: std::path::PathBuf, text: String) -> Result<(), String> {
    tauri::async_runtime::spawn_blocking(move || write_whole(&path, &text))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

fn write_whole(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    let path = std::fs::canonicalize(path).unwrap_or(path.to_path_buf()); // a link stays one
    let half = path.with_file_name(format!(".{}.part", std::process::id()));
    let written = std::fs::write(&half, text).and_then(|()| std::fs::rename(&half, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&half);
    }
    written
}

/// WebKitGTK has the microphone switched off. In development a variable gives it one that beeps, for
/// tests on machines without any.
#[cfg(target_os = "linux")]
fn allow_capture(window: &tauri::WebviewWindow) -> tauri::Result<()> {
    use webkit2gtk::{SettingsExt, WebViewExt};
    let beeps = cfg!(debug_assertions) && std::env::var_os("TALK_TO_TEXT_BEEPS").is_some();
    window.with_webview(move |webview| {
        if let Some(settings) = webview.inner().settings() {
            settings.set_enable_media_stream(true);
            settings.set_enable_mock_capture_devices(beeps);
        }
    })
}

fn main() {
    tauri::Builder::default()
        .plugin(tauri_plugin_dialog::init())
        .plugin(tauri_plugin_vibevoice_asr::init())
        .on_permission_request(|_, kind| match kind {
            PermissionKind::Microphone => PermissionResponse::Allow,
            _ => PermissionResponse::Deny,
        })
        .setup(|_app| {
            #[cfg(target_os = "linux")]
            if let Some(window) = tauri::Manager::get_webview_window(_app, "main") {
                allow_capture(&window)?;
            }
            Ok(())
        })
        .invoke_handler(tauri::generate_handler![save_text])
        .run(tauri::generate_context!())
        .expect("the app could not be built");
}

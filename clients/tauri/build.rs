//! Makes a permission of each command.

const COMMANDS: &[&str] = &[
    "transcribe",
    "upload",
    "cancel",
    "live_begin",
    "live_send",
    "live_order",
    "status",
    "restart",
    "health",
    "models",
    "local_models",
    "pull_model",
    "delete_model",
    "use_model",
    "reload",
];

fn main() {
    tauri_plugin::Builder::new(COMMANDS).build();
}

pub fn init() -> tauri::Plugin {
    tauri::Plugin
}

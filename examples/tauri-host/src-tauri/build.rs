//! What Tauri needs of the build.

fn main() {
    tauri_build::build();
}

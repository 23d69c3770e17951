//! Where the executable is: beside the app, in its resources, or on the PATH.

use std::env;
use std::path::{Path, PathBuf};

/// The target triple that this program was built for, as in `vibevoice-asr-x86_64-pc-windows-msvc.exe`.
pub const TARGET_TRIPLE: &str = env!("VIBEVOICE_TARGET");

const NAME: &str = "vibevoice-asr";

/// There is no executable at any of these places.
#[derive(Clone, Debug, thiserror::Error)]
#[error("there is no executable of vibevoice-asr; looked at: {}", .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
pub struct NotFound(pub Vec<PathBuf>);

/// Looks for the executable: first in the folders given, then beside this program, then on the PATH.
///
/// In each folder it may be a folder of its own (`vibevoice-asr/vibevoice-asr`, as `make exe` builds
/// it, also named `vibevoice-asr-TRIPLE`), or a file, with or without the triple.
#[derive(Clone, Debug)]
pub struct Finder {
    folders: Vec<PathBuf>,
    beside: bool,
    path: bool,
}

impl Default for Finder {
    fn default() -> Finder {
        Finder::new()
    }
}

impl Finder {
    /// One that looks beside this program and on the PATH.
    pub fn new() -> Finder {
        Finder { folders: Vec::new(), beside: true, path: true }
    }

    /// Look here first, such as in the app's folder of resources; of several, in this order.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Finder {
        self.folders.push(folder.into());
        self
    }

    /// Do not look on the PATH: an app in the hands of users runs what it brought along.
    pub fn not_on_path(self) -> Finder {
        Finder { path: false, ..self }
    }

    /// Look in the folders given and nowhere else.
    pub fn only_there(self) -> Finder {
        Finder { beside: false, path: false, ..self }
    }

    /// The executable.
    ///
    /// # Errors
    /// There is none; the error names the places.
    pub fn find(&self) -> Result<PathBuf, NotFound> {
        let places = self.places();
        match places.iter().find(|path| is_program(path)) {
            Some(found) => Ok(without_prefix(found)),
            None => Err(NotFound(places)),
        }
    }

    /// All places, in the order in which they are looked at.
    fn places(&self) -> Vec<PathBuf> {
        self.places_of(env::current_exe().ok(), cfg!(target_os = "macos"))
    }

    /// Those for an app whose program is `own`; in a bundle of macOS it has a folder of resources.
    fn places_of(&self, own: Option<PathBuf>, in_bundle: bool) -> Vec<PathBuf> {
        let mut places = Vec::new();
        for folder in &self.folders {
            places.extend(places_in(folder));
        }
        if let Some(folder) = own.as_deref().and_then(Path::parent).filter(|_| self.beside) {
            // The app may have the name itself: it is not its own sidecar.
            places.extend(places_in(folder).into_iter().filter(|path| Some(path) != own.as_ref()));
            if in_bundle {
                places.extend(places_in(&folder.join("../Resources")));
            }
        }
        if let Some(path) = env::var_os("PATH").filter(|_| self.path) {
            let file = format!("{NAME}{}", env::consts::EXE_SUFFIX);
            places.extend(env::split_paths(&path).map(|folder| folder.join(&file)));
        }
        places
    }
}

fn places_in(folder: &Path) -> Vec<PathBuf> {
    let suffix = env::consts::EXE_SUFFIX;
    let plain = format!("{NAME}{suffix}");
    let triple = format!("{NAME}-{TARGET_TRIPLE}");
    vec![
        folder.join(NAME).join(&plain),
        folder.join(&triple).join(&plain),
        folder.join(format!("{triple}{suffix}")),
        folder.join(plain),
    ]
}

fn is_program(path: &Path) -> bool {
    let Ok(about) = path.metadata() else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        about.is_file() && about.permissions().mode() & 0o111 != 0
    }
    #[cfg(not(unix))]
    about.is_file()
}

/// Windows' long form of a path, `\\?\C:\…`, is not understood by every program as its own path.
fn without_prefix(path: &Path) -> PathBuf {
    match path.to_string_lossy().strip_prefix(r"\\?\") {
        Some(plain) if !plain.starts_with("UNC") => PathBuf::from(plain),
        _ => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        path
    }

    #[test]
    fn every_layout_is_found_and_folder_of_build_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let finder = Finder::new().folder(folder.path()).only_there();
        let suffix = env::consts::EXE_SUFFIX;
        for name in [
            format!("vibevoice-asr-{TARGET_TRIPLE}{suffix}"),
            format!("vibevoice-asr-{TARGET_TRIPLE}.d/none"), // is none of them
            format!("vibevoice-asr/vibevoice-asr{suffix}"),
        ] {
            let put = put(folder.path(), &name);
            if !name.ends_with("none") {
                assert_eq!(finder.find().unwrap(), put);
            }
        }
    }

    #[test]
    fn absent_executable_is_error_with_places() {
        let folder = tempfile::tempdir().unwrap();
        let error = Finder::new().folder(folder.path()).only_there().find().unwrap_err();
        assert_eq!(error.0.len(), 4);
        assert!(error.to_string().contains(TARGET_TRIPLE));
    }

    #[test]
    fn executable_in_resources_of_an_app_is_found_in_bundles_alone() {
        let folder = tempfile::tempdir().unwrap();
        let app = put(folder.path(), "App.app/Contents/MacOS/app");
        let name = format!("vibevoice-asr/vibevoice-asr{}", env::consts::EXE_SUFFIX);
        let put = put(folder.path(), &format!("App.app/Contents/Resources/{name}"));
        let found = |in_bundle| {
            let places = Finder::new().not_on_path().places_of(Some(app.clone()), in_bundle);
            places.into_iter().find(|path| is_program(path))
        };
        assert_eq!(found(true).unwrap().canonicalize().unwrap(), put.canonicalize().unwrap());
        assert_eq!(found(false), None);
    }

    #[cfg(unix)]
    #[test]
    fn file_without_right_to_run_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("vibevoice-asr"), "").unwrap();
        assert!(Finder::new().folder(folder.path()).only_there().find().is_err());
    }

    #[test]
    fn long_prefix_of_windows_goes() {
        assert_eq!(without_prefix(Path::new(r"\\?\C:\App\x.exe")), Path::new(r"C:\App\x.exe"));
        let share = Path::new(r"\\?\UNC\server\x.exe");
        assert_eq!(without_prefix(share), share);
    }
}

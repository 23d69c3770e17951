//! What is to be started: the program, its arguments and its environment.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// A start of the service, as often as it takes.
///
/// It serves at a free port of this machine, with a token of each start, and ends with this program.
/// Settings go by the environment: `VIBEVOICE_` and the name (docs/settings.md).
#[derive(Clone, Debug)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    pub(crate) start_limit: Duration,
    pub(crate) stop_limit: Duration,
}

impl Launch {
    /// Start this executable.
    pub fn new(program: impl Into<PathBuf>) -> Launch {
        Launch {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            start_limit: Duration::from_secs(60), // the first start after an install is scanned
            stop_limit: Duration::from_secs(3),
        }
    }

    /// One more argument, such as `--preload`. Where the program is Python, `-m` and `sidecar.main`
    /// come first.
    pub fn argument(mut self, word: impl AsRef<OsStr>) -> Launch {
        self.arguments.push(word.as_ref().into());
        self
    }

    /// A variable of its environment, beside those of this program.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Launch {
        self.environment.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// Load the model at the start, and not with the first job.
    pub fn preload(self) -> Launch {
        self.argument("--preload")
    }

    /// Speak TLS, with a certificate that the service makes and [`Client`](crate::Client) knows by
    /// its fingerprint: other users of the machine can then not listen to the loopback.
    pub fn tls(self) -> Launch {
        self.argument("--tls").argument("self-signed")
    }

    /// Where its log and notes lie, and `settings.toml`, which need not exist: the settings of the
    /// user's own service are not this one's.
    pub fn data_folder(self, folder: impl Into<PathBuf>) -> Launch {
        let folder = folder.into();
        self.env("VIBEVOICE_CONFIG", folder.join("settings.toml")).env("VIBEVOICE_DATA_DIR", folder)
    }

    /// How long it may be silent before its ready line (60 s: scanners read it at the first start).
    pub fn start_limit(self, start_limit: Duration) -> Launch {
        Launch { start_limit, ..self }
    }

    /// How long it may take to end before it is killed (3 s).
    pub fn stop_limit(self, stop_limit: Duration) -> Launch {
        Launch { stop_limit, ..self }
    }

    /// The program, for messages.
    pub(crate) fn name(&self) -> String {
        self.program.display().to_string()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .args(["--port", "0", "--generate-token", "--exit-with-stdin"])
            .env_remove("VIBEVOICE_EXECUTABLE") // a host's own word for it, and no setting
            .env_remove("VIBEVOICE_TOKEN") // it excludes a generated one
            .env_remove("PYTHONHOME") // of an AppImage around this program: no other Python starts with it
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_of_an_appimage_is_not_handed_down() {
        let named = |launch: Launch| {
            let command = launch.command();
            let mut variables = command.as_std().get_envs();
            let found = variables.find(|(name, _)| *name == "PYTHONHOME").unwrap().1;
            found.map(OsStr::to_os_string)
        };
        assert_eq!(named(Launch::new("service")), None);
        let own = Launch::new("service").env("PYTHONHOME", "/opt/python");
        assert_eq!(named(own).unwrap(), "/opt/python");
    }
}

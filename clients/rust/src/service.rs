//! One run of the service, from its start to its end.

use crate::bound::Bound;
use crate::client::{Access, Client};
use crate::error::StartError;
use crate::launch::Launch;
use crate::log_lines::LogLines;
use crate::wire::{Ready, StartLine, CONTRACT};
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long the last lines of a log may take after the end of their process.
const LAST_LINES: Duration = Duration::from_millis(500);
/// What a line may have, at most: more is not the service's.
const LONGEST_LINE: u64 = 64 * 1024;

/// A running service. Dropping it kills it, with all that it started; [`stop`](Service::stop) lets
/// it end by itself.
pub struct Service {
    process: Process,
    ready: Ready,
    client: Client,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Its exit code; `None`: a signal ended it, or it was killed here.
    pub code: Option<i32>,
    /// The same in words.
    pub text: String,
    /// The end of its log.
    pub log: Vec<String>,
}

impl Service {
    /// Start the service, and wait until it can serve.
    ///
    /// # Errors
    /// The program cannot be run, says that it cannot start, ends, is silent, or keeps another
    /// version of the contract.
    pub async fn start(launch: &Launch) -> Result<Service, StartError> {
        let mut start = Start::spawn(launch)?;
        let found = start.ready().await?;
        Ok(start.into_service(found))
    }

    /// What it said when it could serve.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Its calls; a clone may go anywhere, and is of this run only.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The end of its log so far.
    pub fn log(&self) -> Vec<String> {
        self.process.log.all()
    }

    /// Wait until it ends by itself. Nothing is lost if this is dropped and called again.
    pub async fn ended(&mut self) -> Exit {
        self.process.ended().await
    }

    /// Let it end, with its workers; a running job ends at once. What does not end within the limit
    /// of its [`Launch`] is killed.
    pub async fn stop(mut self) -> Exit {
        drop(self.process.stdin.take());
        self.process.ended_within(self.process.stop_limit).await
    }
}

/// A service that was started and has not said yet that it can serve.
pub(crate) struct Start {
    process: Process,
    limit: Duration,
}

impl Start {
    pub(crate) fn spawn(launch: &Launch) -> Result<Start, StartError> {
        Ok(Start { process: Process::spawn(launch)?, limit: launch.start_limit })
    }

    /// Wait until it can serve; once only.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub(crate) async fn ready(&mut self) -> Result<(Ready, Client), StartError> {
        let process = &mut self.process;
        let Some(stdout) = process.child.stdout.take() else {
            return Err(process.silent("it has no standard output").await);
        };
        let line = match timeout(self.limit, first_line(stdout)).await {
            Ok(Ok(line)) if !line.is_empty() => line,
            Ok(_) => return Err(process.silent("it ended without a word").await),
            Err(_) => {
                let what = format!("it said nothing within {:?}", self.limit);
                return Err(process.silent(&what).await);
            }
        };
        let ready: Ready = match serde_json::from_str(&line) {
            Ok(StartLine::Ready(ready)) => ready,
            Ok(StartLine::Fatal(fatal)) => {
                let exit_code = process.ended_within(process.stop_limit).await.code;
                return Err(StartError::Fatal { fatal, exit_code });
            }
            Err(error) => {
                return Err(process.silent(&format!("{error} in its first line")).await);
            }
        };
        if ready.contract != CONTRACT {
            return Err(StartError::Contract(ready.contract));
        }
        let access = Access {
            url: ready.url.clone(),
            token: ready.token.clone(),
            fingerprint: ready.fingerprint.clone(),
        };
        match Client::connect(access) {
            Ok(client) => Ok((ready, client)),
            Err(error) => Err(process.silent(&error.to_string()).await),
        }
    }

    /// The service of which [`ready`](Start::ready) told.
    pub(crate) fn into_service(self, (ready, client): (Ready, Client)) -> Service {
        tracing::info!(
            url = ready.url,
            pid = ready.pid,
            version = ready.version,
            "the service is ready"
        );
        Service { process: self.process, ready, client }
    }

    /// Give it up: kill it, and wait for its end.
    pub(crate) async fn abandon(mut self) {
        self.process.kill().await;
    }
}

/// The process with its pipes.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    bound: Option<Bound>,
    log: LogLines,
    reader: Option<JoinHandle<()>>,
    stop_limit: Duration,
}

impl Process {
    fn spawn(launch: &Launch) -> Result<Process, StartError> {
        let mut command = launch.command();
        Bound::prepare(&mut command);
        let mut child = command.spawn().map_err(|error| StartError::NotSpawned {
            program: launch.name(),
            reason: error.to_string(),
        })?;
        // Where a job object is refused, the pipe alone ends it with this program.
        let bound = Bound::around(&child)
            .inspect_err(|error| tracing::warn!(%error, "the service is bound by its pipe only"))
            .ok();
        let log = LogLines::default();
        let stderr = child.stderr.take();
        let reader = stderr.map(|stderr| tokio::spawn(log.clone().read(stderr)));
        let stdin = child.stdin.take();
        Ok(Process { child, stdin, bound, log, reader, stop_limit: launch.stop_limit })
    }

    async fn ended(&mut self) -> Exit {
        // `wait` would close standard input, were it still the child's.
        let status = self.child.wait().await;
        self.bound = None; // its group's number is no longer ours
        if let Some(reader) = &mut self.reader {
            let _ = timeout(LAST_LINES, reader).await; // a worker may hold it for a moment
            self.reader = None;
        }
        let code = status.as_ref().ok().and_then(ExitStatus::code);
        let text = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        Exit { code, text, log: self.log.all() }
    }

    /// Its end, or after the limit that of a kill.
    async fn ended_within(&mut self, limit: Duration) -> Exit {
        if let Ok(exit) = timeout(limit, self.ended()).await {
            return exit;
        }
        tracing::warn!("the service did not end within {limit:?}");
        self.kill().await
    }

    async fn kill(&mut self) -> Exit {
        if let Some(bound) = self.bound.take() {
            bound.kill();
        }
        let _ = self.child.start_kill();
        Exit { code: None, ..self.ended().await } // Windows gives one to what is killed, too
    }

    /// It is of no use: kill what is left of it.
    async fn silent(&mut self, what: &str) -> StartError {
        let Exit { code: exit_code, log, .. } = self.ended_within(LAST_LINES).await;
        StartError::Silent { what: what.to_string(), exit_code, log }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(bound) = self.bound.take() {
            bound.kill();
        }
    }
}

/// The line with which it says what became of its start; the rest of its output is thrown away.
async fn first_line(stdout: ChildStdout) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(stdout.take(LONGEST_LINE)).read_line(&mut line).await?;
    Ok(line)
}

//! A transcription from its submission to its transcript, as a stream of steps.

use crate::client::Client;
use crate::error::Error;
use crate::following::{Following, News};
use crate::supervisor::Supervisor;
use crate::wire::{Job, JobState, Options, Progress, Segment, Transcript};
use crate::Result;
use bytes::Bytes;
use futures_util::Stream;
use serde::Serialize;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{ready, Context, Poll};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Steps that wait for a slow reader.
const WAITING: usize = 64;
/// How often a recording is sent again after a crash of the service: one that kills it every time
/// must come to an end.
const RESUBMISSIONS: u32 = 2;

/// A recording, in any format of a file.
#[derive(Clone, Debug)]
pub enum Audio {
    /// A file of this machine, which the service reads itself.
    Path(PathBuf),
    /// A file in memory, which is uploaded.
    Bytes {
        /// Its name, for the log.
        name: String,
        /// The file.
        data: Bytes,
    },
}

impl Audio {
    /// A file of this machine.
    pub fn path(path: impl Into<PathBuf>) -> Audio {
        Audio::Path(path.into())
    }

    /// A file in memory.
    pub fn bytes(name: impl Into<String>, data: impl Into<Bytes>) -> Audio {
        Audio::Bytes { name: name.into(), data: data.into() }
    }
}

/// What happens to a transcription.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// The service has it, and it waits; also again, where it gave way to a reload. `position`: how
    /// many go first, if that is known.
    Queued {
        /// Its id.
        id: String,
        /// Jobs that go first.
        position: Option<u32>,
        /// Seconds until it begins, if that can be told.
        wait: Option<f64>,
    },
    /// Its work begins.
    Begun,
    /// How far it is.
    Progress(Progress),
    /// What was said, as far as it is known now; it may come again with the same index.
    Segment {
        /// Which one, from 0.
        index: usize,
        /// What was said.
        segment: Segment,
    },
    /// It begins anew, because something crashed: `engine_crashed` or `service_crashed`.
    Again {
        /// What crashed.
        code: String,
    },
    /// The last step: the transcript, which replaces all segments.
    Done(Transcript),
}

/// Ends a piece of work from anywhere; a clone does the same.
#[derive(Clone, Debug, Default)]
pub struct Cancel(CancellationToken);

impl Cancel {
    /// End it. The last step of a transcription is then [`Error::Cancelled`], if it was not done
    /// before.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Wait until it is asked for.
    pub async fn cancelled(&self) {
        self.0.cancelled().await;
    }
}

/// A transcription: a [`Stream`] of [`Step`]s, of which the last is `Done` or an error. It is
/// cancelled when it is dropped.
pub struct Transcribing {
    steps: mpsc::Receiver<Result<Step>>,
    cancel: Cancel,
}

/// Who has the service.
pub(crate) enum Source {
    Client(Client),
    Supervisor(Supervisor),
}

impl Source {
    async fn client(&self) -> Result<Client> {
        match self {
            Source::Client(client) => Ok(client.clone()),
            Source::Supervisor(supervisor) => Ok(supervisor.client().await?),
        }
    }

    /// Once the service behind `client` is gone: another, which runs already or is being started.
    async fn next(&self, client: &Client) -> Option<Result<Client>> {
        match self {
            Source::Client(_) => None,
            Source::Supervisor(supervisor) => {
                Some(supervisor.client_after(client).await.map_err(Error::from))
            }
        }
    }
}

impl Transcribing {
    pub(crate) fn new(source: Source, audio: Audio, options: Options) -> Transcribing {
        let (sender, steps) = mpsc::channel(WAITING);
        let cancel = Cancel::default();
        let work = Work { source, audio, options, steps: sender, cancel: cancel.0.clone() };
        tokio::spawn(work.run());
        Transcribing { steps, cancel }
    }

    /// The next step; `None` behind the last.
    pub async fn next(&mut self) -> Option<Result<Step>> {
        self.steps.recv().await
    }

    /// Something to end it with.
    pub fn cancel_handle(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Pass over the steps: the transcript.
    ///
    /// # Errors
    /// There is none.
    pub async fn transcript(mut self) -> Result<Transcript> {
        while let Some(step) = self.next().await {
            if let Step::Done(transcript) = step? {
                return Ok(transcript);
            }
        }
        Err(Error::Cancelled) // its task was thrown away with its runtime
    }
}

impl Stream for Transcribing {
    type Item = Result<Step>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(ready!(self.steps.poll_recv(context)))
    }
}

impl Drop for Transcribing {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// The task behind it.
struct Work {
    source: Source,
    audio: Audio,
    options: Options,
    steps: mpsc::Sender<Result<Step>>,
    cancel: CancellationToken,
}

impl Work {
    async fn run(self) {
        let _busy = match &self.source {
            Source::Supervisor(supervisor) => Some(supervisor.busy()),
            Source::Client(_) => None,
        };
        let outcome = self.work().await.map(Step::Done);
        let _ = self.steps.send(outcome).await;
    }

    async fn work(&self) -> Result<Transcript> {
        let mut client = self.unless_cancelled(self.source.client()).await?;
        let mut crashes = 0;
        loop {
            let reason = match self.with(&client).await {
                Err(Error::Unreachable(reason)) if crashes < RESUBMISSIONS => reason,
                other => return other,
            };
            crashes += 1;
            client =
                match self.unless_cancelled(async { Ok(self.source.next(&client).await) }).await? {
                    None => return Err(Error::Unreachable(reason)),
                    Some(next) => next?,
                };
            self.tell(Step::Again { code: "service_crashed".into() }).await;
        }
    }

    /// The whole of it by one service.
    async fn with(&self, client: &Client) -> Result<Transcript> {
        // Not to be dropped: a job that the service has and nobody knows would go on.
        let job = client.submit(&self.audio, &self.options).await?;
        let Job { id, position, estimated_wait_seconds: wait, .. } = job;
        self.tell(Step::Queued { id: id.clone(), position, wait }).await;
        let mut following = Following::new(client.clone(), id.clone());
        loop {
            let news = tokio::select! {
                biased;
                () = self.cancel.cancelled() => {
                    let job = client.cancel(&id).await?;
                    if job.state != JobState::Done {
                        return Err(Error::Cancelled);
                    }
                    News::Done
                }
                news = following.next() => news?,
            };
            match news {
                News::Step(step) => self.tell(step).await,
                News::Done => return client.transcript(&id).await,
            }
        }
    }

    async fn unless_cancelled<T>(
        &self,
        work: impl std::future::Future<Output = Result<T>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::Cancelled),
            outcome = work => outcome,
        }
    }

    /// Whoever does not read is not waited for longer than until the work is cancelled.
    async fn tell(&self, step: Step) {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => {}
            _ = self.steps.send(Ok(step)) => {}
        }
    }
}

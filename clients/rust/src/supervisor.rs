//! A service that is there when it is needed: started, watched, started again, ended.

use crate::backoff::{verdict_of_exit, verdict_of_start, Backoff, Policy, Verdict};
use crate::client::Client;
use crate::error::{Error, StartError};
use crate::launch::Launch;
use crate::live::{Live, LiveInput};
use crate::live_wire::LiveOptions;
use crate::service::{Exit, Service, Start};
use crate::status::Status;
use crate::transcribing::{Audio, Source, Transcribing};
use crate::wire::Options;
use crate::Result;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

/// Events that a slow reader may be behind.
const WAITING: usize = 64;
/// How long the end of a process may take to be seen after its connections broke.
const SEEN: Duration = Duration::from_secs(5);

/// Keeps a service running. Clones are of the same; the service ends when the last is dropped, or by
/// [`stop`](Supervisor::stop).
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
    orders: mpsc::UnboundedSender<Order>,
}

/// What the task and the handles have in common.
struct Shared {
    current: watch::Sender<Current>,
    status: watch::Sender<Status>,
    events: broadcast::Sender<Status>,
    jobs: watch::Sender<usize>,
    /// The model that was asked for; one that is started again loads it first.
    model: Mutex<Option<String>>,
}

#[derive(Clone)]
enum Current {
    Coming,
    Here(Client),
    Gone(StartError),
}

enum Order {
    Restart,
    Stop(oneshot::Sender<()>),
}

/// What comes after a run.
enum Next {
    Start,
    After(Duration),
    Rest,
    End,
}

/// Counts a piece of work as long as it is there.
pub(crate) struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.jobs.send_modify(|jobs| *jobs -= 1);
    }
}

impl Supervisor {
    /// Start the service, and keep it running.
    pub fn start(launch: Launch, policy: Policy) -> Supervisor {
        let shared = Arc::new(Shared {
            current: watch::Sender::new(Current::Coming),
            status: watch::Sender::new(Status::Starting),
            events: broadcast::Sender::new(WAITING),
            jobs: watch::Sender::new(0),
            model: Mutex::new(None),
        });
        let (orders, given) = mpsc::unbounded_channel();
        let task = Task {
            shared: Arc::clone(&shared),
            launch,
            backoff: Backoff::new(policy),
            orders: given,
        };
        tokio::spawn(task.run());
        Supervisor { shared, orders }
    }

    /// How it is now.
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// What happens from now on. Who is more than 64 events behind misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Status> {
        self.shared.events.subscribe()
    }

    /// Calls of the service that runs; while it starts, or is started again, this waits.
    ///
    /// # Errors
    /// It was stopped, or is not started again.
    pub async fn client(&self) -> Result<Client, StartError> {
        let mut current = self.shared.current.subscribe();
        let found = current.wait_for(|now| !matches!(now, Current::Coming)).await;
        match found.map(|now| now.clone()) {
            Ok(Current::Here(client)) => Ok(client),
            Ok(Current::Gone(error)) => Err(error),
            Ok(Current::Coming) | Err(_) => Err(StartError::Stopped),
        }
    }

    /// The same, once `old`, which does not answer any more, has been replaced. One that answers
    /// again after a while is given back.
    pub(crate) async fn client_after(&self, old: &Client) -> Result<Client, StartError> {
        let same = |client: &Client| Arc::ptr_eq(&client.access, &old.access);
        let mut current = self.shared.current.subscribe();
        let gone = current.wait_for(|now| !matches!(now, Current::Here(client) if same(client)));
        let _ = timeout(SEEN, gone).await;
        self.client().await
    }

    /// Transcribe a recording. If the service crashes it is sent again, twice at most.
    pub fn transcribe(&self, audio: Audio, options: Options) -> Transcribing {
        Transcribing::new(Source::Supervisor(self.clone()), audio, options)
    }

    /// Begin a session of live audio; it ends with a crash of the service.
    ///
    /// # Errors
    /// As [`Client::live`], and as [`client`](Supervisor::client).
    pub async fn live(&self, options: &LiveOptions) -> Result<(LiveInput, Live), Error> {
        self.client().await?.live(options).await
    }

    /// Load an installed model for recordings, also each time that the service is started again.
    ///
    /// # Errors
    /// As [`Client::use_model`], and as [`client`](Supervisor::client).
    pub async fn use_model(&self, name: &str) -> Result<(), Error> {
        self.client().await?.use_model(name).await?;
        *self.shared.model() = Some(name.to_string());
        Ok(())
    }

    /// Start it at once: a wait ends, and what was given up or stopped is tried again. One that runs
    /// stays.
    pub fn restart(&self) {
        let _ = self.orders.send(Order::Restart);
    }

    /// End it, with all its workers, and wait for that. Running jobs end at once.
    pub async fn stop(&self) {
        let (sender, done) = oneshot::channel();
        if self.orders.send(Order::Stop(sender)).is_ok() {
            let _ = done.await;
        }
    }

    pub(crate) fn busy(&self) -> Busy {
        self.shared.jobs.send_modify(|jobs| *jobs += 1);
        Busy(Arc::clone(&self.shared))
    }
}

impl Shared {
    fn model(&self) -> MutexGuard<'_, Option<String>> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, status: Status) {
        tracing::debug!(?status, "the supervised service");
        self.status.send_replace(status.clone());
        let _ = self.events.send(status); // nobody may be listening
    }
}

struct Task {
    shared: Arc<Shared>,
    launch: Launch,
    backoff: Backoff,
    orders: mpsc::UnboundedReceiver<Order>,
}

impl Task {
    async fn run(mut self) {
        let mut next = Next::Start;
        loop {
            next = match next {
                Next::Start => self.one_run().await,
                Next::After(wait) => {
                    tokio::select! {
                        () = sleep(wait) => Next::Start,
                        order = self.orders.recv() => self.obey(order),
                    }
                }
                Next::Rest => {
                    let order = self.orders.recv().await;
                    self.obey(order)
                }
                Next::End => return,
            };
        }
    }

    /// An order while nothing runs.
    fn obey(&mut self, order: Option<Order>) -> Next {
        match order {
            Some(Order::Restart) => {
                self.backoff.failures = 0;
                Next::Start
            }
            Some(Order::Stop(done)) => {
                self.stopped();
                let _ = done.send(());
                Next::Rest
            }
            None => Next::End,
        }
    }

    fn stopped(&self) {
        self.shared.current.send_replace(Current::Gone(StartError::Stopped));
        self.shared.tell(Status::Stopped);
    }

    /// From a start to the end of what was started.
    async fn one_run(&mut self) -> Next {
        self.shared.current.send_replace(Current::Coming);
        self.shared.tell(Status::Starting);
        let began = Instant::now();
        let mut start = match Start::spawn(&self.launch) {
            Ok(start) => start,
            Err(error) => return self.not_started(error, began.elapsed()),
        };
        let found = {
            let model = self.shared.model().clone();
            let mut ready = pin!(async {
                let found = start.ready().await?;
                if let Some(model) = model {
                    if let Err(error) = found.1.use_model(&model).await {
                        tracing::error!(model, %error, "the model is not used");
                    }
                }
                Ok(found)
            });
            loop {
                tokio::select! {
                    found = &mut ready => break Ok(found),
                    order = self.orders.recv() => match order {
                        Some(Order::Restart) => {}
                        other => break Err(other),
                    }
                }
            }
        };
        match found {
            Ok(Ok(found)) => self.watch(start.into_service(found), began).await,
            Ok(Err(error)) => self.not_started(error, began.elapsed()),
            Err(order) => {
                start.abandon().await; // who waits for the end of a stop finds nothing left
                self.obey(order)
            }
        }
    }

    fn not_started(&mut self, error: StartError, lasted: Duration) -> Next {
        let again = verdict_of_start(&error) == Verdict::Crashed;
        let (code, log) = (error.code().to_string(), error.log().to_vec());
        self.crashed(code, log, error, again, lasted)
    }

    /// Until it ends, by itself or by order.
    async fn watch(&mut self, mut service: Service, began: Instant) -> Next {
        self.shared.current.send_replace(Current::Here(service.client().clone()));
        let mut jobs = self.shared.jobs.subscribe();
        jobs.mark_changed(); // for its first status
        loop {
            tokio::select! {
                biased;
                exit = service.ended() => return self.ended(exit, began.elapsed()),
                order = self.orders.recv() => match order {
                    Some(Order::Restart) => {}
                    other => {
                        service.stop().await;
                        return self.obey(other);
                    }
                },
                _ = jobs.changed() => self.tell_jobs(&service, *jobs.borrow_and_update()),
            }
        }
    }

    fn tell_jobs(&self, service: &Service, jobs: usize) {
        let ready = service.ready();
        self.shared.tell(match jobs {
            0 => Status::Ready {
                version: ready.version.clone(),
                device: ready.device.clone(),
                pid: ready.pid,
            },
            jobs => Status::Busy { jobs },
        });
    }

    fn ended(&mut self, exit: Exit, lasted: Duration) -> Next {
        let verdict = verdict_of_exit(&exit);
        if verdict == Verdict::Stopped {
            self.stopped();
            return Next::Rest;
        }
        let again = verdict == Verdict::Crashed;
        let Exit { text, log, .. } = exit;
        let error = StartError::CrashLoop {
            times: self.backoff.failures + 1,
            exit: text,
            log: log.clone(),
        };
        self.crashed("crashed".into(), log, error, again, lasted)
    }

    fn crashed(
        &mut self,
        code: String,
        log: Vec<String>,
        error: StartError,
        again: bool,
        lasted: Duration,
    ) -> Next {
        let wait = if again { self.backoff.next(lasted) } else { None };
        let reason = error.to_string();
        tracing::error!(code, reason, "the service is gone");
        self.shared.current.send_replace(match wait {
            Some(_) => Current::Coming,
            None => Current::Gone(error),
        });
        let restart_in = wait.map(|wait| wait.as_secs_f64());
        self.shared.tell(Status::Crashed { code, reason, log, restart_in });
        wait.map_or(Next::Rest, Next::After)
    }
}

//! The events of one job, over as many connections as it takes: none lost, none twice.

use crate::client::Client;
use crate::error::Error;
use crate::sse::Parser;
use crate::transcribing::Step;
use crate::wire::{JobError, Segment};
use crate::Result;
use reqwest::Response;
use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The service says something every 15 s; who is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// Attempts in a row that bring nothing new, before the connection counts as lost.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// What an event means for who follows.
pub(crate) enum News {
    Step(Step),
    Done,
}

/// Reads the events of a job.
pub(crate) struct Following {
    client: Client,
    id: String,
    last: Option<u64>,
    connection: Option<(Response, Parser)>,
    ready: VecDeque<News>,
    failures: u32,
}

impl Following {
    pub(crate) fn new(client: Client, id: String) -> Following {
        let ready = VecDeque::new();
        Following { client, id, last: None, connection: None, ready, failures: 0 }
    }

    /// What happens next. It may be dropped and asked again: nothing is lost.
    ///
    /// # Errors
    /// The job failed or was cancelled, or the service is gone.
    pub(crate) async fn next(&mut self) -> Result<News> {
        loop {
            if let Some(news) = self.ready.pop_front() {
                return Ok(news);
            }
            match self.more().await {
                Err(Error::Unreachable(reason)) => {
                    self.connection = None;
                    self.failures += 1;
                    if self.failures >= ATTEMPTS {
                        return Err(Error::Unreachable(reason));
                    }
                    sleep(PAUSE).await;
                }
                other => other?,
            }
        }
    }

    /// Read a piece more.
    async fn more(&mut self) -> Result<()> {
        if self.connection.is_none() {
            let response = self.client.events(&self.id, self.last).await?;
            if response.status().as_u16() == 204 {
                // Its last event was read: it has ended, and the transcript says how.
                self.ready.push_back(News::Done);
                return Ok(());
            }
            self.connection = Some((response, Parser::default()));
        }
        let Some((response, parser)) = &mut self.connection else { return Ok(()) };
        let Ok(piece) = timeout(SILENCE, response.chunk()).await else {
            return Err(Error::Unreachable(format!("silent for {SILENCE:?}")));
        };
        let Some(piece) = piece? else {
            return Err(Error::Unreachable("the events broke off".into()));
        };
        for frame in parser.feed(&piece) {
            if frame.id.is_some() && frame.id <= self.last {
                continue;
            }
            self.last = frame.id.or(self.last);
            self.failures = 0;
            self.ready.extend(news(&self.id, &frame.event, &frame.data)?);
        }
        Ok(())
    }
}

/// What an event of the job `id` is; `None`: nothing that a host needs.
fn news(id: &str, event: &str, data: &str) -> Result<Option<News>> {
    let data: Value = serde_json::from_str(data).map_err(strange)?;
    Ok(Some(match event {
        "segment" => {
            #[derive(Deserialize)]
            struct Heard {
                index: usize,
                segment: Segment,
            }
            let Heard { index, segment } = serde_json::from_value(data).map_err(strange)?;
            News::Step(Step::Segment { index, segment })
        }
        "progress" => News::Step(Step::Progress(serde_json::from_value(data).map_err(strange)?)),
        "begun" => News::Step(Step::Begun),
        "crashed" => News::Step(Step::Again { code: "engine_crashed".into() }),
        "put_back" => News::Step(Step::Queued { id: id.into(), position: None, wait: None }),
        "done" => News::Done,
        "cancelled" => return Err(Error::Cancelled),
        "failed" | "unauthorized" => {
            let error = data.get("error").cloned().unwrap_or_default();
            return Err(serde_json::from_value::<JobError>(error).map_err(strange)?.into());
        }
        _ => return Ok(None), // also "behind": the stream ends, and is opened behind what was read
    }))
}

fn strange(error: serde_json::Error) -> Error {
    Error::Strange(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_that_was_put_back_waits_again() {
        let Ok(Some(News::Step(step))) = news("a job", "put_back", "{}") else { panic!() };
        assert!(matches!(step, Step::Queued { id, position: None, wait: None } if id == "a job"));
    }
}

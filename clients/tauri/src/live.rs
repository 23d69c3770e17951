//! Live audio of pages: sound comes by calls with bytes, words go back by a channel.

use crate::commands::raw;
use crate::failure::Failure;
use crate::jobs::held;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tauri::ipc::{Channel, Request};
use tauri::{command, State, Webview};
use tokio::sync::mpsc::{self, error::TrySendError};
use vibevoice_asr::{LiveEvent, LiveInput, LiveOptions, Supervisor};

type Answer<T> = Result<T, Failure>;
/// Pieces of sound that wait for the service; the session of a page that sends more ends.
const WAITING: usize = 600;

/// What goes to a session, in order.
enum Input {
    Sound(Vec<u8>),
    Order(Order),
}

/// What a page may ask of its session.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    Commit,
    Cancel,
    Finish,
    Close,
}

/// What a page gets: events, and how it ended.
#[derive(Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Told {
    Event(LiveEvent),
    Ended { ended: Option<Failure> },
}

/// The sessions of all pages, also those that are about to begin: by the label of the webview and the
/// name that its page chose. One that is taken out is closed, as nothing more can be sent to it.
#[derive(Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<Inputs>>);
type Inputs = HashMap<(String, String), mpsc::Sender<Input>>;

impl Sessions {
    /// A session that is about to begin: what its page will send.
    fn open(&self, name: &(String, String), most: usize) -> mpsc::Receiver<Input> {
        let (sender, waiting) = mpsc::channel(most);
        held(&self.0).insert(name.clone(), sender);
        waiting
    }

    /// The page is gone: its sessions are closed.
    pub(crate) fn leave(&self, label: &str) {
        held(&self.0).retain(|(owner, _), _| owner != label);
    }

    fn send(&self, label: &str, session: &str, input: Input) -> Answer<()> {
        let name = (label.to_string(), session.to_string());
        let mut inputs = held(&self.0);
        let sender = inputs
            .get(&name)
            .ok_or_else(|| Failure::new("session_over", "there is no such session"))?;
        sender.try_send(input).map_err(|error| {
            inputs.remove(&name); // a gap in the sound would be words lost without a sign
            match error {
                TrySendError::Full(_) => Failure::new("inbound_full", "the service is too slow"),
                TrySendError::Closed(_) => Failure::new("session_over", "it is over"),
            }
        })
    }
}

/// Begin a session; the answer comes when the service has taken it.
#[command]
pub(crate) async fn live_begin<R: tauri::Runtime>(
    webview: Webview<R>,
    speech: State<'_, Supervisor>,
    sessions: State<'_, Sessions>,
    session: String,
    options: LiveOptions,
    on_event: Channel<Told>,
) -> Answer<()> {
    let name = (webview.label().to_string(), session);
    let sessions = sessions.inner().clone();
    let waiting = sessions.open(&name, WAITING); // a page that leaves meanwhile ends it
    let begun = speech.live(&options).await;
    let (input, mut live) = begun.inspect_err(|_| drop(held(&sessions.0).remove(&name)))?;
    tauri::async_runtime::spawn(pass(input, waiting));
    tauri::async_runtime::spawn(async move {
        let mut ended = None;
        while let Some(event) = live.next().await {
            match event {
                Ok(event) => {
                    if on_event.send(Told::Event(event)).is_err() {
                        break; // nobody is there any more
                    }
                }
                Err(error) => ended = Some(error.into()),
            }
        }
        held(&sessions.0).remove(&name);
        let _ = on_event.send(Told::Ended { ended });
    });
    Ok(())
}

/// More sound: the bytes of this call, for the session that its header names.
#[command]
pub(crate) fn live_send<R: tauri::Runtime>(
    webview: Webview<R>,
    sessions: State<'_, Sessions>,
    request: Request<'_>,
) -> Answer<()> {
    let (session, sound) = raw(&request, "session")?;
    sessions.send(webview.label(), session, Input::Sound(sound.to_vec()))
}

/// `commit`, `cancel`, `finish` or `close`, behind the sound that was sent.
#[command]
pub(crate) fn live_order<R: tauri::Runtime>(
    webview: Webview<R>,
    sessions: State<'_, Sessions>,
    session: &str,
    order: Order,
) -> Answer<()> {
    sessions.send(webview.label(), session, Input::Order(order))
}

/// Hand on what a page sends, until it closes the session or is gone.
async fn pass(mut input: LiveInput, mut waiting: mpsc::Receiver<Input>) {
    while let Some(next) = waiting.recv().await {
        let sent = match next {
            Input::Sound(sound) => input.send(sound).await,
            Input::Order(Order::Commit) => input.commit().await,
            Input::Order(Order::Cancel) => input.cancel().await,
            Input::Order(Order::Finish) => input.finish().await,
            Input::Order(Order::Close) => break,
        };
        if sent.is_err() {
            return; // the other side tells why
        }
    }
    input.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_that_gets_more_than_waits_ends_with_the_sound_so_far() {
        let sessions = Sessions::default();
        let mut waiting = sessions.open(&("main".into(), "one".into()), 1);
        let sent: Vec<_> =
            (0..3).map(|piece| sessions.send("main", "one", Input::Sound(vec![piece]))).collect();
        let codes: Vec<_> =
            sent.into_iter().map(|sent| sent.err().map(|failure| failure.code)).collect();
        assert_eq!(codes, [None, Some("inbound_full".into()), Some("session_over".into())]);
        assert!(matches!(waiting.try_recv(), Ok(Input::Sound(sound)) if sound == [0]));
        assert_eq!(waiting.try_recv().err(), Some(mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn page_that_leaves_ends_its_sessions_also_before_they_begin() {
        let sessions = Sessions::default();
        let mut waiting = sessions.open(&("main".into(), "one".into()), 1);
        let mut other = sessions.open(&("other".into(), "one".into()), 1);
        sessions.leave("main");
        assert_eq!(waiting.try_recv().err(), Some(mpsc::error::TryRecvError::Disconnected));
        assert_eq!(other.try_recv().err(), Some(mpsc::error::TryRecvError::Empty));
    }
}

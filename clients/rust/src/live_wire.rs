//! Messages of live audio (docs/live-wire.md).

use crate::wire::{Segment, Transcript};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a session of live audio asks for; what is `None` is as the service has it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct LiveOptions {
    /// Samples a second, 8000 to 192000; as it is: 16000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// `pcm16` (as it is) or `float32`, little-endian.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// 1 (as it is), or 2: interleaved samples, left first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// Names of two channels, between commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel_names: Option<String>,
    /// `auto`, or a tag such as `en`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Who ends a turn: `silence`, `client` or `one`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turns: Option<String>,
    /// Words while somebody speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partials: Option<bool>,
    /// Whether to label the speakers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diarize: Option<bool>,
    /// Whether the session becomes a job, whose id the summary has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<bool>,
    /// Name of that job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Times of words in finals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<bool>,
    /// What it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Names and terms to expect, between commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hotwords: Option<String>,
}

/// What the service says; times are seconds of the session's audio. `channel`: of two, the one that
/// it is about, from 0.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum LiveEvent {
    /// Somebody begins to speak.
    SpeechStarted {
        turn: u64,
        at: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<u8>,
    },
    /// A pause.
    SpeechStopped {
        turn: u64,
        at: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<u8>,
    },
    /// Interim text: `stable` does not change before the final, `tail` is uncertain.
    Partial {
        turn: u64,
        piece: u64,
        start: f64,
        end: f64,
        text: String,
        stable: String,
        tail: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<u8>,
    },
    /// Final text of a piece; its speaker may be revised.
    Final {
        turn: u64,
        piece: u64,
        segment: Segment,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<u8>,
    },
    /// All pieces of a turn were sent.
    TurnEnded {
        turn: u64,
        start: f64,
        end: f64,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<u8>,
    },
    /// A turn was cancelled.
    TurnDropped {
        turn: u64,
        at: f64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<u8>,
    },
    /// Piece → speaker of earlier finals; speaker → name of an enrolled one, `None`: nobody.
    SpeakersRevised {
        speakers: BTreeMap<String, String>,
        #[serde(default)]
        names: BTreeMap<String, Option<String>>,
    },
    /// Something to know: `engine_loading`, `engine_restarted`, `partials_late`, …
    Notice {
        code: String,
        message: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        channel: Option<u8>,
    },
    /// The last: the whole transcript, and its job with `keep`.
    Summary { transcript: Transcript, job: Option<String> },
    /// What this version does not know.
    #[serde(other)]
    Unknown,
}

/// All that comes, with what is not for the host.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Frame {
    Began {},
    Received {},
    Error {
        code: String,
        message: String,
        #[serde(default)]
        hint: String,
    },
    #[serde(untagged)]
    Event(LiveEvent),
}

/// What goes to the service as text.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Order<'a> {
    Begin(&'a LiveOptions),
    Commit,
    Cancel,
    Finish,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> LiveEvent {
        match serde_json::from_str(text).unwrap() {
            Frame::Event(event) => event,
            _ => panic!("{text} is no event"),
        }
    }

    #[test]
    fn new_types_are_unknown() {
        let text = r#"{"type": "speakers_revised", "number": 13, "speakers": {"1": "Speaker_1"}}"#;
        let LiveEvent::SpeakersRevised { speakers, .. } = event(text) else { panic!() };
        assert_eq!(speakers["1"], "Speaker_1");
        assert!(matches!(event(r#"{"type": "weather", "number": 1}"#), LiveEvent::Unknown));
    }

    #[test]
    fn begin_has_only_what_was_set() {
        let options = LiveOptions { rate: Some(48_000), ..LiveOptions::default() };
        let text = serde_json::to_string(&Order::Begin(&options)).unwrap();
        assert_eq!(text, r#"{"type":"begin","rate":48000}"#);
    }
}

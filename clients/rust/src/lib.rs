//! vibevoice-asr from Rust: find the executable, run it as a child process, transcribe with it.
//!
//! A host (a desktop app, say) has one [`Supervisor`]. It starts the service, starts it again when
//! it crashes, tells what happens as [`Status`], and ends it with the host:
//!
//! ```no_run
//! use vibevoice_asr::{Audio, Finder, Launch, Options, Policy, Step, Supervisor};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let program = Finder::new().folder("/opt/my-app/resources").find()?;
//! let speech = Supervisor::start(Launch::new(program), Policy::default());
//! let mut job = speech.transcribe(Audio::path("talk.wav"), Options::default());
//! while let Some(step) = job.next().await {
//!     match step? {
//!         Step::Progress(progress) => println!("{:?} s left", progress.seconds_left),
//!         Step::Done(transcript) => println!("{} segments", transcript.segments.len()),
//!         _ => {}
//!     }
//! }
//! speech.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! | you want | take |
//! |---|---|
//! | a service that is there when it is needed | [`Supervisor`] |
//! | one run of it, and its end in your own hands | [`Service`] |
//! | a service that somebody else started | [`Client::connect`] |
//!
//! The contract between host and service is docs/embedding.md of the project. All functions need a
//! Tokio runtime, with its timers and its input and output enabled.

mod backoff;
mod bound;
mod client;
mod error;
mod find;
mod following;
mod launch;
mod live;
mod live_wire;
mod log_lines;
mod pulling;
mod service;
mod sse;
mod status;
mod supervisor;
mod tls;
mod transcribing;
mod wire;

pub use backoff::Policy;
pub use client::{Access, Client, JobPage};
pub use error::{Error, StartError};
pub use find::{Finder, NotFound, TARGET_TRIPLE};
pub use launch::Launch;
pub use live::{Live, LiveInput};
pub use live_wire::{LiveEvent, LiveOptions};
pub use pulling::{PullStep, Pulling};
pub use service::{Exit, Service};
pub use status::Status;
pub use supervisor::Supervisor;
pub use transcribing::{Audio, Cancel, Step, Transcribing};
pub use wire::{
    AudioProgress, Estimate, Fatal, Health, Job, JobError, JobState, LocalModel, Metadata, Model,
    Options, Problem, Progress, Ready, Reloaded, Segment, Transcript, Warning, Word, CONTRACT,
};

/// What calls give.
pub type Result<T, E = Error> = std::result::Result<T, E>;

//! Transcribe a recording: `transcribe talk.wav [PROGRAM ARGUMENT…]`. Without a program it is looked
//! for beside this one and on the PATH.

use std::env::args;
use vibevoice_asr::{Audio, Finder, Launch, Options, Policy, Status, Step, Supervisor};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = args().skip(1);
    let path = words.next().ok_or("which recording?")?;
    let program = match words.next() {
        Some(program) => program.into(),
        None => Finder::new().find()?,
    };
    let launch = words.fold(Launch::new(program), |launch, word| launch.argument(word));
    let speech = Supervisor::start(launch, Policy::default());
    let mut events = speech.events();
    tokio::spawn(async move {
        while let Ok(status) = events.recv().await {
            if let Status::Crashed { reason, .. } = status {
                eprintln!("The service crashed: {reason}");
            }
        }
    });
    let mut job = speech.transcribe(Audio::path(path), Options::default());
    while let Some(step) = job.next().await {
        match step? {
            Step::Progress(progress) => match (progress.audio.fraction, progress.seconds_left) {
                (Some(part), Some(left)) => eprintln!("{:3.0} %, {left:.0} s left", 100.0 * part),
                (Some(part), None) => eprintln!("{:3.0} %", 100.0 * part),
                _ => {}
            },
            Step::Done(transcript) => {
                for one in transcript.segments {
                    println!("{:7.1} {}: {}", one.start_time, one.speaker, one.text);
                }
            }
            _ => {}
        }
    }
    speech.stop().await;
    Ok(())
}

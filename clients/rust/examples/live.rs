//! Live captions of raw audio on standard input, 16 kHz, mono, 16 bits:
//! `arecord -f S16_LE -r 16000 | live`.

use tokio::io::AsyncReadExt;
use vibevoice_asr::{Finder, Launch, LiveEvent, LiveOptions, Policy, Supervisor};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let speech = Supervisor::start(Launch::new(Finder::new().find()?), Policy::default());
    let (mut input, mut live) = speech.live(&LiveOptions::default()).await?;
    tokio::spawn(async move {
        let (mut audio, mut piece) = (tokio::io::stdin(), [0; 3200]); // a tenth of a second
        while audio.read_exact(&mut piece).await.is_ok() {
            if input.send(piece.to_vec()).await.is_err() {
                return;
            }
        }
        let _ = input.finish().await;
    });
    while let Some(event) = live.next().await {
        match event? {
            LiveEvent::Partial { text, tail, .. } => eprint!("\r\x1b[K{text} {tail}"),
            LiveEvent::Final { segment, .. } => {
                eprint!("\r\x1b[K");
                println!("{}: {}", segment.speaker, segment.text);
            }
            _ => {}
        }
    }
    speech.stop().await;
    Ok(())
}

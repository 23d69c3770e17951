//! The service's log: it goes on to `tracing`, and its end is kept for reports of crashes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// The target of its lines in `tracing`.
const TARGET: &str = "vibevoice_asr::service";
const KEPT: usize = 50;
/// Bytes of a line, at most: the rest of a longer one is a line of its own.
const LONGEST: u64 = 16 * 1024;

/// The last lines, shared by who writes and who reads them.
#[derive(Clone, Default)]
pub(crate) struct LogLines(Arc<Mutex<VecDeque<String>>>);

impl LogLines {
    /// The lines so far, the newest last.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Read the log to its end. What is not UTF-8 becomes a mark: a log must not stop for that.
    pub(crate) async fn read(self, source: impl AsyncRead + Unpin) {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while let Ok(1..) = (&mut source).take(LONGEST).read_until(b'\n', &mut line).await {
            let line = String::from_utf8_lossy(&std::mem::take(&mut line)).trim_end().to_string();
            tell(&line);
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_back(line);
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
    }
}

/// A line is `time - name - LEVEL - message`; what is not, such as the lines of a traceback, is a
/// warning.
fn tell(line: &str) {
    let mut parts = line.splitn(4, " - ").skip(1);
    let (name, level, message) = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(level), Some(message)) => (name, level, message),
        _ => ("", "", line),
    };
    match level {
        "DEBUG" => tracing::debug!(target: TARGET, name, "{message}"),
        "INFO" => tracing::info!(target: TARGET, name, "{message}"),
        "ERROR" | "CRITICAL" => tracing::error!(target: TARGET, name, "{message}"),
        _ => tracing::warn!(target: TARGET, name, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn last_lines_are_kept_and_what_is_not_text_becomes_mark() {
        let mut text: Vec<u8> =
            (0..60).flat_map(|n| format!("line {n}\r\n").into_bytes()).collect();
        text.extend(b"\xff.\n");
        let lines = LogLines::default();
        lines.clone().read(text.as_slice()).await;
        let kept = lines.all();
        assert_eq!((kept.len(), kept[0].as_str()), (KEPT, "line 11"));
        assert_eq!(kept.last().unwrap(), "\u{fffd}.");
    }

    #[tokio::test]
    async fn line_without_end_is_cut() {
        let text = vec![b'x'; 3 * LONGEST as usize + 1];
        let lines = LogLines::default();
        lines.clone().read(text.as_slice()).await;
        let lengths: Vec<_> = lines.all().iter().map(String::len).collect();
        assert_eq!(lengths, [LONGEST as usize, LONGEST as usize, LONGEST as usize, 1]);
    }
}

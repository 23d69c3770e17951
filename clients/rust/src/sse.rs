//! Server-sent events: bytes in, frames out.

/// One event.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Frame {
    pub(crate) event: String,
    pub(crate) id: Option<u64>,
    pub(crate) data: String,
}

/// Keeps what has come of a frame that is not whole yet.
#[derive(Default)]
pub(crate) struct Parser {
    rest: Vec<u8>,
    frame: Frame,
}

impl Parser {
    /// The frames that these bytes complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.rest.extend_from_slice(bytes);
        let mut whole = Vec::new();
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[begin..begin + length]).into_owned();
            begin += length + 1;
            self.line(line.trim_end_matches('\r'), &mut whole);
        }
        self.rest.drain(..begin);
        whole
    }

    fn line(&mut self, line: &str, whole: &mut Vec<Frame>) {
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            if !frame.data.is_empty() {
                whole.push(frame);
            }
            return;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => self.frame.event = value.to_string(),
            "id" => self.frame.id = value.parse().ok(),
            "data" if self.frame.data.is_empty() => self.frame.data = value.to_string(),
            "data" => self.frame.data += &format!("\n{value}"),
            _ => {} // a comment, or what we have no use for
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let text = ": hello\n\nid: 3\nevent: segment\ndata: {\"text\":\ndata: \"süß\"}\n\n\
                    event: progress\r\ndata: {}\r\n\r\ndata: half"
            .as_bytes();
        let expected = [
            Frame { event: "segment".into(), id: Some(3), data: "{\"text\":\n\"süß\"}".into() },
            Frame { event: "progress".into(), id: None, data: "{}".into() },
        ];
        for size in 1..=text.len() {
            let mut parser = Parser::default();
            let frames: Vec<_> = text.chunks(size).flat_map(|part| parser.feed(part)).collect();
            assert_eq!(frames, expected, "in pieces of {size}");
        }
    }
}

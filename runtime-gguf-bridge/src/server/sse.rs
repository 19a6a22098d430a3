//! Events out of bytes, as `data: …` lines carry them; must not know where the bytes come from.
//!
//! Own code: `eventsource-stream` knows no caps, hands on copies of each event's other fields, and wants a `Stream`.

use super::CallError;

/// The longest event. Unit: bytes. Default: 16 MiB. Origin: the largest real one carries some thousand log
/// probabilities, 1 MiB. Cost of less: such an answer refused; of more: memory for a broken child.
const EVENT: usize = 16 << 20;

/// Splits bytes into events' data. Fields other than `data`, and comments, are skipped.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    bytes: Vec<u8>,
    /// Before this, all is taken; before `scanned` lies no end of a line.
    taken: usize,
    scanned: usize,
    data: Vec<u8>,
    has_data: bool,
}

impl Splitter {
    /// Takes more bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), CallError> {
        self.bytes.drain(..self.taken);
        self.scanned -= self.taken;
        self.taken = 0;
        if self.bytes.len() + self.data.len() + bytes.len() > EVENT {
            return Err(CallError::TooLarge { limit: EVENT });
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole event's data, until more bytes are needed.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let from = self.scanned;
            let Some(end) = self.bytes[from..].iter().position(|byte| *byte == b'\n') else {
                self.scanned = self.bytes.len();
                return None;
            };
            let line = &self.bytes[self.taken..from + end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let ends_event = line.is_empty();
            if let Some(data) = line.strip_prefix(b"data:") {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
            self.taken = from + end + 1;
            self.scanned = self.taken;
            if ends_event && self.has_data {
                self.has_data = false;
                return Some(std::mem::take(&mut self.data));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(parts: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut events) = (Splitter::default(), Vec::new());
        for part in parts {
            splitter.feed(part).unwrap();
            while let Some(data) = splitter.next() {
                events.push(String::from_utf8(data).unwrap());
            }
        }
        events
    }

    #[test]
    fn fields_comments_and_line_ends_of_any_kind_are_understood() {
        let said =
            ": ping\n\nevent: x\r\ndata: {\"a\":1}\r\n\r\ndata:two\ndata: lines\n\nid: 7\n\ndata: [DONE]\n\ndata: cut";
        assert_eq!(events(&[said.as_bytes()]), ["{\"a\":1}", "two\nlines", "[DONE]"]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut splitter = Splitter::default();
        let part = vec![b'x'; 1 << 20];
        let refused = (0..17).map(|_| splitter.feed(&part).map(|()| splitter.next())).find_map(Result::err);
        assert_eq!(refused, Some(CallError::TooLarge { limit: EVENT }));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_changes_nothing(texts in prop::collection::vec("[a-zé:]{0,9}", 0..9), at in 1usize..7) {
            let said: String = texts.iter().map(|text| format!("data: {text}\n\n")).collect();
            let parts: Vec<&[u8]> = said.as_bytes().chunks(at).collect();
            prop_assert_eq!(events(&parts), texts);
        }
    }
}

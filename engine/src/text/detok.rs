//! Tokens into text as they come, never half a character; must not know what the text means.
//!
//! What has been given out is always a prefix of the whole text decoded at once. Invalid bytes become U+FFFD as in
//! the reference decoder, with one difference: sentencepiece's `ByteFallback` looks at a whole run of byte tokens and
//! gives up all of it for one bad byte, which would mean holding back the run; here only the bad byte is lost.

use std::{str, sync::Arc};

use crate::text::vocabulary::{Spelling, Start, Vocabulary, spelled};

/// Tokens before the answer that a decoder with neighbours is shown (five, as vLLM has it).
const CONTEXT_TOKENS: usize = 5;

/// Tokens that may be held back before they are given out as they are. Four bytes make a character, each its own
/// token at worst; twice that (guess) leaves room for decoders that look further.
const MOST_HELD_TOKENS: usize = 8;

/// The text of one growing list of tokens.
#[derive(Debug)]
pub(crate) struct Detokenizer {
    vocabulary: Arc<Vocabulary>,
    utf8: Utf8,
    start: Start,
    window: Window,
}

impl Detokenizer {
    /// Starts a text that follows `context` (the end of a prompt), or a text of its own if that is empty: then a
    /// decoder's rule for the start of a text holds.
    pub(crate) fn new(vocabulary: Arc<Vocabulary>, context: &[u32]) -> Self {
        let start = match vocabulary.spelling() {
            Spelling::Bytes { start, .. } if context.is_empty() => *start,
            _ => Start::Keep,
        };
        let mut ids: Vec<u32> =
            context.iter().rev().copied().filter(|id| !vocabulary.is_special(*id)).take(CONTEXT_TOKENS).collect();
        ids.reverse();
        let read = ids.len();
        Self { vocabulary, utf8: Utf8::default(), start, window: Window { ids, read } }
    }

    /// One more token, not a special one; what is complete is appended to `out`.
    pub(crate) fn push(&mut self, id: u32, out: &mut String) {
        match self.vocabulary.spelling() {
            Spelling::Window => self.window.push(&self.vocabulary, id, false, out),
            Spelling::Bytes { bytes, ends, .. } => {
                let mut piece = spelled(bytes, ends, id);
                match &mut self.start {
                    Start::Keep => {}
                    Start::Strip { what, most } => {
                        while *most > 0 && piece.first() == Some(what) {
                            piece = &piece[1..];
                            *most -= 1;
                        }
                        if !piece.is_empty() {
                            self.start = Start::Keep;
                        }
                    }
                    Start::DropFromFirst(marker) => {
                        let token = self.vocabulary.tokenizer().id_to_token(id).unwrap_or_default();
                        self.utf8.push(token.replace(*marker, "").as_bytes(), out);
                        self.start = Start::Keep;
                        return;
                    }
                }
                self.utf8.push(piece, out);
            }
        }
    }

    /// Text that no token of the vocabulary's table stands for: markup that is skipped otherwise.
    pub(crate) fn push_text(&mut self, text: &str, out: &mut String) {
        self.window.flush(&self.vocabulary, out);
        self.utf8.push(text.as_bytes(), out);
    }

    /// Gives out what is complete at the end; half a character is dropped.
    pub(crate) fn finish(&mut self, out: &mut String) {
        self.window.flush(&self.vocabulary, out);
        while out.ends_with(char::REPLACEMENT_CHARACTER) && matches!(self.vocabulary.spelling(), Spelling::Window) {
            out.pop();
        }
    }
}

/// Bytes into characters.
#[derive(Debug, Default)]
struct Utf8 {
    held: Vec<u8>,
}

impl Utf8 {
    fn push(&mut self, bytes: &[u8], out: &mut String) {
        if self.held.is_empty() {
            self.held = Self::convert(bytes, out).to_vec();
        } else {
            let mut all = std::mem::take(&mut self.held);
            all.extend_from_slice(bytes);
            self.held = Self::convert(&all, out).to_vec();
        }
    }

    /// Appends `bytes` as `String::from_utf8_lossy` would; returns the incomplete character at their end.
    fn convert<'a>(mut bytes: &'a [u8], out: &mut String) -> &'a [u8] {
        loop {
            match str::from_utf8(bytes) {
                Ok(text) => {
                    out.push_str(text);
                    return &[];
                }
                Err(error) => {
                    let (valid, rest) = bytes.split_at(error.valid_up_to());
                    out.push_str(str::from_utf8(valid).unwrap_or_default());
                    let Some(bad) = error.error_len() else { return rest };
                    out.push(char::REPLACEMENT_CHARACTER);
                    bytes = rest.get(bad..).unwrap_or_default();
                }
            }
        }
    }
}

/// The last tokens, for decoders that look at neighbours: `ids[..read]` have been given out, the rest not.
#[derive(Debug)]
struct Window {
    ids: Vec<u32>,
    read: usize,
}

impl Window {
    fn push(&mut self, vocabulary: &Vocabulary, id: u32, last: bool, out: &mut String) {
        self.ids.push(id);
        self.give(vocabulary, last, out);
    }

    fn flush(&mut self, vocabulary: &Vocabulary, out: &mut String) {
        if self.ids.len() > self.read {
            self.give(vocabulary, true, out);
        }
    }

    fn give(&mut self, vocabulary: &Vocabulary, last: bool, out: &mut String) {
        let decode = |ids: &[u32]| match ids {
            // Some decoders panic at nothing (`BPEDecoder` in tokenizers 0.23.2).
            [] => String::new(),
            ids => vocabulary.tokenizer().decode(ids, false).unwrap_or_default(),
        };
        let (before, after) = (decode(&self.ids[..self.read]), decode(&self.ids));
        let held = self.ids.len() - self.read;
        if after.ends_with(char::REPLACEMENT_CHARACTER) && !last && held < MOST_HELD_TOKENS {
            return;
        }
        // A decoder that changes what it said before cannot be streamed; what both agree on is kept.
        let same = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
        let new = (0..=same).rev().find_map(|from| after.get(from..)).unwrap_or_default();
        out.push_str(new);
        self.ids.drain(..self.read);
        self.read = self.ids.len();
    }
}

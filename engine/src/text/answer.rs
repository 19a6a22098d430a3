//! One answer being written: tokens in, pieces out; must not know prompts, batches or clients.

use std::{collections::HashSet, fmt, ops::Range, sync::Arc};

use mesh_proto::{Channel, TokenId, ToolCallDelta};

use crate::text::{
    detok::Detokenizer, reader::Part, split::Splitter, stops::Stops, tools::new_id, vocabulary::Vocabulary,
};

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// More text: whole characters, never empty.
    Text {
        /// Where it belongs.
        channel: Channel,
        /// The text.
        text: String,
    },
    /// A piece of a tool call: the first has its id and name, and all of them together the arguments.
    ToolCall(ToolCallDelta),
    /// A stop string was met: the answer is over.
    Stop(String),
}

/// Makes an id for a call that the model gave none.
type NewId = fn() -> String;

/// The parser of one answer: a few microseconds a token, and it never panics.
pub struct Answer {
    vocabulary: Arc<Vocabulary>,
    marks: Arc<[(u32, String)]>,
    detok: Detokenizer,
    split: Splitter,
    sink: Sink,
    text: String,
    tokens: u32,
    reasoning_tokens: u32,
}

impl Answer {
    /// `marks`: special tokens that may be markup.
    pub(crate) fn new(
        vocabulary: Arc<Vocabulary>,
        marks: Arc<[(u32, String)]>,
        detok: Detokenizer,
        split: Splitter,
        stop: &[String],
    ) -> Self {
        let sink = Sink { stops: Stops::new(stop), stopped: false, calls: 0, ids: HashSet::new(), new_id };
        Self { vocabulary, marks, detok, split, sink, text: String::new(), tokens: 0, reasoning_tokens: 0 }
    }

    /// With ids of another shape for calls that the model gives none.
    pub(crate) fn with_ids(mut self, new_id: NewId) -> Self {
        self.sink.new_id = new_id;
        self
    }

    /// One generated token, not the one that ends the sequence. What is settled by it is appended to `out`: often one
    /// piece, often none, sometimes several. After a [`Piece::Stop`] nothing more comes.
    pub fn push(&mut self, token: TokenId, out: &mut Vec<Piece>) {
        if self.sink.stopped {
            return;
        }
        self.tokens += 1;
        self.text.clear();
        let TokenId(id) = token;
        let mut special = None;
        if !self.vocabulary.is_special(id) {
            self.detok.push(id, &mut self.text);
        } else if self.split.has_markup()
            && let Some((_, mark)) = self.marks.iter().find(|(marked, _)| *marked == id)
        {
            self.detok.push_text(mark, &mut self.text);
            special = Some(self.text.len() - mark.len()..self.text.len());
        }
        self.settle(1, special, out);
    }

    /// Text of `tokens` generated tokens whose ids nobody knows.
    pub fn push_text(&mut self, text: &str, tokens: u32, out: &mut Vec<Piece>) {
        if self.sink.stopped {
            return;
        }
        self.tokens += tokens;
        self.text.clear();
        self.detok.push_text(text, &mut self.text);
        self.settle(tokens, None, out);
    }

    /// What the text of the last `tokens` tokens settles.
    fn settle(&mut self, tokens: u32, special: Option<Range<usize>>, out: &mut Vec<Piece>) {
        let before = self.split.is_reasoning();
        let first = out.len();
        self.split.push(&self.text, special, &mut |part| self.sink.take(part, first, out));
        match (before, self.split.is_reasoning()) {
            // All there was so far was the opening tag.
            (false, true) if self.reasoning_tokens == 0 => self.reasoning_tokens = self.tokens,
            (false, false) => {}
            _ => self.reasoning_tokens += tokens,
        }
    }

    /// The end of the generation: gives out what was held back. Half a character and half a tool call are not.
    pub fn finish(&mut self, out: &mut Vec<Piece>) {
        if self.sink.stopped {
            return;
        }
        self.text.clear();
        self.detok.finish(&mut self.text);
        let first = out.len();
        self.split.push(&self.text, None, &mut |part| self.sink.take(part, first, out));
        self.split.finish(&mut |part| self.sink.take(part, first, out));
        if !self.sink.stopped {
            self.sink.finish(first, out);
        }
        self.sink.stopped = true;
    }

    /// Whether a tool call was given out, or begun.
    pub fn called_tools(&self) -> bool {
        self.sink.calls > 0
    }

    /// Whether the model reasons now: what it writes next is reasoning, unless it is what closes it.
    pub fn is_reasoning(&self) -> bool {
        self.split.is_reasoning()
    }

    /// Tokens spent on reasoning so far, its tags included.
    pub fn reasoning_tokens(&self) -> u32 {
        self.reasoning_tokens
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("tokens", &self.tokens).field("split", &self.split).finish_non_exhaustive()
    }
}

/// Parts of the answer into pieces, content through the stop strings.
struct Sink {
    stops: Stops,
    stopped: bool,
    calls: u32,
    /// Ids that the model gave.
    ids: HashSet<String>,
    new_id: NewId,
}

impl Sink {
    /// Takes a part; pieces from `first` on are of the same token, and texts among them are joined.
    fn take(&mut self, part: Part, first: usize, out: &mut Vec<Piece>) {
        if self.stopped {
            return;
        }
        match part {
            Part::Text(Channel::Reasoning, text) => give(Channel::Reasoning, &text, first, out),
            Part::Text(Channel::Content, text) => {
                let mut settled = String::new();
                let met = self.stops.push(&text, &mut settled);
                self.settle(&settled, met, first, out);
            }
            Part::Call { name, id } => {
                // A stop string does not reach over a call.
                self.finish(first, out);
                if !self.stopped {
                    // A client tells calls by their ids: one that the model gives again is no id.
                    let id = id.filter(|id| self.ids.insert(id.clone())).unwrap_or_else(self.new_id);
                    let (id, name) = (Some(id), Some(name));
                    out.push(Piece::ToolCall(ToolCallDelta { index: self.calls, id, name, arguments: String::new() }));
                    self.calls += 1;
                }
            }
            Part::Arguments(text) => {
                let index = self.calls.saturating_sub(1);
                if out.len() > first
                    && let Some(Piece::ToolCall(delta)) = out.last_mut()
                    && delta.index == index
                {
                    delta.arguments.push_str(&text);
                } else {
                    out.push(Piece::ToolCall(ToolCallDelta { index, id: None, name: None, arguments: text }));
                }
            }
        }
    }

    fn finish(&mut self, first: usize, out: &mut Vec<Piece>) {
        let mut settled = String::new();
        let met = self.stops.finish(&mut settled);
        self.settle(&settled, met, first, out);
    }

    fn settle(&mut self, text: &str, met: Option<String>, first: usize, out: &mut Vec<Piece>) {
        give(Channel::Content, text, first, out);
        if let Some(stop) = met {
            out.push(Piece::Stop(stop));
            self.stopped = true;
        }
    }
}

/// Gives out text, as a part of the piece before if that is of the same token.
fn give(channel: Channel, text: &str, first: usize, out: &mut Vec<Piece>) {
    if text.is_empty() {
        return;
    }
    if out.len() > first
        && let Some(Piece::Text { channel: last, text: joined }) = out.last_mut()
        && *last == channel
    {
        joined.push_str(text);
        return;
    }
    out.push(Piece::Text { channel, text: text.to_owned() });
}

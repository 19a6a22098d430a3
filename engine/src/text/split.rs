//! An answer's text into reasoning, content and tool calls; must not know tokens or stop strings.
//!
//! What comes out depends on the text alone, not on the pieces it comes in. Held back is only what could still be
//! markup: the start of a tag, and white space that would be dropped if a tag followed. Nothing is lost or changed
//! except markup and the white space next to it; a tag cut off by the end of the answer is not shown.

use mesh_proto::Channel;

use crate::text::tool_call::{CLOSE, Call, CallScanner, OPEN};

/// White space held back at most, in bytes; more is taken for what the model means (guess: no template has as much).
const MOST_HELD_SPACE: usize = 1024;

/// The tags around a model's reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThinkTags {
    /// Opens.
    pub(crate) open: &'static str,
    /// Closes.
    pub(crate) close: &'static str,
}

/// The pairs in use, by the models that write them.
pub(crate) const THINK_TAGS: [ThinkTags; 8] = [
    // DeepSeek, Qwen, GLM, Kimi, MiniMax M2 and most others
    ThinkTags { open: "<think>", close: "</think>" },
    // Mistral's Magistral and Ministral
    ThinkTags { open: "[THINK]", close: "[/THINK]" },
    // ByteDance Seed
    ThinkTags { open: "<seed:think>", close: "</seed:think>" },
    // MiniMax M3
    ThinkTags { open: "<mm:think>", close: "</mm:think>" },
    // Cohere Command
    ThinkTags { open: "<|START_THINKING|>", close: "<|END_THINKING|>" },
    // Gemma 4
    ThinkTags { open: "<|channel>thought", close: "<channel|>" },
    // Apertus
    ThinkTags { open: "<|inner_prefix|>", close: "<|inner_suffix|>" },
    // tunes of LLaMA
    ThinkTags { open: "<thinking>", close: "</thinking>" },
];

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// What the model thinks, or says.
    Text(Channel, &'a str),
    /// What it wants called.
    Call(Call),
}

/// What an answer may hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Markup {
    /// Reasoning between these tags, at the answer's start.
    pub(crate) think: Option<ThinkTags>,
    /// The prompt's end has opened the reasoning already.
    pub(crate) thinking: bool,
    /// Tool calls.
    pub(crate) tools: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing but white space so far: a think tag may come.
    Start,
    /// In the reasoning.
    Reasoning { begun: bool },
    /// In the content. `begun` is false where white space at its start is dropped.
    Content { begun: bool },
    /// After an opening tool tag; `gap` is the white space before that.
    Call { gap: String, scanner: CallScanner },
}

/// Splits one answer.
#[derive(Debug)]
pub(crate) struct Splitter {
    markup: Markup,
    state: State,
    held: String,
}

impl Splitter {
    /// For an answer that may hold `markup`.
    pub(crate) fn new(markup: Markup) -> Self {
        let state = match markup {
            Markup { think: Some(_), thinking: true, .. } => State::Reasoning { begun: false },
            Markup { think: Some(_), .. } => State::Start,
            _ => State::Content { begun: true },
        };
        Self { markup, state, held: String::new() }
    }

    /// Whether the text just pushed was reasoning.
    pub(crate) fn is_reasoning(&self) -> bool {
        matches!(self.state, State::Reasoning { .. })
    }

    /// Whether a special token, which text leaves out otherwise, is markup here.
    pub(crate) fn wants(&self, special: &str) -> bool {
        let think = self.markup.think.unwrap_or(THINK_TAGS[0]);
        match self.state {
            State::Start => think.open.contains(special) || (self.markup.tools && special == OPEN),
            State::Reasoning { .. } => think.close.contains(special),
            State::Content { .. } => self.markup.tools && special == OPEN,
            State::Call { .. } => special == CLOSE,
        }
    }

    /// More text.
    pub(crate) fn push(&mut self, text: &str, part: &mut impl FnMut(Part<'_>)) {
        if let (State::Content { begun: true }, false) = (&self.state, self.markup.tools) {
            if !text.is_empty() {
                part(Part::Text(Channel::Content, text));
            }
            return;
        }
        self.held.push_str(text);
        while self.step(part) {}
    }

    /// The end of the answer: gives out what was held back, except markup cut short.
    pub(crate) fn finish(&mut self, part: &mut impl FnMut(Part<'_>)) {
        let held = std::mem::take(&mut self.held);
        match &self.state {
            State::Start | State::Content { begun: true } => {
                let tag = match self.state {
                    State::Start => self.markup.think.map_or("", |think| think.open),
                    _ if self.markup.tools => OPEN,
                    _ => "",
                };
                let kept = without_cut_tag(&held, tag);
                // White space before a tag is the tag's.
                let kept = if kept.len() < held.len() { trim_end(kept) } else { kept };
                give(Channel::Content, kept, part);
            }
            State::Content { begun: false } => {}
            State::Reasoning { .. } => {
                let close = self.markup.think.map_or("", |think| think.close);
                give(Channel::Reasoning, trim_end(without_cut_tag(&held, close)), part);
            }
            State::Call { gap, scanner } => {
                // The end may stand in for the closing tag.
                let text = &held[..held.len() - overlap(&held, CLOSE)];
                if let Some(call) = Call::parse(text) {
                    part(Part::Call(call));
                } else if scanner.quoted_close().is_some() {
                    let text = format!("{gap}{OPEN}{held}");
                    give(Channel::Content, &text, part);
                }
            }
        }
    }

    /// Does one thing with the held text; false when more must come first.
    fn step(&mut self, part: &mut impl FnMut(Part<'_>)) -> bool {
        let think = self.markup.think.unwrap_or(THINK_TAGS[0]);
        match &mut self.state {
            State::Start => {
                let text = trim_start(&self.held);
                if let Some(rest) = text.strip_prefix(think.open) {
                    self.held = rest.to_owned();
                    self.state = State::Reasoning { begun: false };
                    return true;
                }
                if think.open.starts_with(text) && self.held.len() - text.len() <= MOST_HELD_SPACE {
                    return false;
                }
                self.state = State::Content { begun: true };
                true
            }
            State::Reasoning { begun } => {
                if !*begun {
                    drop_start(&mut self.held);
                    *begun = !self.held.is_empty();
                }
                if let Some(end) = self.held.find(think.close) {
                    give(Channel::Reasoning, trim_end(&self.held[..end]), part);
                    self.held.drain(..end + think.close.len());
                    self.state = State::Content { begun: false };
                    return true;
                }
                give_settled(&mut self.held, think.close, Channel::Reasoning, part);
                false
            }
            State::Content { begun } => {
                if !*begun {
                    drop_start(&mut self.held);
                    if self.held.is_empty() {
                        return false;
                    }
                    *begun = true;
                }
                if !self.markup.tools {
                    give(Channel::Content, &self.held, part);
                    self.held.clear();
                    return false;
                }
                if let Some(at) = self.held.find(OPEN) {
                    let text = trim_end(&self.held[..at]);
                    let gap = self.held[text.len()..at].to_owned();
                    give(Channel::Content, text, part);
                    self.held.drain(..at + OPEN.len());
                    self.state = State::Call { gap, scanner: CallScanner::default() };
                    return true;
                }
                give_settled(&mut self.held, OPEN, Channel::Content, part);
                false
            }
            State::Call { gap, scanner } => {
                let Some(end) = scanner.find_end(&self.held) else { return false };
                let begun = match Call::parse(&self.held[..end]) {
                    Some(call) => {
                        part(Part::Call(call));
                        false
                    }
                    None => {
                        let text = format!("{gap}{OPEN}{}{CLOSE}", &self.held[..end]);
                        give(Channel::Content, &text, part);
                        true
                    }
                };
                self.held.drain(..end + CLOSE.len());
                self.state = State::Content { begun };
                true
            }
        }
    }
}

fn give(channel: Channel, text: &str, part: &mut impl FnMut(Part<'_>)) {
    if !text.is_empty() {
        part(Part::Text(channel, text));
    }
}

/// Gives out all of `held` but what could be the start of `tag`, and the white space before that.
fn give_settled(held: &mut String, tag: &str, channel: Channel, part: &mut impl FnMut(Part<'_>)) {
    let before = &held[..held.len() - overlap(held, tag)];
    let mut settled = trim_end(before).len();
    if before.len() - settled > MOST_HELD_SPACE {
        settled = before.len();
    }
    if settled > 0 {
        part(Part::Text(channel, &held[..settled]));
        held.drain(..settled);
    }
}

/// Bytes at the end of `text` that `tag` starts with.
fn overlap(text: &str, tag: &str) -> usize {
    let longest = tag.len().saturating_sub(1).min(text.len());
    (1..=longest).rev().find(|n| text.as_bytes().ends_with(&tag.as_bytes()[..*n])).unwrap_or(0)
}

/// Takes a cut tag off the end. One byte alone (`<`) is not taken for one.
fn without_cut_tag<'a>(text: &'a str, tag: &str) -> &'a str {
    match overlap(text, tag) {
        0 | 1 => text,
        cut => &text[..text.len() - cut],
    }
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_ascii_whitespace())
}

fn trim_end(text: &str) -> &str {
    text.trim_end_matches(|c: char| c.is_ascii_whitespace())
}

fn drop_start(text: &mut String) {
    let space = text.len() - trim_start(text).len();
    text.drain(..space);
}

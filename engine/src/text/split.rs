//! An answer's text into reasoning, content and tool calls; must not know tokens or stop strings.
//!
//! What comes out depends on the text alone, not on the pieces it comes in. Held back is only what could still be
//! markup: the start of a tag, and white space that would be dropped if a tag followed. Nothing is lost or changed
//! except markup and the white space next to it; a tag cut off by the end of the answer is not shown.

use std::{ops::Range, sync::Arc};

use mesh_proto::Channel;

use crate::text::{
    reader::{Part, Reader, Reading, Space},
    tools::{Offer, Read, harmony},
};

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

/// What an answer may hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Markup {
    /// How it is laid out.
    pub(crate) frame: Frame,
    /// The prompt's end has opened the reasoning already.
    pub(crate) thinking: bool,
    /// The tools that may be called.
    pub(crate) offer: Option<Arc<Offer>>,
}

/// How an answer is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Text, all of it.
    #[default]
    Raw,
    /// A message: reasoning first, where the model does, then content and calls.
    Message(Option<ThinkTags>),
    /// gpt-oss's channels.
    Harmony,
}

impl Frame {
    /// What opens the reasoning; `None` where there is none.
    pub(crate) fn reasoning_open(self) -> Option<&'static str> {
        match self {
            Self::Raw => None,
            Self::Message(think) => think.map(|tags| tags.open),
            Self::Harmony => Some(harmony::REASONING_OPEN),
        }
    }

    /// What closes the reasoning.
    pub(crate) fn reasoning_close(self) -> Option<&'static str> {
        match self {
            Self::Raw => None,
            Self::Message(think) => think.map(|tags| tags.close),
            Self::Harmony => Some(harmony::REASONING_CLOSE),
        }
    }
}

/// Splits one answer.
#[derive(Debug)]
pub(crate) struct Splitter {
    /// `None`: the text is content, all of it.
    reading: Option<Reading>,
}

impl Splitter {
    /// For an answer that may hold `markup`.
    pub(crate) fn new(markup: Markup) -> Self {
        let reading = match markup.frame {
            Frame::Raw => None,
            Frame::Message(think) => Some(Reading::new(|reader| message(reader, think, markup))),
            Frame::Harmony => Some(Reading::new(|reader| harmony::read(reader, markup.offer))),
        };
        Self { reading }
    }

    /// Whether the text just pushed was reasoning.
    pub(crate) fn is_reasoning(&self) -> bool {
        self.reading.as_ref().is_some_and(Reading::is_reasoning)
    }

    /// Whether special tokens may be markup here.
    pub(crate) fn has_markup(&self) -> bool {
        self.reading.is_some()
    }

    /// More text. `special`: where in it a special token stands, which counts as markup and never as text.
    pub(crate) fn push(&mut self, text: &str, special: Option<Range<usize>>, part: &mut impl FnMut(Part)) {
        match &mut self.reading {
            Some(reading) if !text.is_empty() => reading.push(text, special, part),
            None if !text.is_empty() => part(Part::Text(Channel::Content, text.to_owned())),
            _ => {}
        }
    }

    /// The end of the answer: gives out what was held back, except markup cut short.
    pub(crate) fn finish(&mut self, part: &mut impl FnMut(Part)) {
        if let Some(reading) = &mut self.reading {
            reading.finish(part);
        }
    }
}

async fn message(reader: Reader, think: Option<ThinkTags>, markup: Markup) {
    let mut begun = true;
    if let Some(tags) = think {
        let opened = markup.thinking || reader.ahead(&[tags.open]).await.is_some();
        if opened {
            if !markup.thinking {
                reader.space().await;
                reader.take(tags.open.len());
            }
            if !reasoning(&reader, tags.close).await {
                return;
            }
            begun = false;
        }
    }
    content(&reader, markup.offer.as_deref(), begun).await;
}

/// Reads the reasoning and what closes it; false at the end of the answer.
async fn reasoning(reader: &Reader, close: &str) -> bool {
    reader.set_reasoning(true);
    reader.space().await;
    let give = |text| reader.text(Channel::Reasoning, text);
    let closed = reader.stream(&[close], Space::DroppedAtEnd, give).await.is_some();
    if closed {
        reader.space().await;
        reader.take(close.len());
        reader.set_reasoning(false);
    }
    closed
}

/// Reads content and calls, to the end. `begun` is false where white space at the start is dropped.
async fn content(reader: &Reader, offer: Option<&Offer>, mut begun: bool) {
    let (opens, bare) = offer.map_or((&[][..], &[][..]), |offer| (offer.dialect.opens(), offer.dialect.bare()));
    let space = if offer.is_some() { Space::Dropped } else { Space::Kept };
    let mut first = !bare.is_empty();
    loop {
        if !begun {
            reader.space().await;
        }
        // A call without a tag is one only at the content's start.
        let opened = if std::mem::take(&mut first) && reader.ahead(bare).await.is_some() {
            Some("")
        } else {
            let give = |text| reader.text(Channel::Content, text);
            let which = reader.stream(opens, space, give).await;
            which.and_then(|which| opens.get(which).copied())
        };
        let (Some(open), Some(offer)) = (opened, offer) else { return };
        reader.attempt();
        reader.space().await;
        reader.take(open.len());
        begun = match offer.dialect.read(reader, offer, open).await {
            Read::Calls => false,
            Read::Nothing => {
                let text = reader.attempted();
                // What is not decided by the end is cut short.
                if !reader.is_over().await {
                    reader.text(Channel::Content, text.unwrap_or_default());
                }
                true
            }
        };
        reader.settle();
    }
}

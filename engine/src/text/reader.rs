//! Text that comes in pieces, read as if it were there: what the parsers of answers are written on; must not know any of them.
//!
//! A parser is an async function over a [`Reader`]. Where it must see more to decide, it waits; [`Reading::push`] brings
//! more and lets it go on. So what comes out depends on the text alone and not on the pieces it comes in, as long as a
//! parser decides by what the reader answers: each of its questions has the same answer however the text was cut.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use mesh_proto::Channel;

/// White space held back at most, in bytes; more is taken for what the model means (guess: no template has as much).
const MOST_HELD_SPACE: usize = 1024;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// What the model thinks, or says.
    Text(Channel, String),
    /// It calls a tool; the arguments follow.
    Call {
        /// The function.
        name: String,
        /// The call's id, where the model gives one.
        id: Option<String>,
    },
    /// More of the arguments of the call before: JSON text.
    Arguments(String),
}

/// What happens to white space before a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// It is part of the text.
    Kept,
    /// It is part of a value, of which nothing is shown that could be the tag.
    Value,
    /// The same, but for one line break, which goes with the tag.
    Line,
    /// All of it goes with the tag.
    Dropped,
    /// All of it goes, also where the answer ends without the tag.
    DroppedAtEnd,
}

#[derive(Default)]
struct Shared {
    /// What has come; consumed up to `at`.
    text: String,
    at: usize,
    /// Bytes of the answer before `text`.
    before: u64,
    /// Where special tokens stand, in bytes of the answer: seen when tags are looked for, never part of a text.
    special: VecDeque<Range<u64>>,
    /// Something came that the parser has not looked at.
    fresh: bool,
    /// Nothing more will come.
    over: bool,
    /// What has been consumed since an attempt began.
    attempt: Option<String>,
    reasoning: bool,
    parts: Vec<Part>,
}

impl Shared {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Consumes `bytes`; gives them without special tokens.
    fn take(&mut self, bytes: usize) -> String {
        let end = self.at.saturating_add(bytes).min(self.text.len());
        let (from, to) = (self.before + self.at as u64, self.before + end as u64);
        let mut taken = String::with_capacity(end - self.at);
        let mut at = from;
        while let Some(range) = self.special.front().cloned().filter(|range| range.start < to) {
            taken.push_str(self.slice(at..range.start.max(at)));
            at = range.end.clamp(at, to);
            if range.end > to {
                break;
            }
            self.special.pop_front();
        }
        taken.push_str(self.slice(at..to));
        self.at = end;
        if let Some(attempt) = &mut self.attempt {
            attempt.push_str(&taken);
        }
        taken
    }

    fn slice(&self, range: Range<u64>) -> &str {
        let index = |at: u64| at.saturating_sub(self.before) as usize;
        self.text.get(index(range.start)..index(range.end)).unwrap_or_default()
    }

    fn compact(&mut self) {
        self.before += self.at as u64;
        self.text.drain(..self.at);
        self.at = 0;
    }
}

/// A parser's end of the text.
#[derive(Clone, Default)]
pub(crate) struct Reader(Arc<Mutex<Shared>>);

impl Reader {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for more text; false when none will come.
    async fn more(&self) -> bool {
        poll_fn(|_| {
            let mut shared = self.lock();
            match (std::mem::take(&mut shared.fresh), shared.over) {
                (true, _) => Poll::Ready(true),
                (false, true) => Poll::Ready(false),
                (false, false) => Poll::Pending,
            }
        })
        .await
    }

    /// Looks at what has come until there is an answer; `None` when the text is over without one.
    async fn look<T>(&self, mut look: impl FnMut(&str) -> Option<T>) -> Option<T> {
        loop {
            let found = look(self.lock().rest());
            if found.is_some() {
                return found;
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next character; `None` at the end.
    pub(crate) async fn peek(&self) -> Option<char> {
        self.look(|rest| rest.chars().next()).await
    }

    /// Which of `tags` comes next; where several could, the first in the list. A tag that the end cuts short is dropped.
    pub(crate) async fn next(&self, tags: &[&str]) -> Option<usize> {
        let found = self.look(|rest| first_of(tags, rest)).await;
        if found.is_some() {
            return found.flatten();
        }
        let mut shared = self.lock();
        let rest = shared.rest();
        // At the end, the start of a tag no longer keeps a shorter one from being it.
        let found = tags.iter().position(|tag| rest.starts_with(tag));
        if found.is_none() {
            let length = rest.len();
            shared.take(length);
        }
        found
    }

    /// Which of `tags` comes next behind white space; nothing is consumed. At the end, a tag that is cut short counts as
    /// `None`, and is consumed with the space.
    pub(crate) async fn ahead(&self, tags: &[&str]) -> Option<usize> {
        let found = self.look(|rest| first_of(tags, trim_start(rest))).await;
        if found.is_none() {
            let mut shared = self.lock();
            let (rest, length) = (trim_start(shared.rest()), shared.rest().len());
            if rest.len() > 1 && tags.iter().any(|tag| tag.starts_with(rest)) {
                shared.take(length);
            }
        }
        found.flatten()
    }

    /// Consumes `tag` if it comes next.
    pub(crate) async fn eat(&self, tag: &str) -> bool {
        let found = self.next(&[tag]).await.is_some();
        if found {
            self.take(tag.len());
        }
        found
    }

    /// Consumes so many bytes, which have been seen; gives them without special tokens.
    pub(crate) fn take(&self, bytes: usize) -> String {
        self.lock().take(bytes)
    }

    /// Consumes white space.
    pub(crate) async fn space(&self) {
        self.look(|rest| rest.find(|c: char| !c.is_ascii_whitespace())).await;
        let mut shared = self.lock();
        let space = shared.rest().len() - trim_start(shared.rest()).len();
        shared.take(space);
    }

    /// Consumes characters as long as `wanted` says so, which are what `take` makes of them. False at the end.
    pub(crate) async fn scan(&self, mut wanted: impl FnMut(char) -> bool, mut take: impl FnMut(String)) -> bool {
        loop {
            let (text, ended) = {
                let mut shared = self.lock();
                let rest = shared.rest();
                let end = rest.find(|c: char| !wanted(c));
                let length = end.unwrap_or(rest.len());
                (shared.take(length), end.is_some())
            };
            if !text.is_empty() {
                take(text);
            }
            if ended {
                return true;
            }
            if !self.more().await {
                return false;
            }
        }
    }

    /// Streams text up to the first of `tags`, and says which; the tag and the white space that goes with it stay to be
    /// consumed. At the end of the answer `None`: a tag cut short is dropped then.
    pub(crate) async fn stream(&self, tags: &[&str], space: Space, mut give: impl FnMut(String)) -> Option<usize> {
        loop {
            let (text, found) = {
                let mut shared = self.lock();
                let rest = shared.rest();
                let found = tags.iter().enumerate().filter_map(|(which, tag)| Some((rest.find(tag)?, which))).min();
                let end = match found {
                    Some((at, _)) => at,
                    None => rest.len() - longest_overlap(rest, tags),
                };
                let settled = space.before(rest.get(..end).unwrap_or_default());
                (shared.take(settled), found)
            };
            if !text.is_empty() {
                give(text);
            }
            if let Some((_, which)) = found {
                return Some(which);
            }
            if !self.more().await {
                break;
            }
        }
        let text = {
            let mut shared = self.lock();
            let rest = shared.rest();
            // One byte alone (`<`) is not taken for a tag in a text.
            let least = if matches!(space, Space::Value | Space::Line) { 1 } else { 2 };
            let cut = Some(longest_overlap(rest, tags)).filter(|cut| *cut >= least).unwrap_or(0);
            let end = rest.len() - cut;
            let kept = match space {
                Space::Kept | Space::Value => end,
                Space::Line => space.before(rest.get(..end).unwrap_or_default()),
                Space::Dropped if cut == 0 => end,
                Space::Dropped | Space::DroppedAtEnd => trim_end(rest.get(..end).unwrap_or_default()).len(),
            };
            let text = shared.take(kept);
            let rest = shared.rest().len();
            shared.take(rest);
            text
        };
        if !text.is_empty() {
            give(text);
        }
        None
    }

    /// Text up to the first of `tags`, which is consumed too. `None` beyond `most` bytes, and at the end, which is consumed.
    pub(crate) async fn until(&self, tags: &[&str], most: usize) -> Option<(String, usize)> {
        let found = self.look(|rest| {
            let found = tags.iter().enumerate().filter_map(|(which, tag)| Some((rest.find(tag)?, which))).min();
            match found {
                Some((at, which)) if at <= most => Some(Some((at, which))),
                None if rest.len() <= most + tags.iter().map(|tag| tag.len()).max().unwrap_or(0) => None,
                _ => Some(None),
            }
        });
        let Some(found) = found.await else {
            // What is awaited at the end is cut short.
            self.take_all();
            return None;
        };
        let (at, which) = found?;
        let text = self.take(at);
        self.take(tags.get(which).map_or(0, |tag| tag.len()));
        Some((text, which))
    }

    /// [`Reader::until`] one tag, special tokens included.
    pub(crate) async fn raw_until(&self, tag: &str, most: usize) -> Option<String> {
        let found = self.look(|rest| match rest.find(tag) {
            Some(at) => Some(Some(at)),
            None => (rest.len() > most + tag.len()).then_some(None),
        });
        let at = found.await.flatten()?;
        let raw = self.lock().rest().get(..at).map(str::to_owned);
        self.take(at + tag.len());
        raw
    }

    /// Whether so many bytes have come and are not consumed.
    pub(crate) fn holds_more_than(&self, bytes: usize) -> bool {
        self.lock().rest().len() > bytes
    }

    /// Consumes all that has come.
    pub(crate) fn take_all(&self) {
        self.take(usize::MAX);
    }

    /// Whether the text is over and consumed.
    pub(crate) async fn is_over(&self) -> bool {
        self.peek().await.is_none()
    }

    /// From here on, what is consumed can be given back.
    pub(crate) fn attempt(&self) {
        self.lock().attempt = Some(String::new());
    }

    /// What was consumed since [`Reader::attempt`] is settled.
    pub(crate) fn settle(&self) {
        self.lock().attempt = None;
    }

    /// What was consumed since [`Reader::attempt`], if it is not settled.
    pub(crate) fn attempted(&self) -> Option<String> {
        self.lock().attempt.take()
    }

    /// Gives out text.
    pub(crate) fn text(&self, channel: Channel, text: String) {
        if !text.is_empty() {
            self.lock().parts.push(Part::Text(channel, text));
        }
    }

    /// Gives out a call, and settles the attempt at it.
    pub(crate) fn call(&self, name: String, id: Option<String>) {
        let mut shared = self.lock();
        shared.attempt = None;
        shared.parts.push(Part::Call { name, id });
    }

    /// Gives out more of the call's arguments.
    pub(crate) fn arguments(&self, text: impl Into<String>) {
        let text = text.into();
        if !text.is_empty() {
            self.lock().parts.push(Part::Arguments(text));
        }
    }

    /// Says whether what comes next is reasoning.
    pub(crate) fn set_reasoning(&self, reasoning: bool) {
        self.lock().reasoning = reasoning;
    }
}

impl Space {
    /// How much of `text`, which may go on with a tag, is settled.
    fn before(self, text: &str) -> usize {
        match self {
            Self::Kept | Self::Value => text.len(),
            Self::Line => text.strip_suffix('\n').unwrap_or(text).len(),
            Self::Dropped | Self::DroppedAtEnd => trim_end(text).len().max(text.len().saturating_sub(MOST_HELD_SPACE)),
        }
    }
}

/// Which of `tags` the text starts with; `None` when more of it must come.
fn first_of(tags: &[&str], text: &str) -> Option<Option<usize>> {
    for (which, tag) in tags.iter().enumerate() {
        if text.starts_with(tag) {
            return Some(Some(which));
        }
        if tag.starts_with(text) {
            return None;
        }
    }
    Some(None)
}

/// Bytes at the end of `text` that one of `tags` starts with.
fn longest_overlap(text: &str, tags: &[&str]) -> usize {
    tags.iter().map(|tag| overlap(text, tag)).max().unwrap_or(0)
}

/// Bytes at the end of `text` that `tag` starts with.
fn overlap(text: &str, tag: &str) -> usize {
    let longest = tag.len().saturating_sub(1).min(text.len());
    (1..=longest).rev().find(|n| text.as_bytes().ends_with(tag.as_bytes().get(..*n).unwrap_or_default())).unwrap_or(0)
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(|c: char| c.is_ascii_whitespace())
}

fn trim_end(text: &str) -> &str {
    text.trim_end_matches(|c: char| c.is_ascii_whitespace())
}

type Parser = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One text being read by one parser.
pub(crate) struct Reading {
    reader: Reader,
    /// `None` once it has returned. The lock is never taken: it makes this `Sync`.
    parser: Option<Mutex<Parser>>,
}

impl Reading {
    /// Starts a parser.
    pub(crate) fn new<F: Future<Output = ()> + Send + 'static>(parser: impl FnOnce(Reader) -> F) -> Self {
        let reader = Reader::default();
        let future: Parser = Box::pin(parser(reader.clone()));
        let mut reading = Self { reader, parser: Some(Mutex::new(future)) };
        reading.go_on();
        reading
    }

    /// More text, in which special tokens stand at `special`; the parts that it settles go to `part`.
    pub(crate) fn push(&mut self, text: &str, special: Option<Range<usize>>, part: &mut impl FnMut(Part)) {
        {
            let mut shared = self.reader.lock();
            shared.compact();
            let end = shared.before + shared.text.len() as u64;
            if let Some(Range { start, end: stop }) = special {
                shared.special.push_back(end + start as u64..end + stop as u64);
            }
            shared.text.push_str(text);
            shared.fresh = true;
        }
        self.go_on();
        self.tell(part);
    }

    /// The text ends here.
    pub(crate) fn finish(&mut self, part: &mut impl FnMut(Part)) {
        self.reader.lock().over = true;
        self.go_on();
        self.tell(part);
    }

    /// Whether what comes next is reasoning.
    pub(crate) fn is_reasoning(&self) -> bool {
        self.reader.lock().reasoning
    }

    fn go_on(&mut self) {
        let Some(parser) = &mut self.parser else { return };
        let parser = parser.get_mut().unwrap_or_else(PoisonError::into_inner);
        if parser.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            self.parser = None;
        }
    }

    fn tell(&mut self, part: &mut impl FnMut(Part)) {
        let parts = std::mem::take(&mut self.reader.lock().parts);
        parts.into_iter().for_each(part);
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.reader.lock();
        f.debug_struct("Reading").field("held", &shared.rest()).field("over", &shared.over).finish_non_exhaustive()
    }
}

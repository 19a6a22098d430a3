//! The bytes of an answer, sent as well or as badly as the rules say; must not know where they belong.

use std::{future::pending, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;

use crate::{
    Content,
    count::{Line, Live},
};

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Bytes of one piece at most.
const PIECE: usize = 64 * 1024;
/// How long a connection stays open after the last byte before a cut: hyper drops what it has not written by then.
const FLUSH: Duration = Duration::from_millis(50);
/// Pieces a second of a throttled answer.
const BEATS: u64 = 20;

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A part of a file, and what goes wrong with it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) content: Content,
    /// The next byte, and the first one that is not sent.
    pub(crate) range: std::ops::Range<u64>,
    /// Bytes until the connection is cut.
    pub(crate) cut: Option<u64>,
    /// Bytes until nothing comes any more.
    pub(crate) stall: Option<u64>,
    /// Bytes a second.
    pub(crate) rate: Option<u64>,
    /// The offset of a wrong byte.
    pub(crate) corrupt: Option<u64>,
    pub(crate) live: Arc<Live>,
    pub(crate) _line: Line,
}

impl Flow {
    pub(crate) fn body(self) -> Body {
        let pieces = stream::unfold(Some(self), |flow| async {
            let mut flow = flow?;
            match flow.next().await {
                Ok(piece) if piece.is_empty() => None,
                Ok(piece) => Some((Ok(Frame::data(piece)), Some(flow))),
                Err(cause) => Some((Err(cause), None)),
            }
        });
        StreamBody::new(pieces).boxed_unsync()
    }

    async fn next(&mut self) -> io::Result<Bytes> {
        if self.stall == Some(0) {
            pending::<()>().await;
        }
        if self.cut == Some(0) {
            tokio::time::sleep(FLUSH).await;
            return Err(io::Error::other("cut by rule"));
        }
        let mut most = self.range.end.saturating_sub(self.range.start);
        for limit in [self.stall, self.cut, self.rate.map(|rate| rate.div_ceil(BEATS))].into_iter().flatten() {
            most = most.min(limit.max(1));
        }
        let most = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
        let mut piece = self.content.read(self.range.start, most)?;
        if let Some(rate) = self.rate {
            tokio::time::sleep(Duration::from_secs_f64(piece.len() as f64 / rate.max(1) as f64)).await;
        }
        if let Some(place) = self.corrupt.and_then(|offset| offset.checked_sub(self.range.start))
            && let Some(byte) = usize::try_from(place).ok().filter(|place| *place < piece.len())
        {
            let mut damaged = piece.to_vec();
            damaged[byte] ^= 0x01;
            piece = damaged.into();
        }
        let sent = piece.len() as u64;
        self.range.start += sent;
        for limit in [&mut self.stall, &mut self.cut] {
            *limit = limit.map(|left| left.saturating_sub(sent));
        }
        self.live.sent(piece.len());
        Ok(piece)
    }
}

/// A JSON list of file entries that is longer than anybody should read.
pub(crate) fn huge_json(bytes: u64, live: Arc<Live>) -> Body {
    let entries = stream::unfold(Some((0, live)), move |state| async move {
        let (sent, live) = state?;
        let mut piece = String::with_capacity(PIECE);
        if sent == 0 {
            piece.push('[');
        }
        while piece.len() < PIECE - 200 {
            let number = sent + piece.len() as u64;
            piece.push_str(&format!(r#"{{"type":"file","oid":"{number:040x}","size":1,"path":"file-{number}.txt"}},"#));
        }
        let more = sent + (piece.len() as u64) < bytes;
        if !more {
            piece.pop();
            piece.push(']');
        }
        live.sent(piece.len());
        let sent = sent + piece.len() as u64;
        Some((Ok(Frame::data(Bytes::from(piece))), more.then_some((sent, live))))
    });
    StreamBody::new(entries).boxed_unsync()
}

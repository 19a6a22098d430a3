//! Frames on a QUIC stream: a length, then so many bytes; must not know what they say.

use iroh::endpoint::{RecvStream, SendStream};
use mesh_proto::{
    codec::{self, CodecError, Wire},
    infer::PREFIX,
};
use thiserror::Error;

/// A frame's buffer grows with what has come, from this on: its length is only a claim.
const FIRST_READ: usize = 64 << 10;

/// Why there is no next frame.
#[derive(Debug, Error)]
pub(crate) enum FrameError {
    #[error("the stream broke: {0}")]
    Broken(String),
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Length and bytes of a frame.
pub(crate) fn framed<T: Wire>(value: &T) -> Result<Vec<u8>, CodecError> {
    let body = codec::encode(value)?;
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(PREFIX + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Sends a frame; waits where the other end does not read.
pub(crate) async fn write<T: Wire>(stream: &mut SendStream, value: &T) -> Result<(), FrameError> {
    let frame = framed(value)?;
    stream.write_all(&frame).await.map_err(|error| FrameError::Broken(error.to_string()))
}

/// A frame's length, checked against what its kind may have; `None` at a clean end.
pub(crate) async fn length<T: Wire>(stream: &mut RecvStream) -> Result<Option<usize>, FrameError> {
    let mut prefix = [0; PREFIX];
    let mut have = 0;
    while let Some(rest) = prefix.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest).await.map_err(|error| FrameError::Broken(error.to_string()))? {
            Some(read) => have += read,
            None if have == 0 => return Ok(None),
            None => return Err(FrameError::Broken("it ended within a frame's length".into())),
        }
    }
    let found = u32::from_le_bytes(prefix) as usize;
    if found > T::LIMIT {
        return Err(CodecError::TooLong { what: T::NAME, found, limit: T::LIMIT }.into());
    }
    Ok(Some(found))
}

/// The frame behind its length.
pub(crate) async fn body<T: Wire>(stream: &mut RecvStream, length: usize) -> Result<T, FrameError> {
    let mut bytes = Vec::with_capacity(length.min(FIRST_READ));
    while bytes.len() < length {
        match stream.read_chunk(length - bytes.len()).await.map_err(|error| FrameError::Broken(error.to_string()))? {
            Some(chunk) => bytes.extend_from_slice(&chunk),
            None => return Err(FrameError::Broken("it ended within a frame".into())),
        }
    }
    Ok(codec::decode(&bytes)?)
}

/// The next frame; `None` at a clean end.
pub(crate) async fn read<T: Wire>(stream: &mut RecvStream) -> Result<Option<T>, FrameError> {
    match length::<T>(stream).await? {
        Some(length) => body(stream, length).await.map(Some),
        None => Ok(None),
    }
}

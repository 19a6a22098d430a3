//! The one place where values become bytes: a version byte, then bincode; must not know what the values mean.
//!
//! ```text
//! byte 0      codec version, 1
//! byte 1 …    bincode 2 `standard()`: little endian, varint integers, enum variant as varint, fields in order
//! ```
//!
//! A type that crosses the wire implements [`Wire`]: its limit is checked before a byte is looked at, its caps
//! after. Bytes left over are an error. Integers have several varint forms, so a signature is always made and
//! checked over bytes as they came, never over a re-encoding ([`crate::identity::Signed`]).
//!
//! Released structs are frozen, since bincode has no field names. What is added later goes into an [`Ext`] that
//! older builds carry and skip, or into a new variant at an enum's end, which older builds report as
//! [`CodecError::UnknownVariant`] and drop.

mod bounded;
mod ext;

pub use bounded::{at_most, weighed};
pub use ext::Ext;

use bincode::config;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// First byte of everything encoded here.
pub const VERSION: u8 = 1;

/// Bytes that bincode may claim while decoding one value. Guess: four times the largest frame of the control
/// protocols. Costs nothing; a hostile length prefix is refused before it allocates.
const CLAIM_LIMIT: usize = 1 << 20;
/// The same for values whose [`Wire::LIMIT`] is larger, and so the largest there can be. A hostile length prefix can
/// make it allocate so much for a moment, untouched.
const LARGE_CLAIM_LIMIT: usize = 64 << 20;

/// A value that crosses a process border.
pub trait Wire: Serialize + DeserializeOwned {
    /// For errors and metrics, e.g. `record`.
    const NAME: &'static str;
    /// Most bytes of the encoded value, version byte included.
    const LIMIT: usize;
    /// For an enum: how many variants this build knows (below 251, so that one byte tells). 0: not an enum.
    const VARIANTS: u8 = 0;

    /// Caps on counts and lengths, checked after decoding and before encoding.
    ///
    /// # Errors
    /// Names the first cap that is broken.
    fn check(&self) -> Result<(), CapError> {
        Ok(())
    }
}

/// A count or a length beyond its cap, or one that must not be nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{field} has {found}, {} are allowed", if *found > *cap { format!("at most {cap}") } else { format!("1 to {cap}") })]
pub struct CapError {
    /// Which field.
    pub field: &'static str,
    /// What was found.
    pub found: usize,
    /// The most that is allowed.
    pub cap: usize,
}

/// Checks one cap.
///
/// # Errors
/// When `found` exceeds `cap`.
pub fn cap(field: &'static str, found: usize, cap: usize) -> Result<(), CapError> {
    if found > cap { Err(CapError { field, found, cap }) } else { Ok(()) }
}

/// Checks a cap of what must not be empty either.
///
/// # Errors
/// When `found` is 0 or exceeds `cap`.
pub fn some(field: &'static str, found: usize, cap: usize) -> Result<(), CapError> {
    if (1..=cap).contains(&found) { Ok(()) } else { Err(CapError { field, found, cap }) }
}

/// Why bytes are no value of the expected type, or a value cannot become bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// Nothing there.
    #[error("{what}: no bytes")]
    Empty {
        /// The expected type.
        what: &'static str,
    },
    /// Longer than its kind may be; nothing was decoded.
    #[error("{what}: {found} bytes, at most {limit} are allowed")]
    TooLong {
        /// The expected type.
        what: &'static str,
        /// Bytes there.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Made by a build with another major version.
    #[error("{what}: codec version {found}, this build speaks {VERSION}")]
    Version {
        /// The expected type.
        what: &'static str,
        /// The version byte.
        found: u8,
    },
    /// Made by a newer build: a variant that this one does not know. Skip it.
    #[error("{what}: unknown variant {found}")]
    UnknownVariant {
        /// The expected type.
        what: &'static str,
        /// The variant's byte.
        found: u8,
    },
    /// Not a value of this type.
    #[error("{what}: malformed")]
    Malformed {
        /// The expected type.
        what: &'static str,
    },
    /// A value, and then more bytes.
    #[error("{what}: {extra} bytes after the end")]
    Trailing {
        /// The expected type.
        what: &'static str,
        /// How many.
        extra: usize,
    },
    /// A list or a string is too long.
    #[error("{what}: {cap}")]
    Cap {
        /// The expected type.
        what: &'static str,
        /// Which, and by how much.
        cap: CapError,
    },
}

impl CodecError {
    /// One word for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "empty",
            Self::TooLong { .. } => "too_long",
            Self::Version { .. } => "version",
            Self::UnknownVariant { .. } => "unknown_variant",
            Self::Malformed { .. } => "malformed",
            Self::Trailing { .. } => "trailing",
            Self::Cap { .. } => "cap",
        }
    }
}

/// A value's bytes.
///
/// # Errors
/// When its caps or its limit are broken: nothing is sent that others would refuse.
pub fn encode<T: Wire>(value: &T) -> Result<Vec<u8>, CodecError> {
    let what = T::NAME;
    value.check().map_err(|cap| CodecError::Cap { what, cap })?;
    let mut bytes = vec![VERSION];
    let written = bincode::serde::encode_into_std_write(value, &mut bytes, config::standard());
    written.map_err(|_| CodecError::Malformed { what })?;
    if bytes.len() > T::LIMIT {
        return Err(CodecError::TooLong { what, found: bytes.len(), limit: T::LIMIT });
    }
    Ok(bytes)
}

/// The value that `bytes`, all of them, stand for. Never panics, and allocates in proportion to their number.
///
/// # Errors
/// Says what is wrong; [`CodecError::UnknownVariant`] is a newer build's word and no offence.
pub fn decode<T: Wire>(bytes: &[u8]) -> Result<T, CodecError> {
    let what = T::NAME;
    if bytes.len() > T::LIMIT {
        return Err(CodecError::TooLong { what, found: bytes.len(), limit: T::LIMIT });
    }
    let (&version, body) = bytes.split_first().ok_or(CodecError::Empty { what })?;
    if version != VERSION {
        return Err(CodecError::Version { what, found: version });
    }
    if let Some(&found) = body.first()
        && T::VARIANTS > 0
        && (T::VARIANTS..251).contains(&found)
    {
        return Err(CodecError::UnknownVariant { what, found });
    }
    let decoded = if T::LIMIT <= CLAIM_LIMIT {
        bincode::serde::decode_from_slice::<T, _>(body, config::standard().with_limit::<CLAIM_LIMIT>())
    } else {
        bincode::serde::decode_from_slice::<T, _>(body, config::standard().with_limit::<LARGE_CLAIM_LIMIT>())
    };
    let (value, used) = decoded.map_err(|_| CodecError::Malformed { what })?;
    if used < body.len() {
        return Err(CodecError::Trailing { what, extra: body.len() - used });
    }
    value.check().map_err(|cap| CodecError::Cap { what, cap })?;
    Ok(value)
}

/// Bytes that are shared, as a `Vec<u8>` travels. serde reads and writes a vector of bytes one by one, which took a
/// quarter of the time in which a node takes a record.
pub(crate) mod shared {
    use std::{fmt, sync::Arc};

    use serde::{
        Deserializer, Serializer,
        de::{SeqAccess, Visitor},
    };

    pub(crate) fn serialize<S: Serializer>(bytes: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
        deserializer.deserialize_bytes(Shared)
    }

    struct Shared;

    impl<'de> Visitor<'de> for Shared {
        type Value = Arc<[u8]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Arc<[u8]>, E> {
            Ok(bytes.into())
        }

        /// Formats without bytes of their own, such as JSON.
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Arc<[u8]>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = list.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes.into())
        }
    }
}

/// A signature's 64 bytes, as 64 bytes: serde's own arrays end at 32.
pub(crate) mod bytes64 {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 64], serializer: S) -> Result<S::Ok, S::Error> {
        let mut halves = [[0u8; 32]; 2];
        halves[0].copy_from_slice(&bytes[..32]);
        halves[1].copy_from_slice(&bytes[32..]);
        halves.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 64], D::Error> {
        let halves = <[[u8; 32]; 2]>::deserialize(deserializer)?;
        let mut bytes = [0u8; 64];
        bytes[..32].copy_from_slice(&halves[0]);
        bytes[32..].copy_from_slice(&halves[1]);
        Ok(bytes)
    }
}

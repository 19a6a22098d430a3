//! Lists that end where their cap does, while they are read; must not know what they hold.
//!
//! A value's caps are looked at when it is whole. Where elements take much more memory than bytes on the wire, that is too
//! late: 33 MiB of empty messages would be a gigabyte by then.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

/// Elements for which room is made before they have come.
const FIRST: usize = 64;

/// For `#[serde(deserialize_with = …)]`: a list of at most `N` elements; one more is an error.
///
/// # Errors
/// When there are more, or one of them is none.
pub fn at_most<'de, const N: usize, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    weighed(deserializer, N, |_| 1)
}

/// A list whose elements together weigh at most so much; so lists within them can be counted too.
///
/// # Errors
/// When they weigh more, or one of them is none.
pub fn weighed<'de, T, D>(deserializer: D, most: usize, weigh: fn(&T) -> usize) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_seq(Bounded { most, weigh, kind: PhantomData })
}

struct Bounded<T> {
    most: usize,
    weigh: fn(&T) -> usize,
    kind: PhantomData<fn() -> T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {}", self.most)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut elements = Vec::with_capacity(list.size_hint().unwrap_or(0).min(self.most).min(FIRST));
        let mut weight = 0usize;
        while let Some(element) = list.next_element()? {
            weight = weight.saturating_add((self.weigh)(&element));
            if weight > self.most {
                return Err(A::Error::invalid_length(weight, &self));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

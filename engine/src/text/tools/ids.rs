//! Ids of calls that the model gave none; must not know what is called.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// A call's id: `call_` and 24 letters and digits. Never twice in a process; in two processes as likely as two equal
/// 128-bit random numbers.
pub(crate) fn new_id() -> String {
    format!("call_{}", digits(24))
}

/// An id as Mistral's templates want it: 9 letters and digits, which is 53 random bits.
pub(super) fn new_short_id() -> String {
    digits(9)
}

fn digits(length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    // The count itself is in the digits (scrambled by an odd factor, which loses nothing), so none comes twice.
    let unique = count.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ KEYS[0].hash_one(0u8);
    let mut number = (u128::from(unique) << 64) | u128::from(KEYS[1].hash_one(count));
    let mut id = String::with_capacity(length);
    for _ in 0..length {
        id.push(char::from(ALPHABET[(number % 62) as usize]));
        number /= 62;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_differ_and_have_the_shape_that_clients_expect() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| new_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 29 && id[5..].bytes().all(|b| b.is_ascii_alphanumeric())));
        let short: std::collections::HashSet<String> = (0..1000).map(|_| new_short_id()).collect();
        assert!(short.len() == 1000 && short.iter().all(|id| id.len() == 9));
    }
}

//! What every engine sees to before it takes a request in; must not know how it is computed.

use std::hash::{BuildHasher, RandomState};

use jiff::{Timestamp, Zoned, civil::DateTime, tz::TimeZone};
use mesh_proto::{GenerateError, GenerateRequest, TokenId};

/// Whether an answer can go on from the tokens that a request brings.
///
/// # Errors
/// `Invalid`, naming `resume`.
pub fn check_resume(request: &GenerateRequest, vocab_size: u32) -> Result<(), GenerateError> {
    in_vocabulary("resume", &request.resume, vocab_size)?;
    if !request.resume.is_empty() && request.sampling.seed.is_none() && !request.sampling.is_greedy() {
        let message = "sampling goes on as it began only with the seed it began with: send that, or temperature 0";
        return Err(GenerateError::invalid("resume", message));
    }
    Ok(())
}

/// Whether all tokens of a field are in the vocabulary.
///
/// # Errors
/// `Invalid`, naming the field and the first token that is not.
pub fn in_vocabulary(field: &str, tokens: &[TokenId], vocab_size: u32) -> Result<(), GenerateError> {
    match tokens.iter().find(|token| token.0 >= vocab_size) {
        None => Ok(()),
        Some(token) => Err(GenerateError::invalid(field, format!("token {} is not in the vocabulary", token.0))),
    }
}

/// What clocks show where the request was made, or here.
///
/// # Errors
/// `Invalid`, where the seconds are no time.
pub fn local_time(said: Option<i64>) -> Result<DateTime, GenerateError> {
    let Some(seconds) = said else { return Ok(Zoned::now().datetime()) };
    let time = Timestamp::from_second(seconds);
    let time = time.map_err(|_| GenerateError::invalid("local_time_s", "not a time"))?;
    Ok(time.to_zoned(TimeZone::UTC).datetime())
}

/// A seed for a request without one: 64 bits of the standard library's randomness.
pub fn draw_seed() -> u64 {
    RandomState::new().hash_one(())
}

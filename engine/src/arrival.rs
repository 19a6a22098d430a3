//! What every engine sees to before it takes a request in; must not know how it is computed.

use std::hash::{BuildHasher, RandomState};

use jiff::{Timestamp, Zoned, civil::DateTime, tz::TimeZone};
use mesh_proto::{Constraint, GenerateError, GenerateRequest, Sampling, TokenId};

/// Whether a request can be taken in where the vocabulary is this large; says what clocks show where it was made.
///
/// # Errors
/// `Invalid`, naming the field.
pub fn check(request: &GenerateRequest, vocab_size: u32) -> Result<DateTime, GenerateError> {
    check_resume(request, vocab_size)?;
    check_sampling(&request.sampling)?;
    local_time(request.local_time_s)
}

/// Whether an answer can go on from the tokens that a request brings.
fn check_resume(request: &GenerateRequest, vocab_size: u32) -> Result<(), GenerateError> {
    in_vocabulary("resume", &request.resume, vocab_size)?;
    if !request.resume.is_empty() && request.sampling.seed.is_none() && request.sampling.draws() {
        let message = "sampling goes on as it began only with the seed it began with: send that, or temperature 0";
        return Err(GenerateError::invalid("resume", message));
    }
    Ok(())
}

/// Whether sampling parameters are numbers with which one can compute. What clients may ask for is the API's to say;
/// this holds for peers too.
fn check_sampling(sampling: &Sampling) -> Result<(), GenerateError> {
    let (tiny, any) = (f32::MIN_POSITIVE, f32::MAX);
    let dry = sampling.dry.as_ref();
    let ranges = [
        ("temperature", sampling.temperature, 0.0, any),
        ("top_p", sampling.top_p, tiny, any),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("typical_p", sampling.typical_p, tiny, any),
        ("repetition_penalty", sampling.repetition_penalty, tiny, any),
        ("presence_penalty", sampling.presence_penalty, f32::MIN, any),
        ("frequency_penalty", sampling.frequency_penalty, f32::MIN, any),
        ("xtc_probability", sampling.xtc_probability, 0.0, any),
        ("xtc_threshold", sampling.xtc_threshold, 0.0, any),
        ("dry_multiplier", dry.map_or(1.0, |dry| dry.multiplier), 0.0, any),
        ("dry_base", dry.map_or(1.0, |dry| dry.base), 1.0, any),
    ];
    if let Some((field, value, ..)) = ranges.iter().find(|(_, value, least, most)| !(least..=most).contains(&value)) {
        return Err(GenerateError::invalid(*field, format!("`{field}` cannot be {value}")));
    }
    // A ban is minus infinity; plus infinity would make the other probabilities no numbers.
    let wrong = |bias: f32| bias.is_nan() || bias == f32::INFINITY;
    match sampling.logit_bias.iter().find(|bias| wrong(bias.bias)) {
        Some(bias) => {
            let message = format!("`logit_bias` of token {} cannot be {}", bias.token.0, bias.bias);
            Err(GenerateError::invalid("logit_bias", message))
        }
        None => Ok(()),
    }
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

/// Which of a request's fields its answer's grammar comes from.
pub fn field_of_grammar(request: &GenerateRequest) -> &'static str {
    match &request.constraint {
        Some(Constraint::JsonObject) => "response_format",
        Some(Constraint::JsonSchema(_)) => "response_format.json_schema.schema",
        Some(Constraint::Regex(_)) => "regex",
        Some(Constraint::Lark(_)) => "lark",
        None => "tools",
    }
}

/// What clocks show where the request was made, or here.
fn local_time(said: Option<i64>) -> Result<DateTime, GenerateError> {
    let Some(seconds) = said else { return Ok(Zoned::now().datetime()) };
    let time = Timestamp::from_second(seconds);
    let time = time.map_err(|_| GenerateError::invalid("local_time_s", "not a time"))?;
    Ok(time.to_zoned(TimeZone::UTC).datetime())
}

/// A seed for a request without one: 64 bits of the standard library's randomness.
pub fn draw_seed() -> u64 {
    RandomState::new().hash_one(())
}

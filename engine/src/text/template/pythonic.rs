//! What chat templates expect of Python and of transformers' Jinja environment; must not know conversations.

use jiff::civil::DateTime;
use minijinja::{
    Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Rest, ValueKind, from_args},
};
use minijinja_contrib::pycompat;

use super::{json, rewrite};

/// What a template said through `raise_exception`; lies among the sources of the error it caused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Raised(pub(crate) String);

/// The environment that transformers gives to chat templates.
///
/// # Errors
/// None that the fixed syntax settings could cause.
pub(crate) fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(method);
    environment.set_formatter(print);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter(rewrite::EACH, each);
    environment.add_filter(rewrite::REVERSED, reversed);
    environment.add_function(rewrite::SUM, sum);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    // Python: what has a length and can be indexed; what can be iterated; `True` is a number.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Bytes)
    });
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    Ok(environment)
}

/// What a loop runs over: anything but `None`, which minijinja would take for an empty list.
fn each(value: Value) -> Result<Value, Error> {
    match value.is_none() {
        true => Err(Error::new(ErrorKind::InvalidOperation, "'NoneType' object is not iterable")),
        false => Ok(value),
    }
}

/// A string or a list from its end to its start.
fn reversed(value: Value) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => Ok(Value::from(text.chars().rev().collect::<String>())),
        None => {
            let mut items: Vec<Value> = each(value)?.try_iter()?.collect();
            items.reverse();
            Ok(Value::from(items))
        }
    }
}

/// Strings added as Python's markupsafe does: from the first safe one on, those that are not are escaped.
fn sum(terms: Rest<Value>) -> Result<Value, Error> {
    let escape = |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        text.replace('\'', "&#39;").replace('"', "&#34;")
    };
    let mut sum = String::new();
    let mut safe = false;
    for term in terms.iter() {
        let text = term.as_str().ok_or_else(|| {
            Error::new(ErrorKind::InvalidOperation, format!("cannot add {} to a string", term.kind()))
        })?;
        if term.is_safe() && !safe {
            sum = escape(&sum);
        }
        sum.push_str(&if safe && !term.is_safe() { escape(text) } else { text.to_owned() });
        safe |= term.is_safe();
    }
    Ok(if safe { Value::from_safe_string(sum) } else { Value::from(sum) })
}

/// `strftime_now(format)`, at a fixed time.
pub(crate) fn strftime_now(now: DateTime) -> Value {
    Value::from_function(move |format: String| {
        jiff::fmt::strtime::format(&format, now)
            .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {error}")))
    })
}

/// Prints as Python's `str` does. Values print themselves so already, floats with exponents apart.
fn print(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let written = if value.kind() == ValueKind::Number && !value.is_integer() {
        out.write_str(&json::float(f64::try_from(value.clone())?, false))
    } else if let Some(text) = value.as_str() {
        out.write_str(text)
    } else {
        write!(out, "{value}")
    };
    written.map_err(Error::from)
}

/// Python's methods: minijinja's own set, and those it lacks.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let error = match pycompat::unknown_method_callback(state, value, name, args) {
        Err(error) if error.kind() == ErrorKind::UnknownMethod => error,
        result => return result,
    };
    let Some(text) = value.as_str() else {
        return match (value.kind(), name) {
            (ValueKind::Map | ValueKind::Seq, "copy") => Ok(value.clone()),
            _ => Err(error),
        };
    };
    let tuple = |a: &str, b: &str, c: &str| Value::from((a, b, c));
    match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            Ok(match text.split_once(separator) {
                Some((before, after)) => tuple(before, separator, after),
                None => tuple(text, "", ""),
            })
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            Ok(match text.rsplit_once(separator) {
                Some((before, after)) => tuple(before, separator, after),
                None => tuple("", "", text),
            })
        }
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let limit = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX - 1) + 1;
            let mut parts: Vec<&str> = match separator {
                Some(separator) => text.rsplitn(limit, separator).collect(),
                None if limit > text.len() => text.split_whitespace().rev().collect(),
                None => text.trim_end().rsplitn(limit, char::is_whitespace).collect(),
            };
            parts.reverse();
            Ok(Value::from(parts.into_iter().map(Value::from).collect::<Vec<_>>()))
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swap =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            Ok(Value::from(text.chars().map(swap).collect::<String>()))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = match text.strip_prefix(['-', '+']) {
                Some(digits) => (&text[..1], digits),
                None => ("", text),
            };
            let zeros = width.min(1 << 16).saturating_sub(text.chars().count());
            Ok(Value::from(format!("{sign}{}{digits}", "0".repeat(zeros))))
        }
        _ => Err(error),
    }
}

//! One tool call in the Hermes form: JSON between two tags; must not know where in an answer it stands.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::Deserialize;
use serde_json::value::RawValue;

/// Opens a call.
pub(crate) const OPEN: &str = "<tool_call>";
/// Closes it.
pub(crate) const CLOSE: &str = "</tool_call>";

/// A call as the model wrote it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// The function.
    pub(crate) name: String,
    /// Its arguments: a JSON object's text, as the model wrote it.
    pub(crate) arguments: String,
}

impl Call {
    /// Reads what stands between the tags; `None` when that is no call.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Hermes<'a> {
            name: String,
            #[serde(borrow, default)]
            arguments: Option<&'a RawValue>,
        }
        let call: Hermes<'_> = serde_json::from_str(text).ok()?;
        let arguments = call.arguments.map_or("{}", RawValue::get);
        // Some models write the object as a JSON string, as OpenAI's API does.
        let arguments = match arguments.chars().next() {
            Some('"') => serde_json::from_str::<String>(arguments).ok()?,
            _ => arguments.to_owned(),
        };
        let object = serde_json::from_str::<&RawValue>(&arguments).is_ok_and(|json| json.get().starts_with('{'));
        (object && !call.name.is_empty()).then_some(Self { name: call.name, arguments })
    }
}

/// Looks for the end of a call in its growing text. A closing tag inside a JSON string is part of the arguments,
/// unless the string cannot be one.
#[derive(Debug, Default)]
pub(crate) struct CallScanner {
    at: usize,
    in_string: bool,
    escaped: bool,
    broken: bool,
    quoted_close: Option<usize>,
}

impl CallScanner {
    /// Looks at what is new in `text` (the call's whole text so far). Returns where its closing tag starts.
    pub(crate) fn find_end(&mut self, text: &str) -> Option<usize> {
        let bytes = text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if *byte == b'<' {
                let rest = &bytes[self.at..];
                if rest.starts_with(CLOSE.as_bytes()) {
                    if !self.in_string {
                        return Some(self.at);
                    }
                    self.quoted_close.get_or_insert(self.at);
                } else if CLOSE.as_bytes().starts_with(rest) {
                    return None;
                }
            }
            match byte {
                _ if self.broken => {}
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                // JSON strings hold no line breaks: a quote is missing somewhere.
                b'\n' if self.in_string => {
                    (self.broken, self.in_string) = (true, false);
                    if self.quoted_close.is_some() {
                        return self.quoted_close;
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
        None
    }

    /// A closing tag that was taken for a part of a string, where no other came.
    pub(crate) fn quoted_close(&self) -> Option<usize> {
        self.quoted_close
    }
}

/// A call's id: `call_` and 24 letters and digits. Never twice in a process; in two processes as likely as two equal
/// 128-bit random numbers.
pub(crate) fn new_id() -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    // The count itself is in the digits (scrambled by an odd factor, which loses nothing), so none comes twice.
    let unique = count.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ KEYS[0].hash_one(0u8);
    let mut digits = (u128::from(unique) << 64) | u128::from(KEYS[1].hash_one(count));
    let mut id = String::with_capacity(29);
    id.push_str("call_");
    for _ in 0..24 {
        id.push(char::from(ALPHABET[(digits % 62) as usize]));
        digits /= 62;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_the_text_that_the_model_wrote() {
        let call = Call::parse("\n{\"name\": \"f\", \"arguments\": {\"b\":1.0,  \"a\": \"\\u00e9\"}}\n").unwrap();
        assert_eq!(call, Call { name: "f".into(), arguments: "{\"b\":1.0,  \"a\": \"\\u00e9\"}".into() });
    }

    #[test]
    fn a_call_without_arguments_has_an_empty_object_and_a_quoted_object_is_unquoted() {
        assert_eq!(Call::parse(r#"{"name":"f"}"#).unwrap().arguments, "{}");
        assert_eq!(Call::parse(r#"{"name":"f","arguments":null}"#).unwrap().arguments, "{}");
        assert_eq!(Call::parse(r#"{"name":"f","arguments":"{\"a\": 1}"}"#).unwrap().arguments, r#"{"a": 1}"#);
    }

    #[test]
    fn what_is_no_call_is_none() {
        for text in ["", "f(1)", "{}", r#"{"name":""}"#, r#"{"name":"f","arguments":[1]}"#, r#"{"name":"f"} x"#] {
            assert_eq!(Call::parse(text), None, "{text}");
        }
    }

    #[test]
    fn ids_differ_and_have_the_shape_that_clients_expect() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| new_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 29 && id[5..].bytes().all(|b| b.is_ascii_alphanumeric())));
    }
}

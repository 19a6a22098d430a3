//! Values that are no JSON, into JSON: Python's literals, Gemma's, and what stands bare in a tag; must not know where they stand.

use serde_json::Value as Json;

use super::offer::Types;

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 64;

/// Gemma's quotation mark.
pub(super) const GEMMA_QUOTE: &str = "<|\"|>";

/// JSON text of a value that stands in a tag as it is: JSON where that is of a type that the parameter may be, a
/// Python literal of such a type, or a string.
pub(super) fn value(text: &str, types: Types) -> String {
    let trimmed = text.trim();
    let json = || serde_json::from_str::<Json>(trimmed).ok().filter(|value| types.allow(value));
    if json().is_some() {
        return trimmed.to_owned();
    }
    if let Some(python) = to_json(trimmed).filter(|_| !trimmed.starts_with(['"', '\'']))
        && serde_json::from_str(&python).is_ok_and(|value| types.allow(&value))
    {
        return python;
    }
    quoted(text)
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

/// What stands between a JSON string's quotation marks for `text`, a part of it.
pub(super) fn escaped(text: &str) -> String {
    let quoted = quoted(text);
    quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned()
}

/// JSON text of a Python literal, or of one of Gemma's; JSON is one too. `None` when it is neither.
pub(super) fn to_json(text: &str) -> Option<String> {
    let mut literal = Literal { rest: text, out: String::new(), depth: 0 };
    literal.value()?;
    literal.space();
    literal.rest.is_empty().then_some(literal.out)
}

struct Literal<'a> {
    rest: &'a str,
    out: String,
    depth: usize,
}

impl Literal<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, tag: &str) -> bool {
        let rest = self.rest.strip_prefix(tag);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self) -> Option<()> {
        self.space();
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        match self.rest.chars().next()? {
            '[' => self.list('[', ']'),
            '(' => self.list('(', ')'),
            '{' => self.object(),
            _ if self.rest.starts_with(GEMMA_QUOTE) || self.rest.starts_with(['"', '\'']) => {
                let text = self.string()?;
                self.out.push_str(&quoted(&text));
                Some(())
            }
            _ => self.word(),
        }?;
        self.depth -= 1;
        Some(())
    }

    fn word(&mut self) -> Option<()> {
        let end = self.rest.find([',', ']', ')', '}', ':']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        let word = word.trim();
        match word {
            "True" | "true" => self.out.push_str("true"),
            "False" | "false" => self.out.push_str("false"),
            "None" | "null" => self.out.push_str("null"),
            // `1_000`, `+1`, `.5` and `5.` are numbers in Python only.
            _ => {
                let number = word.replace('_', "");
                let number = number.strip_prefix('+').unwrap_or(&number);
                let json = match serde_json::from_str::<serde_json::Number>(number) {
                    Ok(_) => number.to_owned(),
                    Err(_) => {
                        let number: f64 = number.parse().ok().filter(|number: &f64| number.is_finite())?;
                        Json::from(number).to_string()
                    }
                };
                self.out.push_str(&json);
            }
        }
        Some(())
    }

    fn list(&mut self, open: char, close: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(open)?;
        self.out.push('[');
        for item in 0.. {
            self.space();
            if self.rest.starts_with(close) {
                break;
            }
            if item > 0 {
                self.out.push_str(", ");
            }
            self.value()?;
            self.space();
            if !self.eat(",") && !self.rest.starts_with(close) {
                return None;
            }
        }
        self.rest = self.rest.strip_prefix(close)?;
        self.out.push(']');
        Some(())
    }

    fn object(&mut self) -> Option<()> {
        self.rest = self.rest.strip_prefix('{')?;
        self.out.push('{');
        for item in 0.. {
            self.space();
            if self.rest.starts_with('}') {
                break;
            }
            if item > 0 {
                self.out.push_str(", ");
            }
            let key = match self.string() {
                Some(key) => key,
                // Gemma's keys stand bare.
                None => {
                    let (key, _) = self.rest.split_once(':')?;
                    self.rest = self.rest.get(key.len()..)?;
                    key.trim().to_owned()
                }
            };
            self.out.push_str(&quoted(&key));
            self.out.push_str(": ");
            self.space();
            self.eat(":").then_some(())?;
            self.value()?;
            self.space();
            if !self.eat(",") && !self.rest.starts_with('}') {
                return None;
            }
        }
        self.rest = self.rest.strip_prefix('}')?;
        self.out.push('}');
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        if self.eat(GEMMA_QUOTE) {
            let (text, rest) = self.rest.split_once(GEMMA_QUOTE)?;
            self.rest = rest;
            return Some(text.to_owned());
        }
        let quote = self.rest.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
        let mut unescape = Unescape::default();
        let mut text = String::new();
        for (at, character) in self.rest.char_indices().skip(1) {
            if character == quote && !unescape.is_open() {
                unescape.finish(&mut text);
                self.rest = self.rest.get(at + 1..)?;
                return Some(text);
            }
            unescape.push(character, &mut text);
        }
        None
    }
}

/// The escapes of a Python string, character by character. They are JSON's, and some more.
#[derive(Debug, Default)]
pub(super) struct Unescape {
    /// The escape so far, without its backslash; `None` outside of one.
    escape: Option<String>,
    /// The first half of a surrogate pair.
    high: Option<u32>,
}

impl Unescape {
    /// Whether the next character belongs to an escape that is just begun, so that a quotation mark is text.
    pub(super) fn is_open(&self) -> bool {
        self.escape.as_ref().is_some_and(String::is_empty)
    }

    /// One more character; what is settled is appended to `out`.
    pub(super) fn push(&mut self, character: char, out: &mut String) {
        let Some(escape) = &mut self.escape else {
            if character == '\\' {
                self.escape = Some(String::new());
            } else {
                self.lone(out);
                out.push(character);
            }
            return;
        };
        escape.push(character);
        let digits = match escape.as_bytes().first() {
            Some(b'x') => 2,
            Some(b'u') => 4,
            Some(b'U') => 8,
            _ => 0,
        };
        if digits > 0 && escape.len() <= digits {
            if escape.len() == 1 || character.is_ascii_hexdigit() {
                return;
            }
            // No such escape: it is what it looks like.
            let text = std::mem::take(escape);
            self.escape = None;
            self.lone(out);
            out.push('\\');
            out.push_str(&text);
            return;
        }
        let escape = self.escape.take().unwrap_or_default();
        if digits > 0 {
            let code = escape.get(1..).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0xfffd);
            return self.code(code, out);
        }
        self.lone(out);
        match character {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            '\\' | '\'' | '"' | '/' => out.push(character),
            '\n' => {}
            other => {
                out.push('\\');
                out.push(other);
            }
        }
    }

    fn code(&mut self, code: u32, out: &mut String) {
        match (self.high.take(), code) {
            (Some(high), 0xdc00..=0xdfff) => {
                let code = 0x10000 + ((high - 0xd800) << 10) + (code - 0xdc00);
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            (before, 0xd800..=0xdbff) => {
                out.extend(before.map(|_| char::REPLACEMENT_CHARACTER));
                self.high = Some(code);
            }
            (before, code) => {
                out.extend(before.map(|_| char::REPLACEMENT_CHARACTER));
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
    }

    /// Half a surrogate pair that stays alone is no character.
    fn lone(&mut self, out: &mut String) {
        out.extend(self.high.take().map(|_| char::REPLACEMENT_CHARACTER));
    }

    /// The string ends: an escape cut short is what it looks like.
    pub(super) fn finish(&mut self, out: &mut String) {
        self.lone(out);
        if let Some(escape) = self.escape.take() {
            out.push('\\');
            out.push_str(&escape);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_literals_become_json() {
        for (python, json) in [
            (
                "{'a': [1, 2.5, -3], 'b': None, \"c\": (True, False,)}",
                r#"{"a": [1, 2.5, -3], "b": null, "c": [true, false]}"#,
            ),
            (r"'it\'s \u00e9 \x41 \ud83c\udf89 \q'", r#""it's é A 🎉 \\q""#),
            ("[]", "[]"),
            ("{}", "{}"),
            ("1_000", "1000"),
            (".5", "0.5"),
            (r#"{"a": {"b": ["}", "\""]}}"#, r#"{"a": {"b": ["}", "\""]}}"#),
            ("{a:<|\"|>x, \"y\"}<|\"|>,b:[1,<|\"|>z<|\"|>]}", r#"{"a": "x, \"y\"}", "b": [1, "z"]}"#),
        ] {
            assert_eq!(to_json(python).as_deref(), Some(json), "{python}");
        }
        for bad in ["", "f(1)", "[1", "{1}", "'a", "nan", "1 2", "[1 2]"] {
            assert_eq!(to_json(bad), None, "{bad}");
        }
    }

    #[test]
    fn values_in_tags_are_of_the_parameters_type_where_they_can_be() {
        let number = Types { string: false, boolean: false, ..Types::ANY };
        assert_eq!(value(" 5 \n", number), "5");
        assert_eq!(value("5", Types::STRING), "\"5\"");
        assert_eq!(value("True", Types::ANY), "true");
        assert_eq!(value("{'a': 1}", Types::ANY), "{\"a\": 1}");
        assert_eq!(value("Köln \"x\"", Types::ANY), "\"Köln \\\"x\\\"\"");
        assert_eq!(value("null", Types { null: true, ..Types::STRING }), "null");
        assert_eq!(value("many", Types { number: true, ..Types::default() }), "\"many\"");
    }
}

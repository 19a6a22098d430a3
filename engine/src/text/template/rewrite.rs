//! Template source into source that minijinja runs as Jinja2 would; must not know what a template is for.
//!
//! Four things cannot be had from an environment's settings:
//! - `{% generation %}` … `{% endgeneration %}` (transformers' marks for training) become a block always rendered;
//! - loops go through the filter [`EACH`], which refuses `None` as Python does;
//! - sums with a `|safe` term become calls of [`SUM`], which escapes as Python's markupsafe does.
//! - `[::-1]` goes through the filter [`REVERSED`], since minijinja 3.0.5 panics where that is empty.
//!
//! Lines stay what they were, for errors' sake.

/// The filter that loops go through.
pub(crate) const EACH: &str = "_each";
/// The filter that stands for `[::-1]`.
pub(crate) const REVERSED: &str = "_reversed";
/// The function that sums with safe terms go through.
pub(crate) const SUM: &str = "_sum";

/// Rewrites a template. What cannot be understood is left for minijinja to complain about.
pub(crate) fn rewrite(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + source.len() / 8);
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let length = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map(|end| end + 2),
            Some(b'{') => inside(tag, b"}}"),
            Some(b'%') => inside(tag, b"%}"),
            _ => Some(1),
        };
        let Some(length) = length else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(length);
        rest = after;
        let whole = tag.get(2..length.saturating_sub(2)).filter(|_| !tag.starts_with("{#"));
        match whole {
            None => out.push_str(tag),
            Some(inner) if tag.starts_with("{{") => wrapped(&mut out, tag, &reversed(&expression(inner))),
            Some(inner) => {
                wrapped(&mut out, tag, &reversed(&block(inner)));
                if bare(inner) == "raw" {
                    let end = end_of_raw(rest);
                    out.push_str(&rest[..end]);
                    rest = &rest[end..];
                }
            }
        }
    }
    out.push_str(rest);
    out
}

fn wrapped(out: &mut String, tag: &str, inner: &str) {
    out.push_str(&tag[..2]);
    out.push_str(inner);
    out.push_str(&tag[tag.len() - 2..]);
}

/// A tag's inside without the signs that trim white space.
fn bare(inner: &str) -> &str {
    inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+')
}

fn end_of_raw(text: &str) -> usize {
    let mut at = 0;
    while let Some(start) = text[at..].find("{%") {
        at += start;
        let end = text[at..].find("%}").map_or(text.len(), |end| at + end);
        if bare(&text[at + 2..end.max(at + 2)]) == "endraw" {
            return at;
        }
        at += 2;
    }
    text.len()
}

/// Bytes from a tag's start to past its `end`, strings and brackets skipped.
fn inside(tag: &str, end: &[u8; 2]) -> Option<usize> {
    let body = tag.get(2..)?;
    let mut tokens = Tokens { text: body, at: 0, depth: 0, end: Some(end) };
    while tokens.next().is_some() {}
    body.as_bytes().get(tokens.at..)?.starts_with(end).then_some(2 + tokens.at + 2)
}

fn block(inner: &str) -> String {
    match bare(inner) {
        "generation" => inner.replacen("generation", "if true", 1),
        "endgeneration" => inner.replacen("endgeneration", "endif", 1),
        word if word.starts_with("for") => looped(inner).unwrap_or_else(|| inner.to_owned()),
        word if word.starts_with("set") && inner.contains('=') => {
            let (target, value) = inner.split_once('=').unwrap_or((inner, ""));
            format!("{target}={}", expression(value))
        }
        _ => inner.to_owned(),
    }
}

/// `for x in EXPRESSION if …` → `for x in (EXPRESSION)|_each if …`.
fn looped(inner: &str) -> Option<String> {
    let body = inner.trim_end().trim_end_matches(['-', '+']);
    let mut words = Tokens::of(body).filter(|token| token.depth == 0);
    let mut next = |wanted: &[&str]| words.find(|token| wanted.contains(&&body[token.start..token.end]));
    next(&["for"])?;
    let start = next(&["in"])?.end;
    let end = next(&["if", "recursive"]).map_or(body.len(), |token| token.start);
    let over = body[start..end].trim_end();
    let gap = &body[start + over.len()..end];
    Some(format!("{} ({over})|{EACH}{gap}{}", &body[..start], &inner[end..]))
}

/// `a|safe + b` → `_sum(a|safe, b)`, where that is all there is.
fn expression(inner: &str) -> String {
    let signs = |c: char| c == '-' || c == '+';
    let start = inner.len() - inner.trim_start_matches(signs).len();
    let end = inner.trim_end_matches(signs).len();
    let Some(body) = inner.get(start..end).filter(|body| body.contains("safe") && body.contains('+')) else {
        return inner.to_owned();
    };
    let mut terms = vec![String::new()];
    let (mut safe, mut last) = (false, 0);
    for token in Tokens::of(body).filter(|token| token.depth == 0) {
        match &body[token.start..token.end] {
            "+" => {
                if let Some(term) = terms.last_mut() {
                    term.push_str(&body[last..token.start]);
                }
                terms.push(String::new());
                last = token.end;
            }
            "if" | "else" | "and" | "or" | "not" | "in" | "is" | "-" | "~" | "," | "=" | "<" | ">" | "!" => {
                return inner.to_owned();
            }
            "safe" => safe = true,
            _ => {}
        }
    }
    if let Some(term) = terms.last_mut() {
        term.push_str(&body[last..]);
    }
    if !safe || terms.len() < 2 {
        return inner.to_owned();
    }
    format!("{} {SUM}({}) {}", &inner[..start], terms.join(","), &inner[end..])
}

/// `x[::-1]` → `x|_reversed`, unless something is taken from that in turn.
fn reversed(inner: &str) -> String {
    const SLICE: &str = "[::-1]";
    let (mut out, mut last) = (String::with_capacity(inner.len()), 0);
    for token in Tokens::of(inner).filter(|token| inner[token.start..].starts_with(SLICE)) {
        let end = token.start + SLICE.len();
        if !inner[end..].starts_with(['.', '[', '(']) {
            out.push_str(&inner[last..token.start]);
            out.push('|');
            out.push_str(REVERSED);
            last = end;
        }
    }
    out.push_str(&inner[last..]);
    out
}

/// A word, a string, or one other character.
struct Token {
    start: usize,
    end: usize,
    /// Brackets around it; those themselves count as inside.
    depth: usize,
}

/// The tokens of an expression; white space is none.
struct Tokens<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// Where to stop, outside of brackets and strings.
    end: Option<&'a [u8; 2]>,
}

impl<'a> Tokens<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0, end: None }
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        let start = self.at;
        let first = *bytes.get(start)?;
        if self.depth == 0 && self.end.is_some_and(|end| bytes[start..].starts_with(end)) {
            return None;
        }
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte >= 0x80;
        let mut depth = self.depth;
        let length = match first {
            b'"' | b'\'' => {
                let mut escaped = false;
                let close = bytes[start + 1..].iter().position(|byte| {
                    let closes = *byte == first && !escaped;
                    escaped = *byte == b'\\' && !escaped;
                    closes
                });
                close.map_or(bytes.len() - start, |close| close + 2)
            }
            b'(' | b'[' | b'{' => {
                self.depth += 1;
                depth = self.depth;
                1
            }
            b')' | b']' | b'}' => {
                self.depth = self.depth.saturating_sub(1);
                1
            }
            _ if word(&first) => bytes[start..].iter().take_while(|byte| word(byte)).count(),
            _ => 1,
        };
        self.at = start + length;
        Some(Token { start, end: self.at, depth })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn loops_refuse_none_and_keep_their_filters_and_signs() {
        assert_eq!(
            rewrite("{%- for a, b in x.items() if a not in b -%}"),
            "{%- for a, b in ( x.items())|_each if a not in b -%}"
        );
        assert_eq!(rewrite("{% for x in y recursive %}"), "{% for x in ( y)|_each recursive %}");
        assert_eq!(rewrite("{%for x in (a if b else c)-%}"), "{%for x in ( (a if b else c))|_each-%}");
        assert_eq!(rewrite("{% for x in ['%} if ', \"in\"] %}"), "{% for x in ( ['%} if ', \"in\"])|_each %}");
    }

    #[test]
    fn generation_tags_become_blocks_that_are_always_rendered() {
        assert_eq!(rewrite("{%- generation -%}x{% endgeneration +%}"), "{%- if true -%}x{% endif +%}");
    }

    #[test]
    fn sums_with_safe_terms_become_calls() {
        assert_eq!(rewrite("{{ 'a'|safe + b + c|tojson() }}"), "{{ _sum( 'a'|safe , b , c|tojson() ) }}");
        assert_eq!(rewrite("{{- x|safe -}}"), "{{- x|safe -}}");
        assert_eq!(rewrite("{{ x|safe + y if z }}"), "{{ x|safe + y if z }}");
        assert_eq!(rewrite("{{ 'safe + x' }}"), "{{ 'safe + x' }}");
    }

    #[test]
    fn reversing_slices_become_filters() {
        assert_eq!(rewrite("{% for m in messages[::-1] %}"), "{% for m in ( messages|_reversed)|_each %}");
        assert_eq!(rewrite("{{ x[::-1] + y[::-1].z ~ '[::-1]' }}"), "{{ x|_reversed + y[::-1].z ~ '[::-1]' }}");
    }

    #[test]
    fn raw_blocks_comments_and_text_stay_as_they_are() {
        for same in
            ["{# {% for x in y %} #}", "{% raw %}{% for x in y %}{% endraw %}", "a { b } {{ {'a': {}} }}", "{% for"]
        {
            assert_eq!(rewrite(same), same);
        }
    }

    proptest! {
        #[test]
        fn no_source_makes_it_panic_or_moves_a_line(source in r#"(\{%|%\}|\{\{|\}\}|\{#|#\}|for|in|if|raw|endraw|set|=|safe|\||\+|-|'|"|\(|\)|x|é| |\n){0,40}"#) {
            let lines = |text: &str| text.matches('\n').count();
            prop_assert_eq!(lines(&rewrite(&source)), lines(&source));
        }
    }
}

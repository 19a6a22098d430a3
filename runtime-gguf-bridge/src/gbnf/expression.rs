//! Texts and regular expressions in GBNF; must not know rules.

use std::fmt::Write as _;

use regex_syntax::{
    Parser,
    hir::{Class, Hir, HirKind, Literal},
};

use super::Unsayable;

/// A text, in quotes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || c == ' ' || (c.is_ascii_punctuation() && c != '"' && c != '\\') {
            out.push(c);
        } else {
            escape(c, &mut out);
        }
    }
    out.push('"');
    out
}

/// A character between the brackets of a class.
pub(super) fn in_class(c: char) -> String {
    let mut out = String::new();
    if c.is_ascii_alphanumeric() {
        out.push(c);
    } else {
        escape(c, &mut out);
    }
    out
}

fn escape(c: char, out: &mut String) {
    let code = u32::from(c);
    let _ = match code {
        0..=0xff => write!(out, "\\x{code:02X}"),
        0x100..=0xffff => write!(out, "\\u{code:04X}"),
        _ => write!(out, "\\U{code:08X}"),
    };
}

fn parse(pattern: &str) -> Result<Hir, Unsayable> {
    Parser::new().parse(pattern).map_err(|error| Unsayable(format!("the expression /{pattern}/: {error}")))
}

/// A regular expression, all of which must match.
pub(super) fn gbnf(pattern: &str) -> Result<String, Unsayable> {
    let mut out = String::new();
    write(&parse(pattern)?, &mut out)?;
    Ok(out)
}

/// A lazy expression's beginning, and its tag: something, then `(?s:.*)`, then this text.
pub(super) fn until(pattern: &str) -> Result<(String, Vec<char>), Unsayable> {
    let other = || Unsayable(format!("the lazy expression /{pattern}/"));
    let (before, tag) = pattern.split_once("(?s:.*)").ok_or_else(other)?;
    let tag = match parse(tag)?.kind() {
        HirKind::Literal(Literal(bytes)) => std::str::from_utf8(bytes).map_err(|_| other())?.chars().collect(),
        _ => return Err(other()),
    };
    Ok((gbnf(before)?, tag))
}

fn write(hir: &Hir, out: &mut String) -> Result<(), Unsayable> {
    match hir.kind() {
        HirKind::Empty => out.push_str("\"\""),
        HirKind::Literal(Literal(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|_| Unsayable("bytes that are no text".to_owned()))?;
            out.push_str(&quoted(text));
        }
        HirKind::Class(class) => write_class(class, out)?,
        HirKind::Look(look) => return Err(Unsayable(format!("the assertion {look:?} of a regular expression"))),
        HirKind::Repetition(repetition) => {
            write_one(&repetition.sub, out)?;
            let _ = match (repetition.min, repetition.max) {
                (0, None) => write!(out, "*"),
                (1, None) => write!(out, "+"),
                (0, Some(1)) => write!(out, "?"),
                (min, Some(max)) => write!(out, "{{{min},{max}}}"),
                (min, None) => write!(out, "{{{min},}}"),
            };
        }
        HirKind::Capture(capture) => write_one(&capture.sub, out)?,
        HirKind::Concat(parts) => separated(parts, " ", out)?,
        HirKind::Alternation(ways) => {
            out.push('(');
            separated(ways, " | ", out)?;
            out.push(')');
        }
    }
    Ok(())
}

/// As one thing, of which there may be several.
fn write_one(hir: &Hir, out: &mut String) -> Result<(), Unsayable> {
    if matches!(hir.kind(), HirKind::Class(_) | HirKind::Alternation(_) | HirKind::Capture(_)) {
        return write(hir, out);
    }
    out.push('(');
    write(hir, out)?;
    out.push(')');
    Ok(())
}

fn separated(parts: &[Hir], separator: &str, out: &mut String) -> Result<(), Unsayable> {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.push_str(separator);
        }
        write(part, out)?;
    }
    Ok(())
}

fn write_class(class: &Class, out: &mut String) -> Result<(), Unsayable> {
    let Class::Unicode(class) = class else {
        return Err(Unsayable("a class of bytes".to_owned()));
    };
    if class.ranges().is_empty() {
        return Err(Unsayable("a class of nothing".to_owned()));
    }
    out.push('[');
    for range in class.ranges() {
        out.push_str(&in_class(range.start()));
        if range.end() > range.start() {
            out.push('-');
            out.push_str(&in_class(range.end()));
        }
    }
    out.push(']');
    Ok(())
}

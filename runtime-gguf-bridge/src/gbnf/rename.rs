//! The rules of one grammar under other names, so that several fit into one; must not know what they say.

/// Each rule's name with a prefix and a dash before it.
pub(super) fn with_prefix(gbnf: &str, prefix: &str) -> String {
    let mut out = String::with_capacity(gbnf.len() * 2);
    // What closes the literal, class or bound that is being read.
    let mut inside: Option<char> = None;
    let (mut escaped, mut in_name) = (false, false);
    for c in gbnf.chars() {
        match inside {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(close) if c == close => inside = None,
            Some(_) => {}
            None => {
                inside = match c {
                    '"' => Some('"'),
                    '[' => Some(']'),
                    '{' => Some('}'),
                    _ => None,
                };
                let belongs = c.is_ascii_alphanumeric() || c == '-' || c == '_';
                if belongs && !in_name {
                    out.push_str(prefix);
                    out.push('-');
                }
                in_name = belongs;
            }
        }
        out.push(c);
    }
    out
}

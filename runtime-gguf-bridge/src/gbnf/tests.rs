//! Grammars as the text pipeline writes them.

use super::*;

fn gbnf(lark: &str) -> Result<String, Unsayable> {
    let draft = Draft::read(lark)?;
    let schemas: Vec<String> =
        draft.schemas().map(|_| "root ::= \"{\" space \"}\"\nspace ::= [ \\]]{0,20}".to_owned()).collect();
    draft.finish(&schemas)
}

#[test]
fn rules_literals_tokens_and_schemas_are_said() {
    let lark = "start: r1 r2\nr1: \"<tool\\n\" <[7]> (r2 | \"x\\\"\")* \nr2: %json {\"a\":\"}\"}\n";
    assert_eq!(
        gbnf(lark).unwrap(),
        "root ::= x-r1 x-r2\n\
         x-r1 ::= \"<tool\\x0A\" <[7]> ( x-r2 | \"x\\x22\" ) *\n\
         x-r2 ::= j0-root\n\
         j0-root ::= \"{\" j0-space \"}\"\nj0-space ::= [ \\]]{0,20}\n"
    );
    assert_eq!(Draft::read(lark).unwrap().schemas().next().unwrap()["a"], "}");
}

#[test]
fn regular_expressions_are_said() {
    let cases = [
        ("[a-c]+x?", "[a-c]+ (\"x\")?"),
        ("(ab|cd){2,3}", "(\"ab\" | \"cd\"){2,3}"),
        ("\\/\\.é", "\"/.\\xE9\""),
        ("(?s:.*)", "[\\x00-\\U0010FFFF]*"),
        ("[^a]{4,}", "[\\x00-\\x60b-\\U0010FFFF]{4,}"),
    ];
    for (regex, said) in cases {
        assert_eq!(gbnf(&format!("start: /{regex}/")).unwrap(), format!("root ::= {said}\n"), "{regex}");
    }
    for regex in ["\\bword", "^a", "a$"] {
        assert!(gbnf(&format!("start: /{regex}/")).is_err(), "{regex}");
    }
}

#[test]
fn what_the_pipeline_does_not_write_is_refused() {
    for lark in
        ["start: %lark {", "start: \"a\"i", "%import common.INT", "start: /a/i", "start: A~3", "start[stop=\"x\"]: /a/"]
    {
        assert!(gbnf(lark).is_err(), "{lark}");
    }
}

/// Follows the rules of [`write_until`] as an automaton.
fn ends_at(tag: &str, text: &str) -> Option<usize> {
    let tag: Vec<char> = tag.chars().collect();
    let mut length = 0;
    for (at, c) in text.chars().enumerate() {
        length = if tag.contains(&c) { prefix_after(&tag, length, c) } else { 0 };
        if length == tag.len() {
            return Some(at + 1);
        }
    }
    None
}

#[test]
fn a_lazy_rule_ends_with_the_first_tag() {
    let said = gbnf("start: r1\nr1[lazy]: /\\s?(?s:.*)aab/").unwrap();
    let rules: Vec<&str> = said.lines().skip(2).collect();
    assert_eq!(said.lines().nth(1).and_then(|first| first.split(' ').next_back()), Some("x-r1-0"));
    assert_eq!(
        rules,
        [
            r#"x-r1-0 ::= "a" x-r1-0-1 | "b" x-r1-0 | [^ab] x-r1-0"#,
            r#"x-r1-0-1 ::= "a" x-r1-0-2 | "b" x-r1-0 | [^ab] x-r1-0"#,
            r#"x-r1-0-2 ::= "a" x-r1-0-2 | "b" | [^ab] x-r1-0"#,
        ]
    );
    assert!(gbnf("start: r1\nr1[lazy]: /a+/").is_err());
    for (tag, text) in [("aab", "aaab.aab"), ("</think>", "a < b </thin</think></think>"), ("abab", "aabaabab")] {
        let chars = text.find(tag).map(|at| text[..at].chars().count() + tag.chars().count());
        assert_eq!(ends_at(tag, text), chars, "{tag} in {text}");
    }
}

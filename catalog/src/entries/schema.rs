//! As much of JSON Schema as `models.schema.json` uses, for the test that checks the data; must not know models.

use serde_json::Value;

/// What is wrong, with where; empty: nothing.
pub(super) fn faults(schema: &Value, root: &Value, value: &Value, at: &str) -> Vec<String> {
    let Some(rules) = schema.as_object() else { return vec![format!("{at}: the schema is no object")] };
    let mut found = Vec::new();
    for (rule, expected) in rules {
        let holds = match rule.as_str() {
            "$ref" => {
                let place = expected.as_str().and_then(|path| path.strip_prefix('#')).and_then(|p| root.pointer(p));
                found.extend(place.map_or_else(
                    || vec![format!("{at}: {expected} leads nowhere")],
                    |place| faults(place, root, value, at),
                ));
                true
            }
            "type" => expected
                .as_array()
                .map_or_else(|| is_type(expected, value), |kinds| kinds.iter().any(|kind| is_type(kind, value))),
            "enum" => expected.as_array().is_some_and(|all| all.contains(value)),
            "required" => expected.as_array().is_some_and(|names| {
                names.iter().all(|name| value.as_object().is_none_or(|map| map.contains_key(name.as_str().unwrap())))
            }),
            "additionalProperties" => {
                assert_eq!(expected, false, "the only form that is used");
                let known = rules.get("properties").and_then(Value::as_object).unwrap();
                value.as_object().is_none_or(|map| map.keys().all(|name| known.contains_key(name)))
            }
            "properties" => {
                for (name, inner) in expected.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        found.extend(faults(inner, root, value, &format!("{at}.{name}")));
                    }
                }
                true
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(faults(expected, root, value, &format!("{at}[{index}]")));
                }
                true
            }
            "minItems" => value.as_array().is_none_or(|all| all.len() as u64 >= expected.as_u64().unwrap()),
            "minLength" => value.as_str().is_none_or(|text| text.len() as u64 >= expected.as_u64().unwrap()),
            "minimum" => value.as_u64().is_none_or(|number| number >= expected.as_u64().unwrap()),
            "pattern" => value.as_str().is_none_or(|text| matches(expected.as_str().unwrap(), text)),
            "$schema" | "$defs" | "title" | "description" => true,
            other => panic!("the schema uses {other}, which this test does not know"),
        };
        if !holds {
            found.push(format!("{at}: {value} breaks {rule} {expected}"));
        }
    }
    found
}

fn is_type(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "null" => value.is_null(),
        other => panic!("the schema uses type {other}"),
    }
}

/// Patterns of classes and literals with counts, anchored at both ends, in which no part can begin where the one before
/// it could go on: enough to match without going back.
fn matches(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')).unwrap();
    let mut text = text.chars().peekable();
    while let Some(first) = rest.chars().next() {
        let class: Vec<char>;
        (class, rest) = match rest.strip_prefix('[').map(|inside| inside.split_once(']').unwrap()) {
            Some((inside, rest)) => (members(inside), rest),
            None => (vec![first], &rest[first.len_utf8()..]),
        };
        let (mut least, mut most) = (1, 1);
        if let Some((counts, after)) = rest.strip_prefix('{').map(|inside| inside.split_once('}').unwrap()) {
            let (from, to) = counts.split_once(',').unwrap_or((counts, counts));
            (least, most, rest) = (from.parse().unwrap(), to.parse().unwrap(), after);
        }
        let mut taken = 0;
        while taken < most && text.next_if(|letter| class.contains(letter)).is_some() {
            taken += 1;
        }
        if taken < least {
            return false;
        }
    }
    text.next().is_none()
}

fn members(inside: &str) -> Vec<char> {
    let letters: Vec<char> = inside.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < letters.len() {
        if at + 2 < letters.len() && letters[at + 1] == '-' {
            found.extend(letters[at]..=letters[at + 2]);
            at += 3;
        } else {
            found.push(letters[at]);
            at += 1;
        }
    }
    found
}

#[test]
fn the_checker_finds_faults() {
    assert!(matches("^[A-Z][a-z0-9.-]{0,3}/x$", "Ab.-/x"));
    for text in ["", "Ab", "ab/x", "Abcde/x", "A/xx", "A/"] {
        assert!(!matches("^[A-Z][a-z0-9.-]{0,3}/x$", text), "{text}");
    }
    let schema: Value = serde_json::from_str(
        r##"{"type":"object","required":["a"],"additionalProperties":false,"properties":{"a":{"$ref":"#/$defs/n"},
        "b":{"type":["string","null"],"minLength":2}},"$defs":{"n":{"type":"integer","minimum":3}}}"##,
    )
    .unwrap();
    let found = |text: &str| faults(&schema, &schema, &serde_json::from_str(text).unwrap(), "$").len();
    assert_eq!((found(r#"{"a":3}"#), found(r#"{"a":3,"b":null}"#)), (0, 0));
    for text in [r#"{"a":2}"#, "{}", r#"{"a":3,"c":1}"#, r#"{"a":3,"b":"x"}"#, r#"{"a":"3"}"#] {
        assert_eq!(found(text), 1, "{text}");
    }
}

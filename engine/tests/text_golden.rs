//! Chat templates against what transformers makes of them: every case of a folder's `golden.json`, byte for byte.
//!
//! The folder is `CHAT_TEMPLATES_DIR`, or our own templates in `tests/data/chat-templates`, which
//! `scripts/reference/make_template_golden.py` renders.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use engine::text::{ChatTemplates, TemplateContext, TemplateInput};
use jiff::civil::date;
use mesh_proto::GenerateError;
use serde_json::Value as Json;

/// One case; `None` when it came out as the reference has it.
fn difference(folder: &std::path::Path, case: &Json) -> Option<String> {
    let source = fs::read_to_string(folder.join(format!("{}.jinja", case["template"].as_str().unwrap()))).unwrap();
    let context = TemplateContext {
        special_tokens: BTreeMap::from([
            ("bos_token".to_owned(), "<BOS>".to_owned()),
            ("eos_token".to_owned(), "<EOS>".to_owned()),
        ]),
    };
    let input = TemplateInput {
        messages: &case["messages"],
        tools: Some(&case["tools"]).filter(|tools| !tools.is_null()),
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
        variables: case["kwargs"].as_object().unwrap(),
    };
    let now = date(2026, 11, 20).at(10, 30, 0, 0);
    let rendered = ChatTemplates::compile(vec![("default".to_owned(), source)])
        .map_err(|error| GenerateError::Engine(format!("line {}: {}", error.line, error.message)))
        .and_then(|templates| templates.render_json(&input, &context, now));
    match (rendered, case["expected"].as_str(), case["error"].as_str()) {
        (Ok(text), Some(expected), _) if text == expected => None,
        (Ok(text), Some(expected), _) => {
            let same = text.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
            let near = |text: &str| {
                text.chars()
                    .skip(text[..text.floor_char_boundary(same)].chars().count().saturating_sub(30))
                    .take(120)
                    .collect::<String>()
            };
            Some(format!("byte {same}:\n  got      {:?}\n  expected {:?}", near(&text), near(expected)))
        }
        (Err(error), Some(_), _) => Some(format!("failed: {error}")),
        (Ok(text), None, error) => Some(format!("rendered {text:?}, where the reference fails: {error:?}")),
        // What a template raises is said word for word.
        (Err(error), None, Some(raised)) => match raised.strip_prefix("TemplateError: ") {
            Some(raised) if error != GenerateError::invalid("messages", raised) => {
                Some(format!("said {error:?}, not {raised:?}"))
            }
            _ => None,
        },
        (Err(_), None, None) => Some("the case has neither `expected` nor `error`".to_owned()),
    }
}

#[test]
fn golden_templates_render_the_very_text_that_transformers_renders() {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/chat-templates");
    let folder = std::env::var_os("CHAT_TEMPLATES_DIR").map_or(own, PathBuf::from);
    let cases: Vec<Json> = serde_json::from_str(&fs::read_to_string(folder.join("golden.json")).unwrap()).unwrap();
    let differences: Vec<String> = cases
        .iter()
        .filter_map(|case| difference(&folder, case).map(|how| format!("{} {}: {how}", case["template"], case["case"])))
        .collect();
    assert!(!cases.is_empty());
    assert!(
        differences.is_empty(),
        "{} of {} cases differ\n{}",
        differences.len(),
        cases.len(),
        differences.join("\n")
    );
}

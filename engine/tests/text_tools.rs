//! Tool calls of every dialect: read as they come, whatever pieces they come in.
#![allow(clippy::unwrap_used)]

mod text_support;

use engine::text::{Prepared, TextModel, TextRequest};
use mesh_proto::{Prompt, TokenId, ToolDefinition};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use text_support::{
    Model, Outcome, chat_prompt, now, run,
    spell::{Call, FAMILIES, Family, HARMONY},
};

fn tools() -> Vec<ToolDefinition> {
    let parameters = json!({"type": "object", "properties": {
        "path": {"type": "string"}, "content": {"type": "string"}, "count": {"type": "integer"},
        "dry": {"type": "boolean"}, "tags": {"type": "array"}, "options": {"$ref": "#/$defs/options"},
        "note": {"type": ["string", "null"]}, "ratio": {"type": "number"}},
        "required": ["path"], "$defs": {"options": {"type": "object"}}});
    let tool = |name: &str| ToolDefinition {
        name: name.into(),
        json: json!({"type": "function", "function": {"name": name, "parameters": parameters}}).to_string(),
    };
    vec![tool("write_file"), tool("get.weather-2")]
}

/// A text cut into special tokens and, between them, byte chunks of the given sizes.
fn cut<'a>(text: &'a str, special: &[&str], sizes: &[usize]) -> Vec<&'a [u8]> {
    let (mut rest, mut tokens) = (text, Vec::new());
    let mut sizes = sizes.iter().copied().cycle();
    while !rest.is_empty() {
        let next = special.iter().filter_map(|tag| rest.find(tag).map(|at| (at, tag.len()))).min();
        let (mut plain, tail) = rest.split_at(next.map_or(rest.len(), |(at, _)| at));
        while !plain.is_empty() {
            let size = (1..=plain.len()).rev().find(|n| *n <= sizes.clone().next().unwrap()).unwrap();
            sizes.next();
            tokens.push(&text.as_bytes()[text.len() - plain.len() - tail.len()..][..size]);
            // Bytes, not characters: pieces may cut a character.
            let left = plain.len() - size;
            if !plain.is_char_boundary(size) {
                let at = text.len() - left - tail.len();
                let end = (at..).find(|at| text.is_char_boundary(*at)).unwrap();
                tokens.push(&text.as_bytes()[at..end]);
                plain = &plain[size + (end - at)..];
            } else {
                plain = &plain[size..];
            }
        }
        let length = next.map_or(0, |(_, length)| length);
        if length > 0 {
            tokens.push(&tail.as_bytes()[..length]);
        }
        rest = &tail[length..];
    }
    tokens
}

struct Trial {
    model: Model,
    prepared: Prepared,
}

impl Trial {
    fn new(family: &Family, tokens: &[&[u8]]) -> Self {
        let template = format!("{{{{ messages[0].content }}}}{{# {} #}}{{% if tools %}}{{% endif %}}", family.template);
        let added: Vec<(&str, bool)> = family.special.iter().map(|tag| (*tag, true)).collect();
        let model = Model::with_added(tokens, &added, &template);
        assert_eq!(model.text.tool_dialect(), family.name);
        let mut chat = chat_prompt("Hi");
        chat.tools = tools();
        let prepared = model.text.prepare(TextRequest::new(&Prompt::Chat(chat)), now()).unwrap();
        Self { model, prepared }
    }
}

fn read(family: &Family, text: &str, sizes: &[usize]) -> Outcome {
    let tokens = cut(text, family.special, sizes);
    let trial = Trial::new(family, &tokens);
    let ids: Vec<TokenId> = tokens.iter().map(|token| trial.model.id(token)).collect();
    run(&mut trial.model.text.answer(&trial.prepared, &[]), ids)
}

fn parsed(outcome: &Outcome) -> Vec<Call> {
    let parse = |(name, text): &(String, String)| {
        (name.clone(), serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}")))
    };
    outcome.calls.iter().map(parse).collect()
}

fn two_calls() -> Vec<Call> {
    let first = json!({"path": "src/{a}.rs", "content": "if a[\"}\"] == '{' {\n\treturn \"é🎉\\n\";\n}\n", "count": -3,
        "dry": true, "tags": ["a,b", "]", {"deep": [1.5, null]}], "options": {"x": {"y": "}"}}});
    vec![("write_file".into(), first), ("get.weather-2".into(), json!({"path": "Köln"}))]
}

#[test]
fn calls_of_every_dialect_are_read_whatever_pieces_they_come_in() {
    for family in FAMILIES.iter().chain([&HARMONY]) {
        let calls = two_calls();
        let text = (family.spell)(&calls);
        for sizes in [&[usize::MAX][..], &[1], &[2], &[3, 1], &[7], &[40, 5]] {
            let outcome = read(family, &text, sizes);
            assert_eq!(parsed(&outcome), calls, "{} in {sizes:?}:\n{text}", family.name);
            assert_eq!((outcome.content.as_str(), outcome.order.as_str()), ("", "tt"), "{}", family.name);
        }
    }
}

#[test]
fn calls_without_arguments_have_an_empty_object() {
    for family in FAMILIES.iter().chain([&HARMONY]) {
        let calls = vec![("write_file".to_owned(), json!({}))];
        let outcome = read(family, &(family.spell)(&calls), &[3]);
        assert_eq!(parsed(&outcome), calls, "{}", family.name);
    }
}

#[test]
fn text_before_and_behind_calls_is_content() {
    for family in FAMILIES.iter().filter(|family| family.text_before) {
        let after = if family.text_after { "\nDone <3" } else { "" };
        let text = format!("Let me see.\n\n{}{after}", (family.spell)(&two_calls()));
        for sizes in [&[usize::MAX][..], &[1], &[5]] {
            let outcome = read(family, &text, sizes);
            assert_eq!(parsed(&outcome), two_calls(), "{}", family.name);
            assert_eq!(outcome.content, format!("Let me see.{}", after.trim_start()), "{}", family.name);
        }
    }
}

#[test]
fn arguments_are_streamed_as_they_come() {
    for family in FAMILIES.iter().chain([&HARMONY]) {
        let long = "lorem ipsum ".repeat(20);
        let calls = vec![("write_file".to_owned(), json!({"path": long}))];
        let text = (family.spell)(&calls);
        let tokens = cut(&text, family.special, &[4]);
        let trial = Trial::new(family, &tokens);
        let mut answer = trial.model.text.answer(&trial.prepared, &[]);
        let (mut named_at, mut told) = (None, 0);
        for (n, token) in tokens.iter().enumerate() {
            let mut pieces = Vec::new();
            answer.push(trial.model.id(token), &mut pieces);
            for piece in pieces {
                let engine::text::Piece::ToolCall(delta) = piece else { panic!("{}: {piece:?}", family.name) };
                if delta.name.is_some() {
                    named_at = Some(n);
                }
                told += usize::from(!delta.arguments.is_empty());
            }
        }
        let start = text.find("lorem").unwrap() / 4;
        assert!(named_at.unwrap() < start + 4, "{}: named with token {named_at:?} of {}", family.name, tokens.len());
        assert!(told > 40, "{}: the arguments came in {told} pieces", family.name);
    }
}

#[test]
fn a_call_that_is_cut_leaks_none_of_its_markup_and_what_was_told_stays() {
    for family in FAMILIES.iter().chain([&HARMONY]) {
        let before = if family.text_before { "Look. " } else { "" };
        let text = format!("{before}{}", (family.spell)(&two_calls()));
        let whole = read(family, &text, &[3]);
        let tokens = cut(&text, family.special, &[3]);
        let trial = Trial::new(family, &tokens);
        for end in 0..tokens.len() {
            let ids = tokens[..end].iter().map(|token| trial.model.id(token));
            let outcome = run(&mut trial.model.text.answer(&trial.prepared, &[]), ids);
            let said: usize = tokens[..end].iter().map(|token| token.len()).sum();
            let content = outcome.content.as_str();
            let shown = before.get(..said).unwrap_or(before).trim_end();
            let single = format!("{before}{}", &text[before.len()..][..1]);
            assert!(
                content.trim_end() == shown || (said <= before.len() + 3 && content == single),
                "{} cut at {said}: {content:?}",
                family.name
            );
            for (cut, whole) in outcome.calls.iter().zip(&whole.calls) {
                assert!(cut.0 == whole.0 && whole.1.starts_with(&cut.1), "{} cut at {said}: {cut:?}", family.name);
            }
        }
    }
}

#[test]
fn a_call_of_a_tool_that_was_not_offered_is_a_call_unless_it_stands_bare() {
    for family in FAMILIES.iter().chain([&HARMONY]) {
        let calls = vec![("other".to_owned(), json!({"path": "x"}))];
        let text = (family.spell)(&calls);
        let outcome = read(family, &text, &[4]);
        if ["llama3", "pythonic"].contains(&family.name) {
            assert_eq!((outcome.content, outcome.calls.len()), (text, 0));
        } else {
            assert_eq!(parsed(&outcome), calls, "{}", family.name);
        }
    }
}

#[test]
fn ids_are_the_models_own_where_it_gives_one_and_nine_characters_for_mistral() {
    let family = |name: &str| FAMILIES.iter().find(|family| family.name == name).unwrap();
    let kimi = read(family("kimi"), &(family("kimi").spell)(&two_calls()), &[3]);
    assert_eq!(kimi.ids.0, ["functions.write_file:0", "functions.get.weather-2:1"]);
    let mistral = family("mistral-args");
    let outcome = read(mistral, "[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{}[TOOL_CALLS]g{\"a\": 1}", &[2]);
    assert_eq!(outcome.ids.0[0], "abcdefghi");
    assert!(outcome.ids.0[1].len() == 9 && outcome.ids.0[1].bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_eq!(outcome.calls, [("f".into(), "{}".into()), ("g".to_owned(), "{\"a\": 1}".to_owned())]);
}

#[test]
fn an_id_that_a_model_gives_twice_is_told_once() {
    let kimi = FAMILIES.iter().find(|family| family.name == "kimi").unwrap();
    let text = (kimi.spell)(&two_calls()).replace(":1<", ":0<").replace("get.weather-2", "write_file");
    let outcome = read(kimi, &text, &[3]);
    assert_eq!((outcome.calls.len(), outcome.ids.0[0].as_str()), (2, "functions.write_file:0"));
    assert!(outcome.ids.0[1].starts_with("call_"), "{:?}", outcome.ids);
}

#[test]
fn small_slips_of_models_are_borne() {
    let family = |name: &str| FAMILIES.iter().find(|family| family.name == name).unwrap();
    let call = |name: &str, text: &str| {
        let outcome = read(family(name), text, &[2]);
        assert_eq!(outcome.calls.len(), 1, "{text}");
        (outcome.calls[0].1.clone(), outcome.content)
    };
    for (name, text, arguments, content) in [
        ("hermes", "<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>", "{\"a\": 1}", ""),
        ("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>", "{\"a\": 1}", ""),
        ("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}}\n</tool_call>x", "{\"a\": 1}", "x"),
        ("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": null}</tool_call>", "{}", ""),
        (
            "hermes",
            "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"1\n2\t\"}}</tool_call>",
            "{\"a\": \"1\\n2\\t\"}",
            "",
        ),
        (
            "qwen3-coder",
            "<function=f>\n<parameter=path>\nx\n</parameter>\n</function>\n</tool_call>",
            "{\"path\": \"x\"}",
            "",
        ),
        ("qwen3-coder", "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>", "{}", ""),
        ("glm", "<tool_call>f<arg_key>path</arg_key><arg_value>x</arg_value></tool_call>", "{\"path\": \"x\"}", ""),
        (
            "lfm2",
            "<|tool_call_start|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]<|tool_call_end|>",
            "{\"a\": 1}",
            "",
        ),
        ("llama3", "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "{\"a\": 1}", ""),
        (
            "kimi",
            "<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|><|tool_call_end|>",
            "{}",
            "",
        ),
    ] {
        assert_eq!(call(name, text), (arguments.to_owned(), content.to_owned()), "{text}");
    }
}

#[test]
fn json_and_lists_that_are_no_calls_are_answers() {
    let family = |name: &str| FAMILIES.iter().find(|family| family.name == name).unwrap();
    for (name, text) in [
        ("llama3", "{\"name\": \"Bob\", \"parameters\": {}}"),
        ("llama3", "{\"name\": \"write_file\"}"),
        ("llama3", "  {\"a\": [1, 2]} and so on"),
        ("llama3", "Use {\"name\": \"write_file\", \"parameters\": {}}."),
        ("pythonic", "[1, 2, 3]"),
        ("pythonic", "[link](http://x)"),
        ("pythonic", "[write_file]"),
        ("mistral", "Look: [TOOL_CALLS is a mark"),
    ] {
        for sizes in [&[usize::MAX][..], &[1], &[4]] {
            let outcome = read(family(name), text, sizes);
            assert_eq!((outcome.content.as_str(), outcome.calls.len()), (text, 0), "{name} in {sizes:?}");
        }
    }
}

#[test]
fn gpt_oss_reasons_in_one_channel_and_answers_in_another() {
    let text = "<|channel|>analysis<|message|>Let me think.<|end|><|start|>assistant<|channel|>commentary<|message|>I \
                look it up. <|end|><|start|>assistant<|channel|>final<|message|>It is 21 <degrees>.<|return|>";
    for sizes in [&[usize::MAX][..], &[1], &[6]] {
        let outcome = read(&HARMONY, text, sizes);
        assert_eq!(outcome.reasoning, "Let me think.");
        assert_eq!((outcome.content.as_str(), outcome.order.as_str()), ("I look it up. It is 21 <degrees>.", "rc"));
    }
    // The recipient may stand before the channel, and the answer may end without its mark.
    let call = " to=functions.write_file<|channel|>commentary json<|message|>{\"path\": \"x\"}";
    let outcome = read(&HARMONY, &format!("<|channel|>analysis<|message|>hm<|end|><|start|>assistant{call}"), &[3]);
    assert_eq!((outcome.order.as_str(), outcome.calls.len()), ("rt", 1));
    assert_eq!(outcome.calls[0], ("write_file".to_owned(), "{\"path\": \"x\"}".to_owned()));
    // Text that is no JSON is a JSON string, and a text without a header is content.
    let python = "<|channel|>analysis to=python code<|message|>print(\"x\")<|call|>";
    assert_eq!(read(&HARMONY, python, &[3]).calls, [("python".to_owned(), "\"print(\\\"x\\\")\"".to_owned())]);
    assert_eq!(read(&HARMONY, "Just text.", &[3]).content, "Just text.");
    assert_eq!(read(&HARMONY, "<|channel|>fin", &[3]).content, "");
}

#[test]
fn a_dialect_can_be_chosen_by_name() {
    let model = Model::with_tokens::<&str>(&[]);
    let load = || TextModel::load(model.folder.path()).unwrap();
    assert_eq!(load().tool_dialect(), "hermes");
    assert_eq!(load().with_tool_dialect("glm").unwrap().tool_dialect(), "glm");
    let error = load().with_tool_dialect("klingon").unwrap_err().to_string();
    assert!(error.contains("`klingon`") && error.contains("hermes") && error.contains("harmony"), "{error}");
}

/// Strings without what ends a value in some family: no dialect can spell that.
fn text() -> impl Strategy<Value = String> {
    let pieces = [
        "a", "Z9", " ", "\n", "\t", "\"", "'", "\\", "{", "}", "[", "]", "(", ")", ",", ":", "=", "<", ">", "é",
        "日本", "🎉", "\u{7f}", "\\n", "\\u00e9", "</", "<|", "<tool", "null", "1.5", "```",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..12).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Json::from),
        any::<i32>().prop_map(Json::from),
        any::<i16>().prop_map(|n| json!(f64::from(n) / 8.0)),
        text().prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec(("[a-z]{1,4}", inner), 0..3).prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

fn arguments() -> impl Strategy<Value = Json> {
    let list = prop::collection::vec(value(), 0..3).prop_map(Json::from);
    let object = prop::collection::vec(("[a-z]{1,4}", value()), 0..3).prop_map(|entries| entries.into_iter().collect());
    let fields = (text(), prop::option::of(text()), prop::option::of(any::<i16>()), prop::option::of(any::<bool>()));
    (
        fields,
        prop::option::of(list),
        prop::option::of(object),
        prop::option::of(any::<i16>().prop_map(|n| f64::from(n) / 8.0)),
    )
        .prop_map(|((path, content, count, dry), tags, options, ratio): (_, _, Option<Json>, _)| {
            let mut out = serde_json::Map::new();
            out.insert("path".into(), json!(path));
            let mut add = |key: &str, value: Option<Json>| value.map(|value| out.insert(key.into(), value));
            add("content", content.map(Json::from));
            add("count", count.map(Json::from));
            add("dry", dry.map(Json::from));
            add("tags", tags);
            add("options", options);
            add("ratio", ratio.map(Json::from));
            Json::Object(out)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tool_calls_survive_any_split_of_the_token_stream(
        family in prop::sample::select(FAMILIES.iter().chain([&HARMONY]).copied().collect::<Vec<_>>()),
        calls in prop::collection::vec((prop::sample::select(vec!["write_file", "get.weather-2"]), arguments()), 1..4),
        sizes in prop::collection::vec(1usize..12, 1..12),
        before in "[a-zé ]{0,12}",
    ) {
        let calls: Vec<Call> = calls.into_iter().map(|(name, arguments)| (name.to_owned(), arguments)).collect();
        let calls = if family.several { &calls[..] } else { &calls[..1] };
        let before = if family.text_before { before.as_str() } else { "" };
        let text = format!("{before}{}", (family.spell)(calls));
        let outcome = read(&family, &text, &sizes);
        prop_assert_eq!(parsed(&outcome), calls, "{} in {:?}:\n{}", family.name, sizes, text);
        prop_assert_eq!(outcome.content.trim_end(), before.trim_end());
    }

    #[test]
    fn what_comes_out_depends_on_the_text_alone_in_every_dialect(
        family in prop::sample::select(FAMILIES.iter().chain([&HARMONY]).copied().collect::<Vec<_>>()),
        calls in prop::collection::vec((prop::sample::select(vec!["write_file", "f"]), arguments()), 1..3),
        cuts in prop::collection::vec((0usize..400, 0usize..30), 0..4),
        sizes in prop::collection::vec(1usize..12, 1..12),
    ) {
        // Calls with pieces cut out and swapped: half of it is broken markup.
        let calls: Vec<Call> = calls.into_iter().map(|(name, arguments)| (name.to_owned(), arguments)).collect();
        let mut text = (family.spell)(&calls) + "\nand so on";
        for (at, length) in cuts {
            let start = text.floor_char_boundary(at.min(text.len()));
            let end = text.floor_char_boundary((start + length).min(text.len()));
            let piece = text[start..end].to_owned();
            text.replace_range(start..end, "");
            if length % 3 == 0 {
                text.push_str(&piece);
            }
        }
        let whole = read(&family, &text, &[usize::MAX]);
        prop_assert_eq!(read(&family, &text, &sizes), whole, "{}:\n{}", family.name, text);
    }
}

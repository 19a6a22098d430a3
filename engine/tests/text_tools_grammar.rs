//! Grammars of answers, tried with llguidance's own matcher over a vocabulary of bytes and special tokens.
#![allow(clippy::unwrap_used)]

mod text_support;

use std::sync::Arc;

use engine::text::TextRequest;
use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, TokRxInfo, TokTrie},
};
use mesh_proto::{ChatPrompt, Constraint, GenerateError, Prompt, TokenId, ToolChoice, ToolDefinition};
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use text_support::{
    Model, byte_level, chat_prompt, now, run,
    spell::{Call, FAMILIES, Family, HARMONY},
};

const HERMES: &str = "<tool_call></tool_call>";

/// A request, and the model it is put to.
struct Ask {
    model: Model,
    chat: ChatPrompt,
    choice: ToolChoice,
    parallel: bool,
    constraint: Option<Constraint>,
    /// The special tokens, which follow the bytes.
    special: Vec<&'static str>,
}

impl Ask {
    /// `template` is what the model's template speaks of; `{}` in it is the text that its prompts end with.
    fn new(template: &str, end: &str, special: &[&'static str]) -> Self {
        let source = format!("{{{{ messages[0].content }}}}{{# {template} #}}{{% if tools %}}{{% endif %}}{end}");
        let special: Vec<&'static str> = ["<|eos|>"].into_iter().chain(special.iter().copied()).collect();
        let added: Vec<(&str, bool)> = special.iter().map(|token| (*token, true)).collect();
        let model = Model::with_added::<&str>(&[], &added, &source);
        let chat = chat_prompt("Hi");
        Self { model, chat, choice: ToolChoice::Auto, parallel: true, constraint: None, special }
    }

    fn of(family: &Family) -> Self {
        Self {
            chat: ChatPrompt { tools: tools(), ..chat_prompt("Hi") },
            ..Self::new(family.template, "", family.special)
        }
    }

    fn grammar(&self) -> Result<Option<String>, GenerateError> {
        let prompt = Prompt::Chat(self.chat.clone());
        let request = TextRequest {
            prompt: &prompt,
            tool_choice: &self.choice,
            parallel_tool_calls: self.parallel,
            constraint: self.constraint.as_ref(),
        };
        Ok(self.model.text.prepare(request, now())?.grammar.map(|grammar| grammar.0))
    }

    fn matcher(&self) -> Matcher {
        let grammar = self.grammar().unwrap().unwrap();
        let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        words.extend(self.special.iter().map(|name| [&[0xff], name.as_bytes()].concat()));
        let info = TokRxInfo::new(words.len() as u32, 256);
        let env: Arc<ApproximateTokEnv> = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &words)));
        let env: llguidance::toktrie::TokEnv = env;
        let factory = ParserFactory::new_simple(&env).unwrap();
        let matcher = Matcher::new(factory.create_parser(TopLevelGrammar::from_lark(grammar.clone())));
        assert!(!matcher.is_error(), "{:?}\n{grammar}", matcher.get_error());
        matcher
    }

    fn tokens(&self, text: &str) -> Vec<u32> {
        let (mut rest, mut out) = (text, Vec::new());
        while let Some(first) = rest.as_bytes().first() {
            match self.special.iter().position(|token| rest.starts_with(token)) {
                Some(special) => {
                    out.push(256 + special as u32);
                    rest = &rest[self.special[special].len()..];
                }
                None => {
                    out.push(u32::from(*first));
                    // Bytes: the text may be cut inside a character only here.
                    let mut end = 1;
                    while !rest.is_char_boundary(end) {
                        out.push(u32::from(rest.as_bytes()[end]));
                        end += 1;
                    }
                    rest = &rest[end..];
                }
            }
        }
        out
    }

    /// How far the answer goes as the grammar wants it, and whether it may end there.
    fn follow(&self, text: &str) -> (usize, bool) {
        let mut matcher = self.matcher();
        let tokens = self.tokens(text);
        let mut taken = 0;
        for token in &tokens {
            if matcher.is_stopped() || !matcher.compute_mask().unwrap().is_allowed(*token) {
                return (taken, false);
            }
            matcher.consume_token(*token).unwrap();
            taken += 1;
        }
        (taken, matcher.is_stopped() || matcher.is_accepting().unwrap())
    }

    #[track_caller]
    fn takes(&self, text: &str) {
        let (taken, whole) = self.follow(text);
        let length = self.tokens(text).len();
        assert!(whole && taken == length, "stopped at {taken} of {length} ({whole}):\n{text}\n{:?}", self.grammar());
    }

    #[track_caller]
    fn refuses(&self, text: &str) {
        let (taken, whole) = self.follow(text);
        assert!(taken < self.tokens(text).len() || !whole, "was taken:\n{text}\n{:?}", self.grammar());
    }
}

fn tools() -> Vec<ToolDefinition> {
    let tool = |name: &str, parameters: Json| ToolDefinition {
        name: name.into(),
        json: json!({"type": "function", "function": {"name": name, "parameters": parameters}}).to_string(),
    };
    let weather = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}, "fine": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}}},
        "required": ["city"], "additionalProperties": false});
    vec![tool("get_weather", weather), tool("now", json!({"type": "object", "properties": {}}))]
}

fn good() -> Vec<Call> {
    let all = json!({"city": "Köln", "days": 3, "unit": "celsius", "fine": true, "tags": ["a", "b"]});
    vec![
        ("get_weather".into(), all),
        ("get_weather".into(), json!({"city": "x \" y"})),
        ("get_weather".into(), json!({"city": "x", "unit": "fahrenheit", "tags": []})),
        ("now".into(), json!({})),
    ]
}

fn bad() -> Vec<Call> {
    vec![
        ("get_weather".into(), json!({"days": 3})),
        ("get_weather".into(), json!({"city": "x", "unit": "kelvin"})),
        ("get_weather".into(), json!({"city": "x", "days": "many"})),
        ("other".into(), json!({"city": "x"})),
    ]
}

#[test]
fn required_calls_are_of_offered_tools_and_fit_their_schemas_in_every_dialect() {
    for family in FAMILIES.iter().chain([&HARMONY]) {
        let ask = Ask { choice: ToolChoice::Required, ..Ask::of(family) };
        for call in good() {
            ask.takes(&(family.spell)(&[call]));
        }
        for call in bad() {
            ask.refuses(&(family.spell)(&[call]));
        }
        ask.refuses("");
        ask.refuses("I would rather not.");
    }
}

#[test]
fn several_calls_are_taken_unless_one_is_asked_for() {
    for family in &FAMILIES {
        let text = (family.spell)(&[good()[1].clone(), good()[3].clone()]);
        Ask { choice: ToolChoice::Required, ..Ask::of(family) }.takes(&text);
        Ask { choice: ToolChoice::Required, parallel: false, ..Ask::of(family) }.refuses(&text);
        let named = Ask { choice: ToolChoice::Named("now".into()), ..Ask::of(family) };
        named.refuses(&text);
        named.takes(&(family.spell)(&good()[3..]));
        named.refuses(&(family.spell)(&good()[..1]));
    }
}

#[test]
fn without_parallel_calls_an_answer_is_text_and_at_most_one_call_of_anything() {
    for family in &FAMILIES {
        let ask = Ask { parallel: false, ..Ask::of(family) };
        let one = (family.spell)(&[("other".into(), json!({"city": "x", "days": "many"}))]);
        let two = (family.spell)(&good()[..2]);
        let before = if family.text_before { "Let me see.\n" } else { "" };
        ask.takes("No calls here, {a} [b].");
        ask.takes(&format!("{before}{one}"));
        ask.refuses(&format!("{before}{two}"));
        assert_eq!(Ask::of(family).grammar().unwrap(), None, "nothing else is asked for");
    }
}

#[test]
fn choices_that_cannot_be_are_refused_by_name() {
    let refusal = |ask: Ask| match ask.grammar().unwrap_err() {
        GenerateError::Invalid { field, message } => (field, message),
        other => panic!("{other}"),
    };
    let (field, message) = refusal(Ask { choice: ToolChoice::Named("nope".into()), ..Ask::of(&FAMILIES[0]) });
    assert!(field == "tool_choice" && message.contains("`nope`"), "{field}: {message}");
    let (field, _) = refusal(Ask { choice: ToolChoice::Required, ..Ask::new(HERMES, "", &[]) });
    assert_eq!(field, "tool_choice");
    let both = Ask { choice: ToolChoice::Required, constraint: Some(Constraint::JsonObject), ..Ask::of(&FAMILIES[0]) };
    assert_eq!(refusal(both).0, "response_format");
    let mut broken = Ask { choice: ToolChoice::Required, ..Ask::of(&FAMILIES[0]) };
    broken.chat.tools[1].json =
        json!({"function": {"name": "now", "parameters": {"properties": {"a": {"type": "strange"}}}}}).to_string();
    let (field, message) = refusal(broken);
    assert_eq!(field, "tools[1].function.parameters");
    assert!(message.contains("strange"), "{message}");
    let plain = Prompt::Text("x".into());
    let request = TextRequest { tool_choice: &ToolChoice::Required, ..TextRequest::new(&plain) };
    let error = Ask::of(&FAMILIES[0]).model.text.prepare(request, now()).unwrap_err();
    assert!(matches!(error, GenerateError::Invalid { field, .. } if field == "tool_choice"));
}

#[test]
fn broken_schemas_and_grammars_are_refused_with_their_own_words_and_place() {
    for (constraint, field, word) in [
        (Constraint::JsonSchema("{".into()), "response_format.json_schema.schema", "line 1"),
        (Constraint::JsonSchema("[]".into()), "response_format.json_schema.schema", "object"),
        (Constraint::JsonSchema(r#"{"type": "strange"}"#.into()), "response_format.json_schema.schema", "strange"),
        (Constraint::JsonSchema(r##"{"$ref": "#/nowhere"}"##.into()), "response_format.json_schema.schema", "nowhere"),
        (
            Constraint::JsonSchema(r#"{"type": "string", "pattern": "("}"#.into()),
            "response_format.json_schema.schema",
            "(",
        ),
        (Constraint::Regex("a(".into()), "regex", "a("),
        (Constraint::Regex("(?=x)".into()), "regex", "look"),
        (Constraint::Lark("begin: \"a\"".into()), "lark", "start"),
        (Constraint::Lark("start: x".into()), "lark", "x"),
        (Constraint::Lark("start: \"a\" }\nother: \"b\"".into()), "lark", "1("),
        (Constraint::Lark(String::new()), "lark", "start"),
    ] {
        let ask = Ask { constraint: Some(constraint.clone()), ..Ask::new("", "", &[]) };
        match ask.grammar() {
            Err(GenerateError::Invalid { field: named, message }) => {
                assert!(named == field && message.contains(word), "{constraint:?}: {named}: {message}");
            }
            other => panic!("{constraint:?}: {other:?}"),
        }
    }
}

#[test]
fn constraints_hold_for_the_content_and_reasoning_before_it_is_free() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
        "additionalProperties": false});
    let constraints = [
        (Constraint::JsonObject, "{\"x\": [1, \"}\"]}", "[1]"),
        (Constraint::JsonSchema(schema.to_string()), "{\"a\": 5}", "{\"a\": \"5\"}"),
        (Constraint::Regex("[a-c]+/\\d{2}".into()), "abc/42", "abc/4"),
        (Constraint::Lark("start: NAME \"!\"\nNAME: /[a-z]+/".into()), "hi!", "hi"),
    ];
    for (constraint, good, bad) in constraints {
        let ask = |template: &str, end: &str, special: &[&'static str]| Ask {
            constraint: Some(constraint.clone()),
            ..Ask::new(template, end, special)
        };
        // A model that does not reason; one told not to; one that is in the midst of it; one that may.
        for (special, end) in [(&[][..], ""), (&["<think>", "</think>"], "<think>\n\n</think>\n\n")] {
            let ask = ask(if end.is_empty() { "" } else { "<think>" }, end, special);
            ask.takes(good);
            ask.refuses(bad);
            ask.refuses(&format!("<think>hm</think>{good}"));
        }
        for special in [&[][..], &["<think>", "</think>"]] {
            let open = ask("<think>", "<think>\n", special);
            open.takes(&format!("Let {bad} me.\n</think>\n\n{good}"));
            open.refuses(&format!("Let me.\n</think>\n\n{bad}"));
            let free = ask("<think>", "", special);
            free.takes(&format!("<think>\nLet {bad} me.\n</think>\n\n{good}"));
            free.takes(good);
            free.refuses(&format!("<think>hm</think>\n{bad}"));
            free.refuses(bad);
        }
        let harmony = ask(HARMONY.template, "", HARMONY.special);
        harmony.takes(&format!("<|channel|>final<|message|>{good}"));
        let reasoned =
            format!("<|channel|>analysis<|message|>{bad}<|end|><|start|>assistant<|channel|>final<|message|>");
        harmony.takes(&format!("{reasoned}{good}"));
        harmony.refuses(&format!("{reasoned}{bad}"));
    }
}

#[test]
fn calls_and_constrained_content_go_together() {
    for family in FAMILIES.iter().chain([&HARMONY]) {
        let ask = Ask { constraint: Some(Constraint::Regex("yes|no".into())), ..Ask::of(family) };
        let content = if family.name == "harmony" { "<|channel|>final<|message|>yes" } else { "yes" };
        ask.takes(content);
        ask.takes(&(family.spell)(&good()[..1]));
        ask.refuses("perhaps");
    }
}

#[test]
fn reasoning_comes_before_required_calls() {
    for special in [&[][..], &["<think>", "</think>", "<tool_call>", "</tool_call>"]] {
        for end in ["", "<think>\n"] {
            let mut ask = Ask::new("<think> <tool_call>", end, special);
            ask.chat.tools = tools();
            ask.choice = ToolChoice::Required;
            let call = (FAMILIES[0].spell)(&good()[..1]);
            let open = if end.is_empty() { "<think>\n" } else { "" };
            ask.takes(&format!("{open}First, think.\n</think>\n\n{call}"));
            ask.refuses(&format!("{open}First, think.\n</think>\n\nNo."));
            if end.is_empty() {
                ask.takes(&call);
            }
            ask.choice = ToolChoice::Auto;
            ask.parallel = false;
            // What is thought about calls is none.
            ask.takes(&format!("{open}A <tool> and more.\n</think>\n\nText."));
            ask.takes(&format!("{open}A call.\n</think>\n\nText.\n{call}"));
            ask.refuses(&format!("{open}A call.\n</think>\n\nText.\n{call}\n{call}"));
        }
    }
}

#[test]
fn plain_prompts_are_constrained_too() {
    let ask = Ask::new("", "", &[]);
    let prompt = Prompt::Text("Once".into());
    let constraint = Constraint::Regex("a+".into());
    let request = TextRequest { constraint: Some(&constraint), ..TextRequest::new(&prompt) };
    let grammar = ask.model.text.prepare(request, now()).unwrap().grammar.unwrap().0;
    assert!(grammar.contains("/a+/"), "{grammar}");
}

#[test]
fn llguidance_takes_bytes_for_what_the_tests_model_takes_them() {
    let ask = Ask::new("", "", &["<x>"]);
    assert_eq!(ask.model.id("<x>"), TokenId(257));
    assert_eq!((ask.model.id("a"), byte_level(b"a").as_str()), (TokenId(97), "a"));
}

/// A walk through a grammar: at each place one of the tokens it allows, by these numbers.
fn walk(ask: &Ask, choices: &[u16]) -> Option<Vec<u32>> {
    let mut matcher = ask.matcher();
    let mut tokens = Vec::new();
    for choice in choices {
        if matcher.is_stopped() {
            return Some(tokens);
        }
        let mask = matcher.compute_mask().unwrap();
        // Ends as soon as it may: what is asked for is short enough then.
        if mask.is_allowed(256) {
            return Some(tokens);
        }
        // Letters and structure rather than all of Unicode.
        let likely: Vec<u32> = (0..mask.len() as u32)
            .filter(|token| {
                mask.is_allowed(*token) && (*token > 256 || b"\"}]),:{<>/ae1t \n=(".contains(&(*token as u8)))
            })
            .collect();
        let all: Vec<u32> = (0..mask.len() as u32).filter(|token| mask.is_allowed(*token)).collect();
        let from = if likely.is_empty() { &all } else { &likely };
        let token = from[usize::from(*choice) % from.len()];
        matcher.consume_token(token).unwrap();
        tokens.push(token);
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_grammar_of_calls_allows_is_read_as_calls_with_valid_arguments(
        family in prop::sample::select(FAMILIES.iter().chain([&HARMONY]).copied().collect::<Vec<_>>()),
        choices in prop::collection::vec(any::<u16>(), 400),
    ) {
        let ask = Ask { choice: ToolChoice::Required, ..Ask::of(&family) };
        let Some(tokens) = walk(&ask, &choices) else { return Ok(()) };
        let request = Prompt::Chat(ask.chat.clone());
        let asked = TextRequest { tool_choice: &ask.choice, ..TextRequest::new(&request) };
        let prepared = ask.model.text.prepare(asked, now()).unwrap();
        let outcome = run(&mut ask.model.text.answer(&prepared, &[]), tokens.iter().copied().map(TokenId));
        prop_assert!(!outcome.calls.is_empty(), "{}: {:?} from {:?}", family.name, outcome, tokens);
        for (name, arguments) in &outcome.calls {
            let arguments: Json = serde_json::from_str(arguments).map_err(|error| TestCaseError::fail(format!("{error}: {arguments}")))?;
            prop_assert!(name == "now" || (name == "get_weather" && arguments["city"].is_string()), "{name} {arguments}");
            prop_assert!(arguments["days"].is_null() || arguments["days"].is_i64() || arguments["days"].is_u64() || arguments["days"].is_f64(), "{arguments}");
        }
    }
}

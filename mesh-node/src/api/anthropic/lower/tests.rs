//! Lowering as snapshots: what a request means, and how a bad one is refused.

use mesh_proto::Sampling;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::{openai::parse::parse, thought};

fn asked_of(bytes: &[u8]) -> Result<Asked, ApiError> {
    let defaults = Sampling { temperature: 0.6, top_k: 20, ..Sampling::default() };
    messages(parse::<MessagesRequest>(bytes)?, RequestId("r".into()), &defaults)
}

/// A conversation of one word, with these fields on top.
fn with(fields: Value) -> Vec<u8> {
    let mut body = json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "hi" }] });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body.to_string().into_bytes()
}

fn asked(fields: Value) -> Asked {
    asked_of(&with(fields)).unwrap_or_else(|e| panic!("{}", e.body.message))
}

/// `param: message` of the refusal.
fn refused(fields: Value) -> String {
    let error = asked_of(&with(fields)).map(|_| ()).unwrap_err();
    assert_eq!(error.status, 400);
    format!("{}: {}", error.body.param.as_deref().unwrap_or("-"), error.body.message)
}

fn refusals(all: Vec<Value>) -> String {
    all.into_iter().map(refused).collect::<Vec<_>>().join("\n")
}

fn chat(asked: &Asked) -> &ChatPrompt {
    let Prompt::Chat(chat) = &asked.request.prompt else { panic!("no chat") };
    chat
}

/// One turn a line.
fn turns(asked: &Asked) -> String {
    let line = |turn: &mesh_proto::Message| {
        let calls: Vec<String> =
            turn.tool_calls.iter().map(|c| format!(" {}:{}({})", c.id, c.name, c.arguments)).collect();
        let of = turn.tool_call_id.as_ref().map(|id| format!(" of {id}")).unwrap_or_default();
        let thought = turn.reasoning.as_ref().map(|r| format!(" thought {r:?}")).unwrap_or_default();
        format!("{:?}{of}: {:?}{thought}{}", turn.role, turn.content, calls.concat())
    };
    chat(asked).messages.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_plain_request_takes_the_models_defaults_and_does_not_think() {
    let plain = asked(json!({}));
    insta::assert_debug_snapshot!((&plain.request, plain.stream, plain.thinking, &plain.session), @r#"
    (
        GenerateRequest {
            id: RequestId(
                "r",
            ),
            model: ModelId(
                "m",
            ),
            prompt: Chat(
                ChatPrompt {
                    messages: [
                        Message {
                            role: User,
                            content: Some(
                                "hi",
                            ),
                            reasoning: None,
                            tool_calls: [],
                            tool_call_id: None,
                            name: None,
                        },
                    ],
                    tools: [],
                    enable_thinking: Some(
                        false,
                    ),
                    reasoning_effort: None,
                    reasoning_budget: None,
                    variables: [],
                },
            ),
            sampling: Sampling {
                temperature: 0.6,
                top_p: 1.0,
                top_k: 20,
                min_p: 0.0,
                typical_p: 1.0,
                repetition_penalty: 1.0,
                presence_penalty: 0.0,
                frequency_penalty: 0.0,
                repeat_last_n: Some(
                    64,
                ),
                dry: None,
                xtc_probability: 0.0,
                xtc_threshold: 0.1,
                seed: None,
                logit_bias: [],
            },
            tool_choice: Auto,
            parallel_tool_calls: true,
            constraint: None,
            logprobs: None,
            max_tokens: Some(
                9,
            ),
            min_tokens: 0,
            stop: [],
            ignore_eos: false,
            resume: [],
            local_time_s: None,
            seed_drawn: false,
        },
        false,
        Hidden,
        None,
    )
    "#);
}

#[test]
fn every_field_that_works_arrives() {
    let tool = json!({ "name": "f", "description": "d", "input_schema": { "type": "object", "z": 1, "a": 2.0 },
        "cache_control": { "type": "ephemeral" } });
    let asked = asked(json!({
        "temperature": 1, "top_p": 0.9, "top_k": 5, "stop_sequences": ["END", ""], "stream": true, "tools": [tool],
        "tool_choice": { "type": "tool", "name": "f", "disable_parallel_tool_use": true },
        "thinking": { "type": "enabled", "budget_tokens": 2048 }, "output_config": { "effort": "high" },
        "metadata": { "user_id": "u" }, "service_tier": "auto", "cache_control": { "type": "ephemeral" },
        "container": null, "mcp_servers": [], "speed": "fast",
    }));
    let Asked { request, max_tokens, stream, thinking, session } = &asked;
    insta::assert_debug_snapshot!((&request.sampling, &request.stop, &request.tool_choice, request.parallel_tool_calls), @r#"
    (
        Sampling {
            temperature: 1.0,
            top_p: 0.9,
            top_k: 5,
            min_p: 0.0,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repeat_last_n: Some(
                64,
            ),
            dry: None,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            seed: None,
            logit_bias: [],
        },
        [
            "END",
        ],
        Named(
            "f",
        ),
        false,
    )
    "#);
    assert_eq!((*max_tokens, *stream, *thinking, session.as_deref()), (9, true, Thinking::Shown, Some("u")));
    let chat = chat(&asked);
    assert_eq!((chat.enable_thinking, chat.reasoning_budget), (Some(true), Some(2048)));
    assert_eq!(chat.reasoning_effort.as_deref(), Some("high"));
    insta::assert_snapshot!(chat.tools[0].json, @r#"{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","z":1,"a":2.0}}}"#);
}

#[test]
fn a_conversation_becomes_turns() {
    let sealed = thought::seal("deep");
    let asked = asked(json!({
        "system": [
            { "type": "text", "text": "x-anthropic-billing-header: cch=1;" },
            { "type": "text", "text": "Be terse.", "cache_control": { "type": "ephemeral" } },
            { "type": "text", "text": "Be kind." },
        ],
        "messages": [
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            { "role": "system", "content": "more context" },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "hm", "signature": "s" },
                { "type": "redacted_thinking", "data": "?" },
                { "type": "text", "text": "I look.", "citations": null },
                { "type": "tool_use", "id": "t1", "name": "f", "input": { "b": 1, "a": "x" }, "caller": { "type": "direct" } },
                { "type": "tool_use", "id": "t2", "name": "g", "input": {} },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "t1", "content": [{ "type": "text", "text": "18 C" }] },
                { "type": "tool_result", "tool_use_id": "t2", "content": "no such file", "is_error": true },
                { "type": "text", "text": "and?" },
            ] },
            { "role": "assistant", "content": [{ "type": "thinking", "thinking": "", "signature": sealed }] },
            { "role": "user", "content": "go on" },
            { "role": "user", "content": [{ "type": "document", "title": "T",
                "source": { "type": "text", "media_type": "text/plain", "data": "words" } }] },
        ],
    }));
    insta::assert_snapshot!(turns(&asked), @r#"
    System: Some("Be terse.\nBe kind.")
    User: Some("a\nb\n\n<system>\nmore context\n</system>")
    Assistant: Some("I look.") thought "hm" t1:f({"b":1,"a":"x"}) t2:g({})
    Tool of t1: Some("18 C")
    Tool of t2: Some("Error: no such file")
    User: Some("and?")
    Assistant: Some("") thought "deep"
    User: Some("go on\n\nT\nwords")
    "#);
}

#[test]
fn thinking_is_asked_for_in_three_ways_and_forgotten_on_demand() {
    let of = |thinking: Value| {
        let asked = asked(json!({ "thinking": thinking }));
        (chat(&asked).enable_thinking, asked.thinking)
    };
    assert_eq!(of(json!({ "type": "adaptive" })), (Some(true), Thinking::Shown));
    assert_eq!(of(json!({ "type": "adaptive", "display": "omitted" })), (Some(true), Thinking::Sealed));
    assert_eq!(of(json!({ "type": "disabled" })), (Some(false), Thinking::Hidden));
    assert_eq!(of(Value::Null), (Some(false), Thinking::Hidden));

    let kept = |keep: Value| {
        let thought =
            |at: u32| json!({ "role": "assistant", "content": [{ "type": "thinking", "thinking": at.to_string() }] });
        let user = json!({ "role": "user", "content": "q" });
        let messages = json!([user, thought(1), user, thought(2), user, thought(3), user]);
        let edits = json!([{ "type": "clear_thinking_20251015", "keep": keep }]);
        let asked = asked(json!({ "messages": messages, "context_management": { "edits": edits } }));
        chat(&asked).messages.iter().filter_map(|turn| turn.reasoning.clone()).collect::<String>()
    };
    assert_eq!(kept(json!("all")), "123");
    assert_eq!(kept(json!({ "type": "thinking_turns", "value": 2 })), "23");
    assert_eq!(kept(Value::Null), "3");
}

#[test]
fn an_answers_form_is_a_constraint() {
    let format = json!({ "type": "json_schema", "schema": { "type": "object" } });
    let schema = || Some(Constraint::JsonSchema("{\"type\":\"object\"}".into()));
    assert_eq!(asked(json!({ "output_config": { "format": format } })).request.constraint, schema());
    assert_eq!(asked(json!({ "output_format": format })).request.constraint, schema());
}

#[test]
fn tools_of_anthropics_servers_are_left_out_beside_others() {
    let search = json!({ "type": "web_search_20250305", "name": "web_search", "max_uses": 8 });
    let own = json!({ "type": "custom", "name": "f", "input_schema": {} });
    let with_own = asked(json!({ "tools": [search, own] }));
    let names: Vec<&str> = chat(&with_own).tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["f"]);
    insta::assert_snapshot!(refusals(vec![
        json!({ "tools": [search] }),
        json!({ "tools": [own, { "type": "bash_20250124", "name": "bash" }] }),
        json!({ "tools": [search, own], "tool_choice": { "type": "tool", "name": "web_search" } }),
    ]), @r#"
    tools[0].type: `tools[0].type` "web_search_20250305" is run by Anthropic's servers, and nothing here can run it
    tools[1].type: `tools[1].type` "bash_20250124" is a tool that only Anthropic's models know; offer it with a name and an input_schema
    tool_choice.name: `tool_choice.name` is "web_search", which is none of `tools`
    "#);
}

#[test]
fn what_does_not_work_is_refused_by_name() {
    let tools = json!([{ "name": "f", "input_schema": {} }]);
    let format = json!({ "format": { "type": "json_schema", "schema": {} } });
    insta::assert_snapshot!(refusals(vec![
        json!({ "max_tokens": null }),
        json!({ "max_tokens": 0 }),
        json!({ "temperature": 3 }),
        json!({ "top_p": 0 }),
        json!({ "top_k": -1 }),
        json!({ "stop_sequences": "x" }),
        json!({ "seed": 1 }),
        json!({ "container": "c" }),
        json!({ "mcp_servers": [{ "type": "url" }] }),
        json!({ "thinking": { "type": "enabled" } }),
        json!({ "thinking": { "type": "between_tools" } }),
        json!({ "thinking": { "type": "adaptive", "budget_tokens": 5 } }),
        json!({ "thinking": { "type": "enabled", "budget_tokens": 0 } }),
        json!({ "thinking": { "type": "adaptive", "display": "loud" } }),
        json!({ "output_config": { "effort": "utmost" } }),
        json!({ "output_config": { "task_budget": {} } }),
        json!({ "output_config": { "format": { "type": "json_object" } } }),
        json!({ "output_config": { "format": { "type": "json_schema" } } }),
        json!({ "output_config": format, "tools": tools, "tool_choice": { "type": "any" } }),
        json!({ "tool_choice": { "type": "any" } }),
        json!({ "tool_choice": { "type": "required" } }),
        json!({ "tools": tools, "tool_choice": { "type": "tool" } }),
        json!({ "tools": tools, "tool_choice": { "type": "tool", "name": "g" } }),
        json!({ "tools": tools, "tool_choice": { "type": "auto", "name": "f" } }),
        json!({ "tools": [{ "name": "f" }] }),
        json!({ "tools": [{ "name": "", "input_schema": {} }] }),
        json!({ "tools": [{ "name": "f", "input_schema": [] }] }),
        json!({ "tools": [{ "name": "f", "input_schema": {}, "colour": "red" }] }),
        json!({ "context_management": { "edits": [{ "type": "clear_tool_uses_20250919" }] } }),
        json!({ "context_management": { "edits": [{ "type": "clear_thinking_20251015", "keep": 3 }] } }),
    ]), @r#"
    max_tokens: `max_tokens` is missing
    max_tokens: `max_tokens` must be at least 1, not 0
    temperature: `temperature` must be from 0 to 2, not 3
    top_p: `top_p` must be above 0 and at most 1, not 0
    top_k: `top_k` must be 0 (off) or a number of tokens, not -1
    stop_sequences: `stop_sequences`: invalid type: string "x", expected a sequence
    seed: `seed` is not a parameter that works here; leave it out
    container: `container` does not work here; leave it out
    mcp_servers: `mcp_servers` does not work here; leave it out
    thinking.budget_tokens: `thinking.budget_tokens` is missing; enabled thinking has one
    thinking.type: `thinking.type` must be enabled, adaptive or disabled, not "between_tools"
    thinking.budget_tokens: `thinking.budget_tokens` goes with "enabled", not with "adaptive"
    thinking.budget_tokens: `thinking.budget_tokens` must be at least 1, not 0
    thinking.display: `thinking.display` must be "summarized" or "omitted", not "loud"
    output_config.effort: `output_config.effort` must be low, medium, high, xhigh or max, not "utmost"
    output_config.task_budget: `output_config.task_budget` is not a parameter that works here; leave it out
    output_config.format.type: `output_config.format.type` must be "json_schema", not "json_object"
    output_config.format.schema: `output_config.format.schema` is missing
    output_config.format: `output_config.format` cannot be had together with a `tool_choice` that wants a call
    tool_choice: `tool_choice` wants a call, and `tools` offers none
    tool_choice.type: `tool_choice.type` must be auto, any, tool or none, not "required"
    tool_choice.name: `tool_choice.name` is missing
    tool_choice.name: `tool_choice.name` is "g", which is none of `tools`
    tool_choice.name: `tool_choice.name` goes with `tool_choice.type` "tool"
    tools[0].input_schema: `tools[0].input_schema` is missing
    tools[0].name: `tools[0].name` must be 1 to 128 letters, digits, '_' or '-'
    tools[0].input_schema: `tools[0].input_schema` must be a JSON schema, which is an object
    tools[0].colour: `tools[0].colour` is not a parameter that works here; leave it out
    context_management.edits[0].type: `context_management.edits[0].type` "clear_tool_uses_20250919" does not work here; "clear_thinking_20251015" does
    context_management.edits[0].keep: `context_management.edits[0].keep` must be "all" or {"type": "thinking_turns", "value": N}
    "#);
}

#[test]
fn bad_messages_are_refused_by_their_path() {
    let content = |block: Value| json!({ "messages": [{ "role": "user", "content": [block] }] });
    let said = |block: Value| json!({ "messages": [{ "role": "assistant", "content": [block] }, { "role": "user", "content": "x" }] });
    insta::assert_snapshot!(refusals(vec![
        json!({ "messages": "hi" }),
        json!({ "messages": [] }),
        json!({ "messages": [["user", "hi"]] }),
        json!({ "messages": [{ "role": "wizard", "content": "x" }] }),
        json!({ "messages": [{ "role": "user" }] }),
        json!({ "messages": [{ "role": "user", "content": 5 }] }),
        json!({ "messages": [{ "role": "user", "content": "x", "id": "1" }] }),
        json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "assistant", "content": "{" }] }),
        json!({ "system": 5 }),
        json!({ "system": [{ "type": "image" }] }),
        content(json!(5)),
        content(json!({ "text": "x" })),
        content(json!({ "type": "text" })),
        content(json!({ "type": "text", "text": 5 })),
        content(json!({ "type": "text", "text": "x", "size": 5 })),
        content(json!({ "type": "image", "source": { "type": "base64", "data": "" } })),
        content(json!({ "type": "document", "source": { "type": "base64", "data": "" } })),
        content(json!({ "type": "document", "source": { "type": "text", "data": "x" }, "citations": { "enabled": true } })),
        content(json!({ "type": "tool_use", "id": "t", "name": "f", "input": {} })),
        content(json!({ "type": "tool_result" })),
        content(json!({ "type": "tool_result", "tool_use_id": "t", "content": [{ "type": "image" }] })),
        said(json!({ "type": "tool_use", "id": "t", "name": "f", "input": 5 })),
        said(json!({ "type": "tool_use", "id": "t", "input": {} })),
        said(json!({ "type": "image" })),
        said(json!({ "type": "tool_result", "tool_use_id": "t" })),
    ]), @r#"
    messages: `messages`: invalid type: string "hi", expected a sequence
    messages: `messages` must have at least one message
    messages[0]: `messages[0]`: invalid type: sequence, expected a JSON object
    messages[0].role: `messages[0].role`: unknown variant `wizard`, expected one of `user`, `assistant`, `system`
    messages[0].content: `messages[0].content` is missing
    messages[0].content: `messages[0].content`: invalid type: integer `5`, expected text or an array of content blocks
    messages[0].id: `messages[0].id` is not a parameter that works here; leave it out
    messages: `messages` must end with a user's message: an answer that is begun already (prefill) cannot be gone on with
    system: `system`: invalid type: integer `5`, expected text or an array of content blocks
    system[0]: `system[0]` is of type "image", and this model has no eyes; it reads text
    messages[0].content[0]: `messages[0].content[0]`: invalid type: integer `5`, expected a JSON object
    messages[0].content[0].type: `messages[0].content[0].type` is missing
    messages[0].content[0].text: `messages[0].content[0].text` is missing
    messages[0].content[0].text: `messages[0].content[0].text`: invalid type: integer `5`, expected a string
    messages[0].content[0].size: `messages[0].content[0].size` is not a parameter that works here; leave it out
    messages[0].content[0]: `messages[0].content[0]` is of type "image", and this model has no eyes; it reads text
    messages[0].content[0].source: `messages[0].content[0].source` is of type "base64", and this model has no eyes; it reads text
    messages[0].content[0].citations: `messages[0].content[0].citations` does not work here; leave it out
    messages[0].content[0]: `messages[0].content[0]` is of type "tool_use", which does not work here; it takes text
    messages[0].content[0].tool_use_id: `messages[0].content[0].tool_use_id` is missing
    messages[0].content[0].content[0]: `messages[0].content[0].content[0]` is of type "image", and this model has no eyes; it reads text
    messages[0].content[0].input: `messages[0].content[0].input` must be an object
    messages[0].content[0].name: `messages[0].content[0].name` is missing
    messages[0].content[0]: `messages[0].content[0]` is of type "image", and this model has no eyes; it reads text
    messages[0].content[0]: `messages[0].content[0]` is of type "tool_result", which does not work here; it takes text
    "#);
}

#[test]
fn counting_asks_for_the_same_prompt_and_no_answer() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"hi"}],"system":"s"}"#;
    let counted = count(parse(body).unwrap(), RequestId("r".into()), &Sampling::default()).unwrap();
    assert_eq!(counted.request.max_tokens, Some(0));
    assert_eq!(turns(&counted), turns(&asked(json!({ "system": "s" }))));
}

const FIELDS: [&str; 14] = [
    "model",
    "messages",
    "system",
    "max_tokens",
    "temperature",
    "top_k",
    "stop_sequences",
    "stream",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "context_management",
    "metadata",
];

proptest! {
    /// Whatever comes, the answer is a request or a 400, and the 400 names a field of the body, or says that it is none.
    #[test]
    fn any_json_is_lowered_or_refused(
        field in proptest::sample::select(&FIELDS[..]),
        value in crate::api::fields::any_json(&["role", "content", "type", "text", "tool_use_id", "input", "name", "edits"]),
    ) {
        let turn = json!({ "messages": [{ "role": "user", "content": [value] }] });
        for body in [with(json!({ field: value })), with(turn)] {
            if let Err(error) = asked_of(&body) {
                prop_assert_eq!(error.status, 400);
                prop_assert!(error.body.param.is_some() || error.body.code == Some("malformed_body"), "{:?}", error);
            }
        }
    }
}

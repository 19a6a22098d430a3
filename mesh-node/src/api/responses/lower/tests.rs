//! Lowering as snapshots: what a request means, and how a bad one is refused.

use mesh_proto::Message;
use proptest::prelude::*;
use serde_json::json;

use super::{super::item::Input, *};
use crate::api::{openai::parse::parse, thought};

fn lowered(bytes: &[u8], earlier: &[Value]) -> Result<Asked, ApiError> {
    let defaults = Sampling { temperature: 0.6, top_k: 20, ..Sampling::default() };
    let mut dto: CreateRequest = parse(bytes)?;
    let raw = |item: &Value| serde_json::value::to_raw_value(item).unwrap();
    let earlier: Vec<Box<RawValue>> = earlier.iter().map(raw).collect();
    let input = match dto.input.take() {
        None => Vec::new(),
        Some(Input::Text(text)) => vec![said(&text)?],
        Some(Input::Items(items)) => items,
    };
    response(dto, &earlier, &input, RequestId("r".into()), &defaults)
}

/// A request of one word, with these fields on top.
fn with(fields: Value) -> Vec<u8> {
    let mut body = json!({ "model": "m", "input": "hi" });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body.to_string().into_bytes()
}

fn asked(fields: Value) -> Asked {
    lowered(&with(fields), &[]).unwrap_or_else(|e| panic!("{}", e.body.message))
}

/// `param: message` of the refusal.
fn refused(fields: Value) -> String {
    let error = lowered(&with(fields), &[]).map(|_| ()).unwrap_err();
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
    let line = |turn: &Message| {
        let calls: Vec<String> =
            turn.tool_calls.iter().map(|c| format!(" {}:{}({})", c.id, c.name, c.arguments)).collect();
        let of = turn.tool_call_id.as_ref().map(|id| format!(" of {id}")).unwrap_or_default();
        let thought = turn.reasoning.as_ref().map(|r| format!(" thought {r:?}")).unwrap_or_default();
        format!("{:?}{of}: {:?}{thought}{}", turn.role, turn.content, calls.concat())
    };
    chat(asked).messages.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn function(name: &str) -> Value {
    json!({ "type": "function", "name": name, "description": "d", "strict": true,
        "parameters": { "type": "object", "z": 1, "a": 2.0 } })
}

#[test]
fn a_plain_request_takes_the_models_defaults_and_is_told_back() {
    let plain = asked(json!({}));
    assert_eq!(plain.request.sampling, Sampling { temperature: 0.6, top_k: 20, ..Sampling::default() });
    assert_eq!((plain.request.max_tokens, plain.request.logprobs, &plain.request.constraint), (None, None, &None));
    assert_eq!((plain.stream, plain.seals, plain.truncates, chat(&plain).enable_thinking), (false, false, false, None));
    insta::assert_snapshot!(turns(&plain), @r#"User: Some("hi")"#);
    insta::assert_json_snapshot!(plain.echo, @r#"
    {
      "instructions": null,
      "max_output_tokens": null,
      "max_tool_calls": null,
      "metadata": {},
      "parallel_tool_calls": true,
      "previous_response_id": null,
      "prompt_cache_key": null,
      "reasoning": {
        "effort": null,
        "summary": null
      },
      "safety_identifier": null,
      "service_tier": "default",
      "store": true,
      "temperature": 0.6,
      "text": {
        "format": {
          "type": "text"
        }
      },
      "tool_choice": "auto",
      "tools": [],
      "top_logprobs": 0,
      "top_p": 1.0,
      "truncation": "disabled"
    }
    "#);
}

#[test]
fn every_field_that_works_arrives() {
    let asked = asked(json!({
        "instructions": "Be terse.", "temperature": 1, "top_p": 0.9, "max_output_tokens": 9, "stream": true, "store": false,
        "tools": [function("f")], "tool_choice": "required", "parallel_tool_calls": false, "truncation": "auto",
        "reasoning": { "effort": "high", "summary": "auto" }, "metadata": { "a": "b" }, "user": "u",
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs", "web_search_call.results"],
        "top_logprobs": 3, "prompt_cache_key": "k", "client_metadata": {}, "service_tier": "auto", "background": false,
        "text": { "verbosity": "low" }, "stream_options": { "include_obfuscation": false }, "max_tool_calls": 4,
        "conversation": null, "prompt": null, "safety_identifier": "s", "prompt_cache_retention": "24h",
    }));
    let request = &asked.request;
    assert_eq!((request.sampling.temperature, request.sampling.top_p, request.max_tokens), (1.0, 0.9, Some(9)));
    assert_eq!((&request.tool_choice, request.parallel_tool_calls), (&ToolChoice::Required, false));
    assert_eq!((request.logprobs, chat(&asked).reasoning_effort.as_deref()), (Some(3), Some("high")));
    assert!(asked.stream && asked.seals && asked.truncates);
    insta::assert_snapshot!(turns(&asked), @r#"
    System: Some("Be terse.")
    User: Some("hi")
    "#);
    insta::assert_snapshot!(chat(&asked).tools[0].json, @r#"{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","z":1,"a":2.0},"strict":true}}"#);
    insta::assert_snapshot!(serde_json::to_string(&asked.echo).unwrap(), @r#"{"instructions":"Be terse.","max_output_tokens":9,"max_tool_calls":4,"metadata":{"a":"b"},"parallel_tool_calls":false,"previous_response_id":null,"prompt_cache_key":"k","reasoning":{"effort":"high","summary":"auto"},"safety_identifier":"s","service_tier":"default","store":false,"temperature":1.0,"text":{"format":{"type":"text"}},"tool_choice":"required","tools":[{"type":"function","name":"f","description":"d","strict":true,"parameters":{"type":"object","z":1,"a":2.0}}],"top_logprobs":3,"top_p":0.9,"truncation":"auto","user":"u"}"#);
}

#[test]
fn items_become_turns() {
    let items = json!([
        { "type": "message", "role": "developer", "id": "i1", "content": [{ "type": "input_text", "text": "Be kind." }] },
        { "role": "user", "content": "a" },
        { "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "b" }, { "type": "input_text", "text": "c" }] },
        { "type": "reasoning", "id": "rs", "summary": [], "content": [{ "type": "reasoning_text", "text": "hm" }], "status": null },
        { "type": "message", "role": "assistant", "id": "msg", "status": "completed", "phase": "commentary",
          "content": [{ "type": "output_text", "text": "I look.", "annotations": [], "logprobs": [] }] },
        { "type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": "{ }", "status": "completed" },
        { "type": "function_call", "call_id": "c2", "name": "spawn", "namespace": "agents", "arguments": "{}" },
        { "type": "custom_tool_call", "call_id": "c3", "name": "patch", "input": "a \"b\"" },
        { "type": "function_call_output", "call_id": "c1", "output": "18 C" },
        { "type": "function_call_output", "call_id": "c2", "output": [{ "type": "input_text", "text": "done" }] },
        { "type": "custom_tool_call_output", "call_id": "c3", "output": "patched" },
        { "type": "web_search_call", "id": "ws", "status": "completed", "action": {} },
        { "type": "reasoning", "summary": [], "encrypted_content": thought::seal("deep") },
        { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "in short" }], "encrypted_content": "gAAA" },
        { "role": "assistant", "content": [{ "type": "refusal", "refusal": "no" }] },
        { "role": "user", "content": "go on" },
        { "role": "developer", "content": "late" },
    ]);
    insta::assert_snapshot!(turns(&asked(json!({ "instructions": "Be terse.", "input": items }))), @r#"
    System: Some("Be terse.\n\nBe kind.")
    User: Some("a\n\nbc")
    Assistant: Some("I look.") thought "hm" c1:f({ }) c2:agents__spawn({}) c3:patch({"input":"a \"b\""})
    Tool of c1: Some("18 C")
    Tool of c2: Some("done")
    Tool of c3: Some("patched")
    Assistant: Some("no") thought "deep\n\nin short"
    User: Some("go on\n\n<system>\nlate\n</system>")
    "#);
}

#[test]
fn what_was_said_before_comes_first_and_needs_no_new_words() {
    let earlier = [
        json!({ "type": "message", "id": "msg_1", "role": "user", "content": [{ "type": "input_text", "text": "q" }] }),
        json!({ "type": "message", "id": "msg_2", "role": "assistant", "content": [{ "type": "output_text", "text": "a" }] }),
    ];
    let body = with(json!({ "instructions": "new", "input": "more" }));
    insta::assert_snapshot!(turns(&lowered(&body, &earlier).unwrap()), @r#"
    System: Some("new")
    User: Some("q")
    Assistant: Some("a")
    User: Some("more")
    "#);
    assert!(lowered(&with(json!({ "input": null })), &earlier).is_ok());
}

#[test]
fn tools_of_all_kinds_become_functions_and_some_are_left_out() {
    let asked = asked(json!({ "tools": [
        function("f"),
        { "type": "namespace", "name": "agents", "description": "x", "tools": [
            { "type": "function", "name": "spawn", "strict": false, "parameters": null },
            { "type": "custom", "name": "say" },
        ] },
        { "type": "custom", "name": "patch", "description": "d", "format": { "type": "grammar", "syntax": "lark", "definition": "start: /a/" } },
        { "type": "web_search", "external_web_access": false },
        { "type": "local_shell" },
    ] }));
    let tools: Vec<&str> = chat(&asked).tools.iter().map(|tool| tool.json.as_str()).collect();
    insta::assert_snapshot!(tools.join("\n"), @r#"
    {"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","z":1,"a":2.0},"strict":true}}
    {"type":"function","function":{"name":"agents__spawn","parameters":{"type":"object","properties":{}},"strict":false}}
    {"type":"function","function":{"name":"agents__say","parameters":{"type":"object","properties":{"input":{"type":"string"}},"required":["input"]}}}
    {"type":"function","function":{"name":"patch","description":"d","parameters":{"type":"object","properties":{"input":{"type":"string","description":"Text that follows this lark grammar:\nstart: /a/"}},"required":["input"]}}}
    "#);
    insta::assert_debug_snapshot!(asked.names, @r#"
    {
        "agents__say": Known {
            namespace: Some(
                "agents",
            ),
            name: "say",
            is_custom: true,
        },
        "agents__spawn": Known {
            namespace: Some(
                "agents",
            ),
            name: "spawn",
            is_custom: false,
        },
        "patch": Known {
            namespace: None,
            name: "patch",
            is_custom: true,
        },
    }
    "#);
    assert_eq!(asked.echo.tools.len(), 5);
}

#[test]
fn a_choice_may_name_tools_or_allow_some() {
    let tools = json!([function("f"), function("g"), { "type": "web_search" }]);
    let of = |choice: Value| {
        let asked = asked(json!({ "tools": tools, "tool_choice": choice }));
        let names: Vec<String> = chat(&asked).tools.iter().map(|tool| tool.name.clone()).collect();
        (asked.request.tool_choice.clone(), names.join(" "), asked.echo.tool_choice)
    };
    assert_eq!(of(Value::Null), (ToolChoice::Auto, "f g".into(), json!("auto")));
    assert_eq!(of(json!("none")).0, ToolChoice::None);
    let named = json!({ "type": "function", "name": "g" });
    assert_eq!(of(named.clone()), (ToolChoice::Named("g".into()), "f g".into(), named));
    let allowed = json!({ "type": "allowed_tools", "mode": "required", "tools": [{ "type": "function", "name": "g" }, { "type": "web_search" }] });
    assert_eq!(of(allowed.clone()), (ToolChoice::Required, "g".into(), allowed));
}

#[test]
fn an_answers_form_is_a_constraint() {
    let format = |format: Value| asked(json!({ "text": { "format": format } }));
    assert_eq!(format(json!({ "type": "text" })).request.constraint, None);
    assert_eq!(format(json!({ "type": "json_object" })).request.constraint, Some(Constraint::JsonObject));
    let schema = format(json!({ "type": "json_schema", "name": "r", "strict": true, "schema": { "z": 1, "a": 1.0 } }));
    assert_eq!(schema.request.constraint, Some(Constraint::JsonSchema("{\"z\":1,\"a\":1.0}".into())));
    insta::assert_snapshot!(schema.echo.text, @r#"{"format":{"type":"json_schema","name":"r","schema":{"z":1,"a":1.0},"strict":true}}"#);
}

#[test]
fn what_does_not_work_is_refused_by_name() {
    let tools = json!([function("f")]);
    let schema = json!({ "format": { "type": "json_object" } });
    let choice = |choice: Value| json!({ "tools": tools, "tool_choice": choice });
    insta::assert_snapshot!(refusals(vec![
        json!({ "background": true }),
        json!({ "conversation": "c" }),
        json!({ "prompt": { "id": "p" } }),
        json!({ "context_management": [{ "type": "compaction" }] }),
        json!({ "seed": 1 }),
        json!({ "temperature": 3 }),
        json!({ "max_output_tokens": 0 }),
        json!({ "top_logprobs": 21 }),
        json!({ "include": ["everything"] }),
        json!({ "truncation": "some" }),
        json!({ "metadata": { "a": 5 } }),
        json!({ "reasoning": { "effort": "utmost" } }),
        json!({ "reasoning": { "summary": "long" } }),
        json!({ "reasoning": { "mode": "pro" } }),
        json!({ "text": { "format": { "type": "yaml" } } }),
        json!({ "text": { "format": { "type": "json_schema", "schema": {} } } }),
        json!({ "text": { "format": { "type": "json_schema", "name": "r" } } }),
        json!({ "text": { "format": { "type": "json_schema", "name": "r", "schema": [] } } }),
        json!({ "text": schema, "tools": tools, "tool_choice": "required" }),
        json!({ "tool_choice": "required" }),
        choice(json!("any")),
        choice(json!(5)),
        choice(json!({ "type": "function" })),
        choice(json!({ "type": "function", "name": "g" })),
        choice(json!({ "type": "web_search" })),
        choice(json!({ "type": "allowed_tools" })),
        choice(json!({ "type": "allowed_tools", "tools": [{ "type": "function", "name": "g" }] })),
        choice(json!({ "type": "allowed_tools", "mode": "none", "tools": [] })),
        json!({ "tools": [{ "type": "web_search" }] }),
        json!({ "tools": [{ "type": "file_search" }] }),
        json!({ "tools": [{ "type": "function", "function": { "name": "f" } }] }),
        json!({ "tools": [{ "type": "function" }] }),
        json!({ "tools": [{ "type": "function", "name": "" }] }),
        json!({ "tools": [{ "type": "function", "name": "f", "parameters": 5 }] }),
        json!({ "tools": [function("f"), function("f")] }),
        json!({ "tools": [{ "type": "custom", "name": "f", "format": { "type": "grammar" } }] }),
        json!({ "tools": [{ "type": "namespace", "name": "n", "tools": [{ "type": "namespace", "name": "m", "tools": [] }] }] }),
    ]), @r#"
    background: `background` does not work here; leave it out
    conversation: `conversation` does not work here; leave it out
    prompt: `prompt` does not work here; leave it out
    context_management: `context_management` does not work here; leave it out
    seed: `seed` is not a parameter that works here; leave it out
    temperature: `temperature` must be from 0 to 2, not 3
    max_output_tokens: `max_output_tokens` must be at least 1, not 0
    top_logprobs: `top_logprobs` must be from 0 to 20, not 21
    include[0]: `include[0]` "everything" cannot be included
    truncation: `truncation` must be "auto" or "disabled", not "some"
    metadata.a: `metadata.a`: invalid type: integer `5`, expected a string
    reasoning.effort: `reasoning.effort` must be none, minimal, low, medium, high, xhigh, max, not "utmost"
    reasoning.summary: `reasoning.summary` must be auto, concise or detailed, not "long"
    reasoning.mode: `reasoning.mode` is not a parameter that works here; leave it out
    text.format.type: `text.format.type` must be text, json_object or json_schema, not "yaml"
    text.format.name: `text.format.name` is missing
    text.format.schema: `text.format.schema` is missing
    text.format.schema: `text.format.schema` must be a JSON schema, which is an object
    text.format: `text.format` cannot be had together with a `tool_choice` that wants a call
    tool_choice: `tool_choice` wants a call, and `tools` offers none
    tool_choice: `tool_choice` must be auto, none, required or an object, not "any"
    tool_choice: `tool_choice` must be a word or an object with a type
    tool_choice.name: `tool_choice.name` is missing
    tool_choice.name: `tool_choice.name` is "g", which is none of `tools`
    tool_choice: `tool_choice` cannot ask for "web_search"; it can for a function or custom tool
    tool_choice.tools: `tool_choice.tools` is missing
    tool_choice.tools[0]: `tool_choice.tools[0]` is function "g", which is none of `tools`
    tool_choice.mode: `tool_choice.mode` must be auto or required, not "none"
    tools[0].type: `tools[0].type` "web_search" is run by OpenAI's servers, and nothing here can run it
    tools[0].type: `tools[0].type` "file_search" does not work here; function, custom and namespace do
    tools[0].function: `tools[0].function` is not a parameter that works here; leave it out
    tools[0].name: `tools[0].name` is missing
    tools[0].name: `tools[0].name` must be 1 to 128 letters, digits, '_' or '-'
    tools[0].parameters: `tools[0].parameters` must be a JSON schema, which is an object
    tools[1].name: `tools[1].name` "f" is offered twice
    tools[0].format: `tools[0].format` must be of type "text", or "grammar" with a syntax and a definition
    tools[0].tools[0].type: `tools[0].tools[0].type` "namespace" does not work here; function, custom and namespace do
    "#);
}

#[test]
fn bad_items_are_refused_by_their_path() {
    let item = |item: Value| json!({ "input": [item] });
    let part = |part: Value| item(json!({ "role": "user", "content": [part] }));
    insta::assert_snapshot!(refusals(vec![
        json!({ "input": null }),
        json!({ "input": [] }),
        json!({ "input": 5 }),
        json!({ "input": null, "instructions": "x" }),
        item(json!(5)),
        item(json!({ "text": "x" })),
        item(json!({ "type": "compaction", "encrypted_content": "x" })),
        item(json!({ "role": "wizard", "content": "x" })),
        item(json!({ "role": "tool", "content": "x" })),
        item(json!({ "role": "user" })),
        item(json!({ "role": "user", "content": "x", "mood": "glad" })),
        part(json!({ "type": "input_image", "image_url": "data:" })),
        part(json!({ "type": "input_file", "file_id": "f" })),
        part(json!({ "type": "input_audio" })),
        part(json!({ "type": "input_text" })),
        part(json!(5)),
        item(json!({ "type": "function_call", "call_id": "c", "name": "f" })),
        item(json!({ "type": "custom_tool_call", "call_id": "c", "name": "f" })),
        item(json!({ "type": "function_call_output", "output": "x" })),
        item(json!({ "type": "function_call_output", "call_id": "c", "output": [{ "type": "input_image" }] })),
    ]), @r#"
    input: `input` must say something; instructions alone ask for nothing
    input: `input` must say something; instructions alone ask for nothing
    input: `input`: invalid type: integer `5`, expected text or an array of items
    input: `input` must say something; instructions alone ask for nothing
    input[0]: `input[0]`: invalid type: integer `5`, expected a JSON object
    input[0].type: `input[0].type` is missing
    input[0].type: `input[0].type` "compaction" does not work here; messages, calls, their outputs and reasoning do
    input[0].role: `input[0].role`: unknown variant `wizard`, expected one of `system`, `developer`, `user`, `assistant`, `tool`
    input[0].role: `input[0].role` must be user, assistant, system or developer; a tool's output is an item of its own
    input[0].content: `input[0].content` is missing
    input[0].mood: `input[0].mood` is not a parameter that works here; leave it out
    input[0].content[0]: `input[0].content[0]` is of type "input_image", and this model has no eyes; it reads "input_text"
    input[0].content[0]: `input[0].content[0]` is of type "input_file", and this model reads no files; it reads "input_text"
    input[0].content[0]: `input[0].content[0]` is of type "input_audio", and this model has no ears; it reads "input_text"
    input[0].content[0].text: `input[0].content[0].text` is missing
    input[0].content[0]: `input[0].content[0]`: invalid type: integer `5`, expected a JSON object
    input[0].arguments: `input[0].arguments` is missing
    input[0].input: `input[0].input` is missing
    input[0].call_id: `input[0].call_id` is missing
    input[0].output[0]: `input[0].output[0]` is of type "input_image", and this model has no eyes; it reads "input_text"
    "#);
}

#[test]
fn items_are_kept_with_ids_types_and_parts() {
    let items: Vec<Box<RawValue>> = serde_json::from_value(json!([
        { "role": "user", "content": "a" },
        { "role": "assistant", "content": "b", "id": "msg_x" },
        { "type": "function_call_output", "call_id": "c", "output": "18" },
    ]))
    .unwrap();
    let kept = resources("7", &items);
    let lines: Vec<String> = kept.iter().map(|item| format!("{} {}", item.id, item.json)).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    msg_7in0 {"role":"user","content":[{"type":"input_text","text":"a"}],"id":"msg_7in0","type":"message","status":"completed"}
    msg_x {"role":"assistant","content":[{"type":"output_text","text":"b","annotations":[]}],"id":"msg_x","type":"message","status":"completed"}
    fco_7in2 {"type":"function_call_output","call_id":"c","output":"18","id":"fco_7in2"}
    "#);
}

const FIELDS: [&str; 14] = [
    "model",
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "text",
    "reasoning",
    "include",
    "metadata",
    "max_output_tokens",
    "temperature",
    "top_logprobs",
    "truncation",
    "stream",
];
const WORDS: [&str; 14] = [
    "role",
    "content",
    "type",
    "text",
    "call_id",
    "output",
    "name",
    "message",
    "function",
    "custom",
    "namespace",
    "tools",
    "input",
    "format",
];

proptest! {
    /// Whatever comes, the answer is a request or a 400, and the 400 names a field of the body, or says that it is none.
    #[test]
    fn any_json_is_lowered_or_refused(
        field in proptest::sample::select(&FIELDS[..]),
        value in crate::api::fields::any_json(&WORDS),
    ) {
        for fields in [json!({ field: value }), json!({ "input": [value] }), json!({ "tools": [value] })] {
            if let Err(error) = lowered(&with(fields), &[]) {
                prop_assert_eq!(error.status, 400);
                prop_assert!(error.body.param.is_some() || error.body.code == Some("malformed_body"), "{:?}", error);
            }
        }
    }
}

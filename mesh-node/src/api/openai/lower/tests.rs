//! Lowering as snapshots: what a request means, and how a bad one is refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use mesh_proto::{Constraint, ToolChoice};

use super::*;
use crate::api::{
    ApiError,
    openai::{chat::ChatRequest, completions::CompletionRequest, parse::parse},
};

mod legacy;
mod wishes;

fn facts() -> Facts {
    Facts { vocab_size: 1000, defaults: Sampling { temperature: 0.6, top_k: 20, ..Sampling::default() } }
}

fn chat_of(bytes: &[u8]) -> Result<AskedChat, ApiError> {
    chat(parse::<ChatRequest>(bytes)?, mesh_proto::RequestId("r".into()), &facts())
}

fn completions_of(bytes: &[u8]) -> Result<AskedCompletions, ApiError> {
    completions(parse::<CompletionRequest>(bytes)?, mesh_proto::RequestId("r".into()), &facts()).map_err(Into::into)
}

/// A chat of one word, with these fields on top.
fn with(fields: Value) -> Vec<u8> {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body.to_string().into_bytes()
}

fn lowered(fields: Value) -> GenerateRequest {
    chat_of(&with(fields)).unwrap_or_else(|e| panic!("{}", e.body.message)).requests.remove(0)
}

/// `param: message` of the refusal.
fn refused(bytes: &[u8]) -> String {
    let error = chat_of(bytes).map(|_| ()).unwrap_err();
    assert_eq!(error.status, 400);
    format!("{}: {}", error.body.param.as_deref().unwrap_or("-"), error.body.message)
}

#[test]
fn a_plain_request_takes_the_models_defaults() {
    insta::assert_json_snapshot!(lowered(json!({})), @r#"
    {
      "id": "r",
      "model": "m",
      "prompt": {
        "Chat": {
          "messages": [
            {
              "role": "user",
              "content": "hi",
              "reasoning": null,
              "tool_calls": [],
              "tool_call_id": null,
              "name": null
            }
          ],
          "tools": [],
          "enable_thinking": null,
          "reasoning_effort": null,
          "reasoning_budget": null,
          "variables": []
        }
      },
      "sampling": {
        "temperature": 0.6,
        "top_p": 1.0,
        "top_k": 20,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repeat_last_n": 64,
        "dry": null,
        "xtc_probability": 0.0,
        "xtc_threshold": 0.1,
        "seed": null,
        "logit_bias": []
      },
      "tool_choice": "Auto",
      "parallel_tool_calls": true,
      "constraint": null,
      "logprobs": null,
      "max_tokens": null,
      "min_tokens": 0,
      "stop": [],
      "ignore_eos": false,
      "resume": [],
      "local_time_s": null
    }
    "#);
}

#[test]
fn every_field_that_works_arrives() {
    let request = lowered(json!({
        "temperature": 1, "top_p": 0.9, "top_k": 5, "min_p": 0.05, "seed": -1, "stop": "END", "max_completion_tokens": 9,
        "logit_bias": { "7": -100 }, "ignore_eos": true, "tool_choice": "none", "reasoning_effort": "none",
        "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "z": 1, "a": 2.0 } } }],
        "messages": [
            { "role": "developer", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            { "role": "user", "content": "q", "name": "Ann" },
            { "role": "assistant", "content": null, "refusal": null, "annotations": [], "audio": null, "function_call": null,
              "provider_specific_fields": { "refusal": null },
              "reasoning_content": "hm", "reasoning": "hm",
              "tool_calls": [{ "id": "c1", "type": "function", "index": 0, "function": { "name": "f", "arguments": "{ }" } }] },
            { "role": "tool", "tool_call_id": "c1", "content": [{ "type": "text", "text": "18 C" }] },
        ],
    }));
    insta::assert_json_snapshot!(request, @r#"
    {
      "id": "r",
      "model": "m",
      "prompt": {
        "Chat": {
          "messages": [
            {
              "role": "developer",
              "content": "ab",
              "reasoning": null,
              "tool_calls": [],
              "tool_call_id": null,
              "name": null
            },
            {
              "role": "user",
              "content": "q",
              "reasoning": null,
              "tool_calls": [],
              "tool_call_id": null,
              "name": "Ann"
            },
            {
              "role": "assistant",
              "content": null,
              "reasoning": "hm",
              "tool_calls": [
                {
                  "id": "c1",
                  "name": "f",
                  "arguments": "{ }"
                }
              ],
              "tool_call_id": null,
              "name": null
            },
            {
              "role": "tool",
              "content": "18 C",
              "reasoning": null,
              "tool_calls": [],
              "tool_call_id": "c1",
              "name": null
            }
          ],
          "tools": [
            {
              "name": "f",
              "json": "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"z\":1,\"a\":2.0}}}"
            }
          ],
          "enable_thinking": false,
          "reasoning_effort": null,
          "reasoning_budget": null,
          "variables": []
        }
      },
      "sampling": {
        "temperature": 1.0,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.05,
        "typical_p": 1.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repeat_last_n": 64,
        "dry": null,
        "xtc_probability": 0.0,
        "xtc_threshold": 0.1,
        "seed": 18446744073709551615,
        "logit_bias": [
          {
            "token": 7,
            "bias": -100.0
          }
        ]
      },
      "tool_choice": "None",
      "parallel_tool_calls": true,
      "constraint": null,
      "logprobs": null,
      "max_tokens": 9,
      "min_tokens": 0,
      "stop": [
        "END"
      ],
      "ignore_eos": true,
      "resume": [],
      "local_time_s": null
    }
    "#);
}

#[test]
fn neutral_values_nulls_and_harmless_fields_change_nothing() {
    let request = lowered(json!({
        "n": 1, "logprobs": false, "top_logprobs": 0, "frequency_penalty": 0, "presence_penalty": 0.0, "repetition_penalty": 1.0,
        "repeat_penalty": 1, "typical_p": 1, "xtc_probability": 0, "dry_multiplier": 0, "min_tokens": 0,
        "response_format": { "type": "text" }, "parallel_tool_calls": true, "functions": [], "function_call": null,
        "modalities": ["text"], "audio": null, "prediction": null, "web_search_options": null, "tools": [], "tool_choice": null,
        "stop": [], "stream": null, "stream_options": null, "max_tokens": null, "seed": null, "top_p": null, "logit_bias": null,
        "user": "u", "store": true, "metadata": { "a": { "b": 1 } }, "client_metadata": {}, "service_tier": "auto",
        "prompt_cache_key": "k", "prompt_cache_retention": "24h", "safety_identifier": "s", "verbosity": "low",
        "cache_prompt": true,
    }));
    assert_eq!(request, lowered(json!({})));
    let request = lowered(json!({
        "chat_template_kwargs": { "enable_thinking": null, "anything": null },
        "presence_penalty": null, "repeat_last_n": null, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": -1,
        "dry_sequence_breakers": ["\n"], "xtc_threshold": null, "regex": null, "lark": null, "reasoning_effort": null,
        "reasoning_budget": -1, "thinking_budget_tokens": null,
    }));
    assert_eq!(request, lowered(json!({})));
}

#[test]
fn what_does_not_work_is_refused_by_name() {
    let named = |name: &str| json!({ "type": "function", "function": { "name": name } });
    let fields = [
        json!({ "n": 0 }),
        json!({ "n": 17 }),
        json!({ "top_logprobs": 2 }),
        json!({ "logprobs": true, "top_logprobs": 21 }),
        json!({ "response_format": { "type": "yaml" } }),
        json!({ "response_format": { "type": "json_schema" } }),
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x" } } }),
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "a b", "schema": {} } } }),
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": [] } } }),
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": {}, "loose": 1 } } }),
        json!({ "response_format": { "type": "text", "schema": {} } }),
        json!({ "response_format": { "type": "json_object" }, "regex": "a" }),
        json!({ "regex": "a", "guided_regex": "b" }),
        json!({ "lark": "x".repeat((1 << 20) + 1) }),
        json!({ "tool_choice": "required" }),
        json!({ "tool_choice": named("f") }),
        json!({ "tool_choice": "sometimes" }),
        json!({ "tool_choice": 5 }),
        json!({ "tool_choice": { "type": "custom", "custom": { "name": "f" } } }),
        json!({ "tool_choice": { "type": "function" }, "tools": [named("f")] }),
        json!({ "tool_choice": named("f"), "tools": [named("f")], "regex": "a" }),
        json!({ "tool_choice": { "type": "allowed_tools", "allowed_tools": { "mode": "auto", "tools": [named("g")] } },
            "tools": [named("f")] }),
        json!({ "tools": [{ "type": "custom", "custom": { "name": "patch" } }] }),
        json!({ "functions": [1] }),
        json!({ "chat_template_kwargs": { "messages": [] } }),
        json!({ "reasoning_effort": "utmost" }),
        json!({ "guided_json": {} }),
        json!({ "stream_options": { "include_costs": true } }),
    ];
    let lines: Vec<String> = fields.into_iter().map(|f| refused(&with(f))).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    n: `n` must be from 1 to 16, not 0
    n: `n` must be from 1 to 16, not 17
    top_logprobs: `top_logprobs` needs `logprobs`: true
    top_logprobs: `top_logprobs` must be from 0 to 20, not 21
    response_format.type: `response_format.type` must be "text", "json_object" or "json_schema", not "yaml"
    response_format.json_schema: `response_format.json_schema` is missing
    response_format.json_schema.schema: `response_format.json_schema.schema` is missing
    response_format.json_schema.name: `response_format.json_schema.name` must be 1 to 64 letters, digits, '_' or '-'
    response_format.json_schema.schema: `response_format.json_schema.schema` must be a JSON schema, an object
    response_format.json_schema.loose: `response_format.json_schema.loose` is not a parameter that works here; leave it out
    response_format.schema: `response_format.schema` goes with the type "json_object"
    regex: `regex` and `response_format` both say what the answer must look like; send one of them
    regex: `regex` and `guided_regex` differ; send one of them
    lark: `lark` may have 1048576 bytes, not 1048577
    tool_choice: `tool_choice` asks for a call, and `tools` offers none
    tool_choice.function.name: `tool_choice.function.name` is "f", which is none of `tools`
    tool_choice: `tool_choice` must be "auto", "none", "required" or an object that names a function, not "sometimes"
    tool_choice: `tool_choice` must be "auto", "none", "required" or an object that names a function
    tool_choice.type: `tool_choice.type` must be "function" or "allowed_tools"
    tool_choice.function.name: `tool_choice.function.name` is missing
    regex: `regex` and a `tool_choice` that asks for a call cannot both be met; send one of them
    tool_choice.allowed_tools.tools[0].function.name: `tool_choice.allowed_tools.tools[0].function.name` is "g", which is none of `tools`
    tools[0].type: `tools[0].type` must be "function"
    functions: `functions` does not work here: leave it out, or send null
    chat_template_kwargs.messages: `chat_template_kwargs.messages` is not the client's to set
    reasoning_effort: `reasoning_effort` must be none, minimal, low, medium, high, xhigh or max, not "utmost"
    guided_json: `guided_json` is not a parameter that works here; leave it out
    stream_options.include_costs: `stream_options.include_costs` is not a parameter that works here; leave it out
    "#);
}

#[test]
fn values_out_of_range_or_of_the_wrong_type_are_refused_by_name() {
    let fields = [
        json!({ "max_tokens": 3.7 }),
        json!({ "max_tokens": "many" }),
        json!({ "max_tokens": -5 }),
        json!({ "max_completion_tokens": 0 }),
        json!({ "max_tokens": 3, "max_completion_tokens": 4 }),
        json!({ "temperature": "hot" }),
        json!({ "temperature": -1 }),
        json!({ "temperature": 2.5 }),
        json!({ "top_p": 0 }),
        json!({ "top_p": 2 }),
        json!({ "top_k": -2 }),
        json!({ "top_k": 1.5 }),
        json!({ "min_p": 1.5 }),
        json!({ "typical_p": 0 }),
        json!({ "frequency_penalty": 2.5 }),
        json!({ "presence_penalty": -2.5 }),
        json!({ "repetition_penalty": 0 }),
        json!({ "repetition_penalty": 1.1, "repeat_penalty": 1.2 }),
        json!({ "repeat_last_n": -2 }),
        json!({ "dry_multiplier": -1 }),
        json!({ "dry_base": 0.5 }),
        json!({ "dry_allowed_length": -1 }),
        json!({ "dry_sequence_breakers": [""] }),
        json!({ "dry_sequence_breakers": vec!["x"; 33] }),
        json!({ "xtc_probability": 1.5 }),
        json!({ "xtc_threshold": 0.6 }),
        json!({ "min_tokens": -1 }),
        json!({ "min_tokens": 9, "max_tokens": 8 }),
        json!({ "reasoning_budget": -2 }),
        json!({ "reasoning_budget": 1, "thinking_budget_tokens": 2 }),
        json!({ "seed": "abc" }),
        json!({ "stop": 5 }),
        json!({ "stop": ["a", 5] }),
        json!({ "stop": vec!["x"; 17] }),
        json!({ "stream": "yes" }),
        json!({ "logit_bias": { "cat": 1 } }),
        json!({ "logit_bias": { "1000": 1 } }),
        json!({ "logit_bias": { "1": 101 } }),
        json!({ "logit_bias": { "1": "x" } }),
        json!({ "tools": { "a": 1 } }),
        json!({ "tools": [{ "type": "function", "function": {} }] }),
        json!({ "tools": [{ "type": "function", "function": { "name": "" } }] }),
        json!({ "tools": [{ "type": "retrieval", "function": { "name": "f" } }] }),
        json!({ "tools": [7] }),
        json!({ "chat_template_kwargs": { "enable_thinking": "yes" } }),
    ];
    let lines: Vec<String> = fields.into_iter().map(|f| refused(&with(f))).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    max_tokens: `max_tokens`: invalid type: floating point `3.7`, expected a whole number
    max_tokens: `max_tokens`: invalid type: string "many", expected a whole number
    max_tokens: `max_tokens` must be at least 1, not -5
    max_completion_tokens: `max_completion_tokens` must be at least 1, not 0
    max_tokens: `max_tokens` and `max_completion_tokens` differ; send one of them
    temperature: `temperature`: invalid type: string "hot", expected a number
    temperature: `temperature` must be from 0 to 2, not -1
    temperature: `temperature` must be from 0 to 2, not 2.5
    top_p: `top_p` must be above 0 and at most 1, not 0
    top_p: `top_p` must be above 0 and at most 1, not 2
    top_k: `top_k` must be 0 (off) or a number of tokens, not -2
    top_k: `top_k`: invalid type: floating point `1.5`, expected a whole number
    min_p: `min_p` must be from 0 to 1, not 1.5
    typical_p: `typical_p` must be above 0 and at most 1, not 0
    frequency_penalty: `frequency_penalty` must be from -2 to 2, not 2.5
    presence_penalty: `presence_penalty` must be from -2 to 2, not -2.5
    repetition_penalty: `repetition_penalty` must be above 0 and at most 100, not 0
    repetition_penalty: `repetition_penalty` and `repeat_penalty` differ; send one of them
    repeat_last_n: `repeat_last_n` must be a number of tokens, or -1 for no limit, not -2
    dry_multiplier: `dry_multiplier` must be from 0 to 100, not -1
    dry_base: `dry_base` must be from 1 to 100, not 0.5
    dry_allowed_length: `dry_allowed_length` must be at least 0, not -1
    dry_sequence_breakers: each of `dry_sequence_breakers` must have 1 to 256 bytes
    dry_sequence_breakers: `dry_sequence_breakers` may have 32 texts, not 33
    xtc_probability: `xtc_probability` must be from 0 to 1, not 1.5
    xtc_threshold: `xtc_threshold` must be above 0 and at most 0.5, not 0.6
    min_tokens: `min_tokens` must be at least 0, not -1
    min_tokens: `min_tokens` is 9, and the answer may have 8 tokens at most
    reasoning_budget: `reasoning_budget` must be a number of tokens, or -1 for no limit, not -2
    reasoning_budget: `reasoning_budget` and `thinking_budget_tokens` differ; send one of them
    seed: `seed`: invalid type: string "abc", expected a whole number
    stop: `stop`: invalid type: integer `5`, expected a string or an array of strings
    stop[1]: `stop[1]`: invalid type: integer `5`, expected a string
    stop: `stop` may have 16 strings, not 17
    stream: `stream`: invalid type: string "yes", expected a boolean
    logit_bias: `logit_bias.cat` is not one of this model's token ids, 0 to 999
    logit_bias: `logit_bias.1000` is not one of this model's token ids, 0 to 999
    logit_bias: `logit_bias.1` must be from -100 to 100, not 101
    logit_bias.1: `logit_bias.1`: invalid type: string "x", expected a number
    tools: `tools`: invalid type: map, expected a sequence
    tools[0].function.name: `tools[0].function.name` is missing
    tools[0].function.name: `tools[0].function.name` must be 1 to 128 letters, digits, '_' or '-'
    tools[0].type: `tools[0].type` must be "function"
    tools[0]: `tools[0]`: invalid type: integer `7`, expected a JSON object
    chat_template_kwargs.enable_thinking: `chat_template_kwargs.enable_thinking` must be true or false
    "#);
}

#[test]
fn bad_messages_are_refused_by_their_path() {
    let messages = [
        json!("hi"),
        json!([]),
        json!([["user", "hi"]]),
        json!([{ "content": "x" }]),
        json!([{ "role": "wizard", "content": "x" }]),
        json!([{ "role": "function", "name": "f", "content": "x" }]),
        json!([{ "role": "user" }]),
        json!([{ "role": "user", "content": null }]),
        json!([{ "role": "user", "content": 5 }]),
        json!([{ "role": "user", "content": [5] }]),
        json!([{ "role": "user", "content": [{ "type": "text" }] }]),
        json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "data:" } }] }]),
        json!([{ "role": "user", "content": [{ "type": "input_audio" }] }]),
        json!([{ "role": "user", "content": "x", "images": [] }]),
        json!([{ "role": "user", "content": "x", "tool_calls": [{ "id": "c", "function": { "name": "f", "arguments": "" } }] }]),
        json!([{ "role": "assistant", "tool_calls": [{ "function": { "name": "f", "arguments": "" } }] }]),
        json!([{ "role": "assistant", "tool_calls": [{ "id": "c", "function": { "name": "f", "arguments": 3 } }] }]),
        json!([{ "role": "tool", "content": "x" }]),
    ];
    let lines: Vec<String> = messages.into_iter().map(|m| refused(&with(json!({ "messages": m })))).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    messages: `messages`: invalid type: string "hi", expected a sequence
    messages: `messages` must have at least one message
    messages[0]: `messages[0]`: invalid type: sequence, expected a JSON object
    messages[0].role: `messages[0].role` is missing
    messages[0].role: `messages[0].role`: unknown variant `wizard`, expected one of `system`, `developer`, `user`, `assistant`, `tool`
    messages[0].role: `messages[0].role`: unknown variant `function`, expected one of `system`, `developer`, `user`, `assistant`, `tool`
    messages[0].content: `messages[0].content` is missing; every such message has one
    messages[0].content: `messages[0].content` is missing; every such message has one
    messages[0].content: `messages[0].content`: invalid type: integer `5`, expected text or an array of parts
    messages[0].content[0]: `messages[0].content[0]`: invalid type: integer `5`, expected a JSON object
    messages[0].content[0].text: `messages[0].content[0].text` is missing
    messages[0].content[0]: `messages[0].content[0]` is of type "image_url", and this model has no eyes; it reads "text"
    messages[0].content[0]: `messages[0].content[0]` is of type "input_audio", and this model has no ears; it reads "text"
    messages[0].images: `messages[0].images` is not a parameter that works here; leave it out
    messages[0].tool_calls: only an assistant message calls tools
    messages[0].tool_calls[0].id: `messages[0].tool_calls[0].id` is missing
    messages[0].tool_calls[0].function.arguments: `messages[0].tool_calls[0].function.arguments`: invalid type: expected JSON text
    messages[0].tool_call_id: `messages[0].tool_call_id` is missing; a tool message has one
    "#);
}

#[test]
fn bodies_that_are_no_request_are_refused() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(20_000), "}".repeat(20_000));
    let nested = with(json!({})).strip_suffix(b"}").unwrap().to_vec();
    let nested = [&nested[..], b",\"metadata\":", "[".repeat(100_000).as_bytes()].concat();
    let bodies: [&[u8]; 12] = [
        b"",
        b"  ",
        b"{",
        b"[1,2]",
        b"\"model\"",
        b"{}",
        br#"{"model":"m"}"#,
        br#"{"model":"m","model":"n","messages":[]}"#,
        b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}",
        br#"{"model":"m","messages":[{"role":"user","content":"\ud83d x"}]}"#,
        deep.as_bytes(),
        &nested,
    ];
    let lines: Vec<String> = bodies.into_iter().map(refused).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    -: the body is empty; it must be a JSON object
    -: the body is empty; it must be a JSON object
    -: the body is not valid JSON: EOF while parsing an object at line 1 column 1
    -: the body must be a JSON object: invalid type: sequence, expected a JSON object
    -: the body must be a JSON object: invalid type: string "model", expected a JSON object
    model: `model` is missing
    messages: `messages` is missing
    -: the body must be a JSON object: duplicate field `model`
    -: the body is not valid JSON: invalid unicode code point at line 1 column 52
    -: the body is not valid JSON: unexpected end of hex escape at line 1 column 58
    a: `a` is not a parameter that works here; leave it out
    -: the body is not valid JSON: EOF while parsing a list at line 1 column 100068
    "#);
    assert!(refused(b"{} {}").starts_with("model:"), "{}", refused(b"{} {}"));
    let twice = [&with(json!({}))[..], b" {}"].concat();
    assert!(refused(&twice).contains("trailing"), "{}", refused(&twice));
}

#[test]
fn tools_stay_as_the_client_wrote_them() {
    let json = r#"{ "type":"function","function":{"parameters":{"b":1.0,"a":[]},"name":"f","strict":true}}"#;
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"tools":[{json}]}}"#);
    let mesh_proto::Prompt::Chat(prompt) = chat_of(body.as_bytes()).unwrap().requests.remove(0).prompt else {
        panic!("no chat")
    };
    assert_eq!(prompt.tools[0].json, json);
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("role".to_owned()),
        Just("content".to_owned()),
        Just("type".to_owned()),
        Just("text".to_owned()),
        Just("function".to_owned()),
        Just("name".to_owned()),
        Just("tool_calls".to_owned()),
        ".{0,4}",
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 22] = [
    "n",
    "logprobs",
    "top_logprobs",
    "dry_sequence_breakers",
    "repeat_last_n",
    "reasoning_budget",
    "model",
    "messages",
    "prompt",
    "stream",
    "stream_options",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "logit_bias",
    "tools",
    "tool_choice",
    "response_format",
    "chat_template_kwargs",
];

proptest! {
    /// Whatever comes, the answer is a request or a 400, and the 400 names a field of the body, or says that it is none.
    #[test]
    fn any_json_is_lowered_or_refused(field in proptest::sample::select(&FIELDS[..]), value in json_value()) {
        let bodies = [with(json!({ field: value })), json!({ "model": "m", "prompt": "x", field: value }).to_string().into_bytes()];
        let errors = [chat_of(&bodies[0]).err(), completions_of(&bodies[1]).err()];
        for error in errors.into_iter().flatten() {
            prop_assert_eq!(error.status, 400);
            prop_assert!(error.body.param.is_some() || error.body.code == Some("malformed_body"), "{:?}", error);
        }
    }

    #[test]
    fn any_bytes_are_lowered_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (chat_of(&bytes), completions_of(&bytes));
    }
}

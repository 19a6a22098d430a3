//! Valid bodies of each route, with as many fields as go together.

use serde_json::{Value, json};

fn schema() -> Value {
    json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] })
}

/// Of each path, bodies that are answered.
pub fn bodies() -> Vec<(&'static str, Vec<Value>)> {
    vec![
        ("/v1/chat/completions", chat()),
        ("/v1/completions", completions()),
        ("/v1/messages", messages()),
        ("/v1/messages/count_tokens", vec![json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] })]),
        ("/v1/responses", responses()),
        ("/tokenize", vec![json!({ "model": "m", "content": "aü", "add_special": true, "with_pieces": true })]),
        ("/detokenize", vec![json!({ "model": "m", "tokens": [104, 105, 1999] })]),
    ]
}

fn chat() -> Vec<Value> {
    let tool = json!({ "type": "function", "function": { "name": "look", "description": "d", "strict": true, "parameters": schema() } });
    vec![
        json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] }),
        json!({
            "model": "m", "stream": true, "stream_options": { "include_usage": true, "continuous_usage_stats": true },
            "messages": [
                { "role": "developer", "content": "d" }, { "role": "system", "content": [{ "type": "text", "text": "s" }] },
                { "role": "user", "content": "weather?", "name": "ann" },
                { "role": "assistant", "content": null, "reasoning_content": "hm",
                  "tool_calls": [{ "id": "c1", "type": "function", "function": { "name": "look", "arguments": "{\"city\": \"Oslo\"}" } }] },
                { "role": "tool", "tool_call_id": "c1", "content": "rain" }],
            "tools": [tool, { "type": "web_search" }], "tool_choice": "auto", "parallel_tool_calls": false,
            "reasoning_effort": "high", "reasoning_budget": 9, "chat_template_kwargs": { "enable_thinking": true, "x": [1, { "y": null }] },
        }),
        json!({
            "model": "m", "messages": [{ "role": "user", "content": "hi" }], "tools": [tool],
            "tool_choice": { "type": "function", "function": { "name": "look" } }, "n": 3,
            "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "typical_p": 0.9, "seed": 7,
            "logit_bias": { "5": -100, "7": 3.5 }, "frequency_penalty": 0.5, "presence_penalty": -0.5, "repetition_penalty": 1.1,
            "repeat_last_n": 64, "dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": -1,
            "dry_sequence_breakers": ["\n", ":"], "xtc_probability": 0.5, "xtc_threshold": 0.1,
        }),
        json!({
            "model": "m", "messages": [{ "role": "user", "content": "hi" }], "logprobs": true, "top_logprobs": 3,
            "stop": ["a", "b"], "max_completion_tokens": 9, "min_tokens": 2, "ignore_eos": true,
            "response_format": { "type": "json_schema", "json_schema": { "name": "x", "strict": true, "schema": schema() } },
            "prompt_cache_key": "k", "user": "u", "store": true, "metadata": { "a": "b" }, "service_tier": "auto",
        }),
        json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }], "regex": "[a-z]+", "max_tokens": 4, "n": 2, "stream": true }),
        json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }], "lark": "start: \"a\"", "tools": [tool],
            "tool_choice": { "type": "allowed_tools", "allowed_tools": { "mode": "auto", "tools": [{ "type": "function", "function": { "name": "look" } }] } } }),
        json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }],
            "response_format": { "type": "json_object", "schema": schema() } }),
    ]
}

fn completions() -> Vec<Value> {
    vec![
        json!({ "model": "m", "prompt": "a" }),
        json!({ "model": "m", "prompt": ["a", "b"], "n": 2, "best_of": 2, "echo": true, "stream": true, "suffix": null,
            "stream_options": { "include_usage": true } }),
        json!({ "model": "m", "prompt": [[1, 2], [3]], "logprobs": 3, "max_tokens": 3, "stop": "x", "temperature": 1, "seed": 0 }),
        json!({ "model": "m", "prompt": [5, 6], "echo": true, "guided_regex": "a*" }),
    ]
}

fn messages() -> Vec<Value> {
    vec![
        json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "hi" }] }),
        json!({
            "model": "m", "max_tokens": 4096, "stream": true, "system": [{ "type": "text", "text": "s", "cache_control": { "type": "ephemeral" } }],
            "messages": [
                { "role": "user", "content": [{ "type": "text", "text": "hi" },
                  { "type": "document", "source": { "type": "text", "media_type": "text/plain", "data": "doc" }, "title": "t", "context": "c" }] },
                { "role": "system", "content": "late" },
                { "role": "assistant", "content": [{ "type": "thinking", "thinking": "hm", "signature": "" }, { "type": "text", "text": "x" },
                  { "type": "tool_use", "id": "toolu_1", "name": "look", "input": { "city": "Oslo" } }] },
                { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "toolu_1", "content": [{ "type": "text", "text": "rain" }], "is_error": true }] }],
            "tools": [{ "name": "look", "description": "d", "input_schema": schema(), "strict": true },
                { "type": "web_search_20250305", "name": "web_search" }],
            "tool_choice": { "type": "auto", "disable_parallel_tool_use": true }, "thinking": { "type": "enabled", "budget_tokens": 1024 },
            "metadata": { "user_id": "u" }, "context_management": { "edits": [{ "type": "clear_thinking_20251015", "keep": "all" }] },
        }),
        json!({
            "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": "hi" }], "temperature": 0.5, "top_p": 0.5, "top_k": 4,
            "stop_sequences": ["a"], "thinking": { "type": "disabled" },
            "output_config": { "effort": "low", "format": { "type": "json_schema", "schema": schema() } },
        }),
    ]
}

fn responses() -> Vec<Value> {
    vec![
        json!({ "model": "m", "input": "hi" }),
        json!({
            "model": "m", "stream": true, "store": true, "instructions": "i", "max_output_tokens": 99, "truncation": "auto",
            "input": [
                { "type": "message", "role": "developer", "content": [{ "type": "input_text", "text": "d" }] },
                { "role": "user", "content": "hi" },
                { "type": "reasoning", "id": "rs_1", "summary": [], "content": [{ "type": "reasoning_text", "text": "hm" }] },
                { "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": "{}" },
                { "type": "function_call_output", "call_id": "c1", "output": "rain" },
                { "type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "x" },
                { "type": "custom_tool_call_output", "call_id": "c2", "output": [{ "type": "input_text", "text": "ok" }] },
                { "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
                  "content": [{ "type": "output_text", "text": "x", "annotations": [] }] }],
            "tools": [{ "type": "function", "name": "look", "parameters": schema(), "strict": false },
                { "type": "custom", "name": "patch", "format": { "type": "grammar", "syntax": "lark", "definition": "start: \"a\"" } },
                { "type": "namespace", "name": "agents", "tools": [{ "type": "function", "name": "close", "parameters": {} }] },
                { "type": "web_search", "external_web_access": true }],
            "tool_choice": { "type": "allowed_tools", "mode": "auto", "tools": [{ "type": "function", "name": "look" }] },
            "parallel_tool_calls": true, "reasoning": { "effort": "low", "summary": "auto" },
            "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k", "client_metadata": { "a": "b" }, "metadata": { "k": "v" },
        }),
        json!({
            "model": "m", "input": [{ "role": "user", "content": "hi" }], "store": false, "temperature": 1, "top_p": 1, "top_logprobs": 2,
            "include": ["message.output_text.logprobs"],
            "text": { "format": { "type": "json_schema", "name": "x", "schema": schema(), "strict": true }, "verbosity": "low" },
        }),
        json!({ "model": "m", "input": "hi", "tools": [{ "type": "custom", "name": "patch" }],
            "tool_choice": { "type": "custom", "name": "patch" }, "text": { "format": { "type": "text" } } }),
    ]
}

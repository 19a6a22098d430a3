//! Raising as snapshots: what clients see of an engine's events.

use mesh_proto::{
    Channel, Event, FinishReason, GenerateError, Likelihood, TokenId, TokenLogprob, ToolCallDelta, Usage,
};
use serde_json::Value;

use super::{super::lower::Known, *};
use crate::api::ApiError;

fn echo() -> Echo {
    Echo {
        instructions: None,
        max_output_tokens: None,
        max_tool_calls: None,
        metadata: Default::default(),
        parallel_tool_calls: true,
        previous_response_id: None,
        prompt_cache_key: None,
        reasoning: Default::default(),
        safety_identifier: None,
        service_tier: "default",
        store: true,
        temperature: 1.0,
        text: serde_json::json!({ "format": { "type": "text" } }),
        tool_choice: "auto".into(),
        tools: Vec::new(),
        top_logprobs: 0,
        top_p: 1.0,
        truncation: "disabled",
        user: None,
    }
}

fn writer(seals: bool) -> Writer {
    let known = |namespace: Option<&str>, name: &str, is_custom| Known {
        namespace: namespace.map(str::to_owned),
        name: name.into(),
        is_custom,
    };
    let names = Names::from([
        ("patch".into(), known(None, "patch", true)),
        ("agents__spawn".into(), known(Some("agents"), "spawn", false)),
    ]);
    Writer::new(Head { number: "7".into(), created: 7, model: "m".into() }, echo(), names, seals)
}

fn text(channel: Channel, text: &str) -> Event {
    Event::Text { channel, text: text.into(), tokens: Vec::new(), logprobs: Vec::new() }
}

fn call(index: u32, first: Option<(&str, &str)>, arguments: &str) -> Event {
    let delta = ToolCallDelta {
        index,
        id: first.map(|(id, _)| id.to_owned()),
        name: first.map(|(_, name)| name.to_owned()),
        arguments: arguments.to_owned(),
    };
    Event::ToolCall { delta, tokens: Vec::new(), logprobs: Vec::new() }
}

fn finished(reason: FinishReason) -> Event {
    let usage = Usage { prompt_tokens: 5, cached_tokens: 4, completion_tokens: 3, reasoning_tokens: 2 };
    Event::Finished { reason, stop: None, usage }
}

fn told(writer: &mut Writer, events: Vec<Event>) -> Vec<Value> {
    let mut all = writer.opening();
    for event in events {
        all.extend(writer.event(event).unwrap());
    }
    let numbered = |(at, told): (usize, &Told)| {
        let json = serde_json::to_value(told).unwrap();
        assert_eq!((json["type"].as_str(), json["sequence_number"].as_u64()), (Some(told.name()), Some(at as u64)));
        json
    };
    all.iter().enumerate().map(numbered).collect()
}

/// One event a line, of responses only the id, the status and the number of items.
fn lines(events: Vec<Event>) -> String {
    let line = |mut json: Value| {
        json.as_object_mut().unwrap().shift_remove("sequence_number");
        if let Some(response) = json.get_mut("response") {
            let items = response["output"].as_array().unwrap().len();
            *response = format!("{} {} {items}", response["id"], response["status"]).into();
        }
        json.to_string()
    };
    told(&mut writer(true), events).into_iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn thoughts_words_and_calls_are_items_one_after_the_other() {
    insta::assert_snapshot!(lines(vec![
        text(Channel::Reasoning, "h"),
        text(Channel::Reasoning, "m"),
        text(Channel::Content, "I "),
        text(Channel::Content, "look"),
        call(0, Some(("c0", "f")), "{\"x\""),
        call(0, None, ":1}"),
        call(1, Some(("c1", "agents__spawn")), "{}"),
        finished(FinishReason::ToolCalls),
    ]), @r#"
    {"type":"response.created","response":"\"resp_7\" \"in_progress\" 0"}
    {"type":"response.in_progress","response":"\"resp_7\" \"in_progress\" 0"}
    {"type":"response.output_item.added","output_index":0,"item":{"type":"reasoning","id":"rs_700","status":"in_progress","summary":[],"content":[]}}
    {"type":"response.content_part.added","item_id":"rs_700","output_index":0,"content_index":0,"part":{"type":"reasoning_text","text":""}}
    {"type":"response.reasoning_text.delta","item_id":"rs_700","output_index":0,"content_index":0,"delta":"h"}
    {"type":"response.reasoning_text.delta","item_id":"rs_700","output_index":0,"content_index":0,"delta":"m"}
    {"type":"response.reasoning_text.done","item_id":"rs_700","output_index":0,"content_index":0,"text":"hm"}
    {"type":"response.content_part.done","item_id":"rs_700","output_index":0,"content_index":0,"part":{"type":"reasoning_text","text":"hm"}}
    {"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning","id":"rs_700","status":"completed","summary":[],"content":[{"type":"reasoning_text","text":"hm"}],"encrypted_content":"mesh-llm-1.aG0="}}
    {"type":"response.output_item.added","output_index":1,"item":{"type":"message","id":"msg_701","status":"in_progress","role":"assistant","content":[]}}
    {"type":"response.content_part.added","item_id":"msg_701","output_index":1,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}
    {"type":"response.output_text.delta","item_id":"msg_701","output_index":1,"content_index":0,"delta":"I ","logprobs":[]}
    {"type":"response.output_text.delta","item_id":"msg_701","output_index":1,"content_index":0,"delta":"look","logprobs":[]}
    {"type":"response.output_text.done","item_id":"msg_701","output_index":1,"content_index":0,"text":"I look","logprobs":[]}
    {"type":"response.content_part.done","item_id":"msg_701","output_index":1,"content_index":0,"part":{"type":"output_text","text":"I look","annotations":[],"logprobs":[]}}
    {"type":"response.output_item.done","output_index":1,"item":{"type":"message","id":"msg_701","status":"completed","role":"assistant","content":[{"type":"output_text","text":"I look","annotations":[],"logprobs":[]}]}}
    {"type":"response.output_item.added","output_index":2,"item":{"type":"function_call","id":"fc_702","status":"in_progress","call_id":"c0","name":"f","arguments":""}}
    {"type":"response.function_call_arguments.delta","item_id":"fc_702","output_index":2,"delta":"{\"x\""}
    {"type":"response.function_call_arguments.delta","item_id":"fc_702","output_index":2,"delta":":1}"}
    {"type":"response.function_call_arguments.done","item_id":"fc_702","output_index":2,"name":"f","arguments":"{\"x\":1}"}
    {"type":"response.output_item.done","output_index":2,"item":{"type":"function_call","id":"fc_702","status":"completed","call_id":"c0","name":"f","arguments":"{\"x\":1}"}}
    {"type":"response.output_item.added","output_index":3,"item":{"type":"function_call","id":"fc_703","status":"in_progress","call_id":"c1","namespace":"agents","name":"spawn","arguments":""}}
    {"type":"response.function_call_arguments.delta","item_id":"fc_703","output_index":3,"delta":"{}"}
    {"type":"response.function_call_arguments.done","item_id":"fc_703","output_index":3,"name":"spawn","arguments":"{}"}
    {"type":"response.output_item.done","output_index":3,"item":{"type":"function_call","id":"fc_703","status":"completed","call_id":"c1","namespace":"agents","name":"spawn","arguments":"{}"}}
    {"type":"response.completed","response":"\"resp_7\" \"completed\" 4"}
    "#);
}

#[test]
fn a_custom_tool_gets_its_text() {
    insta::assert_snapshot!(lines(vec![
        call(0, Some(("c0", "patch")), "{\"input\":"),
        call(0, None, "\"a\\nb\"}"),
        finished(FinishReason::ToolCalls),
    ]), @r#"
    {"type":"response.created","response":"\"resp_7\" \"in_progress\" 0"}
    {"type":"response.in_progress","response":"\"resp_7\" \"in_progress\" 0"}
    {"type":"response.output_item.added","output_index":0,"item":{"type":"custom_tool_call","id":"ctc_700","status":"in_progress","call_id":"c0","name":"patch","input":""}}
    {"type":"response.custom_tool_call_input.delta","item_id":"ctc_700","output_index":0,"delta":"a\nb"}
    {"type":"response.custom_tool_call_input.done","item_id":"ctc_700","output_index":0,"input":"a\nb"}
    {"type":"response.output_item.done","output_index":0,"item":{"type":"custom_tool_call","id":"ctc_700","status":"completed","call_id":"c0","name":"patch","input":"a\nb"}}
    {"type":"response.completed","response":"\"resp_7\" \"completed\" 1"}
    "#);
}

#[test]
fn what_is_cut_is_incomplete_and_an_empty_answer_is_a_message() {
    insta::assert_snapshot!(lines(vec![text(Channel::Content, "a"), finished(FinishReason::Length)]), @r#"
    {"type":"response.created","response":"\"resp_7\" \"in_progress\" 0"}
    {"type":"response.in_progress","response":"\"resp_7\" \"in_progress\" 0"}
    {"type":"response.output_item.added","output_index":0,"item":{"type":"message","id":"msg_700","status":"in_progress","role":"assistant","content":[]}}
    {"type":"response.content_part.added","item_id":"msg_700","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}
    {"type":"response.output_text.delta","item_id":"msg_700","output_index":0,"content_index":0,"delta":"a","logprobs":[]}
    {"type":"response.output_text.done","item_id":"msg_700","output_index":0,"content_index":0,"text":"a","logprobs":[]}
    {"type":"response.content_part.done","item_id":"msg_700","output_index":0,"content_index":0,"part":{"type":"output_text","text":"a","annotations":[],"logprobs":[]}}
    {"type":"response.output_item.done","output_index":0,"item":{"type":"message","id":"msg_700","status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]}]}}
    {"type":"response.incomplete","response":"\"resp_7\" \"incomplete\" 1"}
    "#);
    insta::assert_snapshot!(lines(vec![finished(FinishReason::Stop)]), @r#"
    {"type":"response.created","response":"\"resp_7\" \"in_progress\" 0"}
    {"type":"response.in_progress","response":"\"resp_7\" \"in_progress\" 0"}
    {"type":"response.output_item.added","output_index":0,"item":{"type":"message","id":"msg_700","status":"in_progress","role":"assistant","content":[]}}
    {"type":"response.content_part.added","item_id":"msg_700","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}
    {"type":"response.output_text.done","item_id":"msg_700","output_index":0,"content_index":0,"text":"","logprobs":[]}
    {"type":"response.content_part.done","item_id":"msg_700","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}
    {"type":"response.output_item.done","output_index":0,"item":{"type":"message","id":"msg_700","status":"completed","role":"assistant","content":[{"type":"output_text","text":"","annotations":[],"logprobs":[]}]}}
    {"type":"response.completed","response":"\"resp_7\" \"completed\" 1"}
    "#);
}

#[test]
fn a_response_is_one_object() {
    let mut writer = writer(false);
    assert!(!writer.is_whole());
    told(
        &mut writer,
        vec![text(Channel::Reasoning, "hm"), text(Channel::Content, "a"), finished(FinishReason::Length)],
    );
    assert!(writer.is_whole());
    assert_eq!(writer.response().item_ids(), ["rs_700", "msg_701"]);
    insta::assert_json_snapshot!(writer.response(), @r#"
    {
      "id": "resp_7",
      "object": "response",
      "created_at": 7,
      "status": "incomplete",
      "background": false,
      "error": null,
      "incomplete_details": {
        "reason": "max_output_tokens"
      },
      "model": "m",
      "output": [
        {
          "type": "reasoning",
          "id": "rs_700",
          "status": "completed",
          "summary": [],
          "content": [
            {
              "type": "reasoning_text",
              "text": "hm"
            }
          ]
        },
        {
          "type": "message",
          "id": "msg_701",
          "status": "incomplete",
          "role": "assistant",
          "content": [
            {
              "type": "output_text",
              "text": "a",
              "annotations": [],
              "logprobs": []
            }
          ]
        }
      ],
      "usage": {
        "input_tokens": 5,
        "input_tokens_details": {
          "cached_tokens": 4,
          "cache_write_tokens": 0
        },
        "output_tokens": 3,
        "output_tokens_details": {
          "reasoning_tokens": 2
        },
        "total_tokens": 8
      },
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
      "temperature": 1.0,
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
fn likelihoods_come_with_the_text_and_again_at_its_end() {
    let likely = |token: u32, bytes: &[u8], logprob| Likelihood { token: TokenId(token), bytes: bytes.into(), logprob };
    let logprobs = vec![TokenLogprob {
        chosen: likely(1, b"a", -0.5),
        top: vec![likely(1, b"a", -0.5), likely(2, &[0xe6], f32::NEG_INFINITY)],
    }];
    let event = Event::Text { channel: Channel::Content, text: "a".into(), tokens: Vec::new(), logprobs };
    let events = told(&mut writer(false), vec![event, finished(FinishReason::Stop)]);
    let delta = events.iter().find(|event| event["type"] == "response.output_text.delta").unwrap();
    insta::assert_snapshot!(delta["logprobs"], @r#"[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]},{"token":"�","logprob":-9999.0,"bytes":[230]}]}]"#);
    let done = events.iter().find(|event| event["type"] == "response.output_text.done").unwrap();
    assert_eq!(done["logprobs"], delta["logprobs"]);
    let last = events.last().unwrap();
    assert_eq!(last["response"]["output"][0]["content"][0]["logprobs"], delta["logprobs"]);
}

#[test]
fn a_failure_is_a_failed_response_and_no_end() {
    let mut writer = writer(false);
    let mut failed = vec![text(Channel::Content, "a")];
    let before = told(&mut writer, std::mem::take(&mut failed)).len();
    let error = writer.event(Event::Failed(GenerateError::Engine("x".into()))).unwrap_err();
    let last = serde_json::to_value(writer.failure(ApiError::from(error))).unwrap();
    assert_eq!(
        (last["type"].as_str(), last["sequence_number"].as_u64()),
        (Some("response.failed"), Some(before as u64))
    );
    assert_eq!(last["response"]["status"], "failed");
    assert_eq!(last["response"]["error"]["code"], "server_error");
    assert!(!writer.is_whole());
    assert!(writer.event(call(3, Some(("c", "f")), "")).is_err(), "a call out of order");
    assert!(writer.event(call(0, None, "{}")).is_err(), "a call without a beginning");
}

//! Raising as snapshots: what clients see of an engine's events.

use mesh_proto::{Channel, Event, GenerateError, ToolCallDelta};

use super::{super::Thinking, *};
use crate::api::{ApiError, named::Raise};

fn head(thinking: Thinking) -> Head {
    Head { id: "msg_1".into(), request: "1".into(), model: "m".into(), max_tokens: 3, thinking }
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

fn finished(reason: FinishReason, stop: Option<&str>) -> Event {
    let usage = Usage { prompt_tokens: 5, cached_tokens: 4, completion_tokens: 3, reasoning_tokens: 2 };
    Event::Finished { reason, stop: stop.map(str::to_owned), usage }
}

fn called() -> Vec<Event> {
    vec![
        text(Channel::Reasoning, "h"),
        text(Channel::Reasoning, "m"),
        text(Channel::Content, "I "),
        text(Channel::Content, "look"),
        call(0, Some(("c0", "f")), "{\"x\""),
        call(0, None, ": 1}"),
        call(1, Some(("c1", "g")), ""),
        finished(FinishReason::ToolCalls, None),
    ]
}

/// One event a line.
fn lines(thinking: Thinking, events: Vec<Event>) -> String {
    let mut parts = Parts::new(head(thinking), 5);
    let mut all = parts.opening();
    for event in events {
        all.extend(parts.event(event).unwrap());
    }
    let line = |part: &parts::Part| {
        let json = serde_json::to_value(part).unwrap();
        assert_eq!(json["type"], Parts::name(part));
        json.to_string()
    };
    all.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn folded(thinking: Thinking, events: Vec<Event>) -> serde_json::Value {
    let mut fold = Fold::default();
    events.into_iter().for_each(|event| fold.add(event).unwrap());
    serde_json::to_value(fold.finish(&head(thinking))).unwrap()
}

#[test]
fn blocks_start_grow_and_stop_one_after_the_other() {
    insta::assert_snapshot!(lines(Thinking::Shown, called()), @r#"
    {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}
    {"type":"ping"}
    {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}
    {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"h"}}
    {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"m"}}
    {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"mesh-llm-1-5y9Obo+nKKI1AtFApndYdSRdq7JkENY79JOlPE5kOXU="}}
    {"type":"content_block_stop","index":0}
    {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}
    {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"I "}}
    {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"look"}}
    {"type":"content_block_stop","index":1}
    {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"c0","name":"f","input":{}}}
    {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"x\""}}
    {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":": 1}"}}
    {"type":"content_block_stop","index":2}
    {"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"c1","name":"g","input":{}}}
    {"type":"content_block_stop","index":3}
    {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":3,"output_tokens_details":{"thinking_tokens":2}}}
    {"type":"message_stop"}
    "#);
}

#[test]
fn thoughts_are_sealed_or_hidden_on_demand() {
    let events =
        || vec![text(Channel::Reasoning, "hm"), text(Channel::Content, "a"), finished(FinishReason::Stop, None)];
    insta::assert_snapshot!(lines(Thinking::Sealed, events()), @r#"
    {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}
    {"type":"ping"}
    {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}
    {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"mesh-llm-1.aG0="}}
    {"type":"content_block_stop","index":0}
    {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}
    {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"a"}}
    {"type":"content_block_stop","index":1}
    {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":3,"output_tokens_details":{"thinking_tokens":2}}}
    {"type":"message_stop"}
    "#);
    insta::assert_snapshot!(lines(Thinking::Hidden, events()), @r#"
    {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}
    {"type":"ping"}
    {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}
    {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}
    {"type":"content_block_stop","index":0}
    {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":3,"output_tokens_details":{"thinking_tokens":2}}}
    {"type":"message_stop"}
    "#);
    insta::assert_snapshot!(folded(Thinking::Sealed, events())["content"], @r#"[{"type":"thinking","thinking":"","signature":"mesh-llm-1.aG0="},{"type":"text","text":"a"}]"#);
    insta::assert_snapshot!(folded(Thinking::Hidden, events())["content"], @r#"[{"type":"text","text":"a"}]"#);
}

#[test]
fn a_message_is_one_object() {
    insta::assert_json_snapshot!(folded(Thinking::Shown, called()), @r#"
    {
      "id": "msg_1",
      "type": "message",
      "role": "assistant",
      "model": "m",
      "content": [
        {
          "type": "thinking",
          "thinking": "hm",
          "signature": "mesh-llm-1-5y9Obo+nKKI1AtFApndYdSRdq7JkENY79JOlPE5kOXU="
        },
        {
          "type": "text",
          "text": "I look"
        },
        {
          "type": "tool_use",
          "id": "c0",
          "name": "f",
          "input": {
            "x": 1
          }
        },
        {
          "type": "tool_use",
          "id": "c1",
          "name": "g",
          "input": {}
        }
      ],
      "stop_reason": "tool_use",
      "stop_sequence": null,
      "usage": {
        "input_tokens": 1,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 3,
        "output_tokens_details": {
          "thinking_tokens": 2
        }
      }
    }
    "#);
}

#[test]
fn each_end_has_its_reason() {
    let reasons = [
        (FinishReason::Stop, None, "end_turn"),
        (FinishReason::Stop, Some("X"), "stop_sequence"),
        (FinishReason::Length, None, "max_tokens"),
        (FinishReason::ToolCalls, None, "tool_use"),
    ];
    for (reason, stop, word) in reasons {
        let message = folded(Thinking::Shown, vec![finished(reason, stop)]);
        assert_eq!((&message["stop_reason"], message["stop_sequence"].as_str()), (&word.into(), stop));
        assert_eq!(message["content"], serde_json::json!([]));
    }
    let full = Usage { completion_tokens: 2, ..Usage::default() };
    let message =
        folded(Thinking::Shown, vec![Event::Finished { reason: FinishReason::Length, stop: None, usage: full }]);
    assert_eq!(message["stop_reason"], "model_context_window_exceeded");
}

#[test]
fn a_call_that_was_cut_is_left_out_and_one_that_is_no_json_is_told_as_such() {
    let events = |reason| vec![call(0, Some(("c0", "f")), "{\"x\""), finished(reason, None)];
    assert_eq!(folded(Thinking::Shown, events(FinishReason::Length))["content"], serde_json::json!([]));
    let told = folded(Thinking::Shown, events(FinishReason::ToolCalls));
    assert_eq!(told["content"][0]["input"], serde_json::json!({ "INVALID_JSON": "{\"x\"" }));
}

#[test]
fn a_failure_is_an_error_event_and_no_end() {
    let failed = || Event::Failed(GenerateError::Engine("x".into()));
    assert!(Fold::default().add(failed()).is_err());
    let mut parts = Parts::new(head(Thinking::Shown), 5);
    let error = parts.event(failed()).unwrap_err();
    let part = parts.failure(ApiError::from(error));
    assert_eq!(Parts::name(&part), "error");
    insta::assert_snapshot!(serde_json::to_string(&part).unwrap(), @r#"{"type":"error","error":{"type":"api_error","message":"the engine failed: x"},"request_id":"1"}"#);
    assert!(Fold::default().add(call(3, Some(("c", "f")), "")).is_err(), "a call out of order");
    assert!(Parts::new(head(Thinking::Shown), 5).event(call(0, None, "{}")).is_err(), "a call without a beginning");
}

//! Raising as snapshots: what clients see of an engine's events.

use mesh_proto::{Channel, Event, FinishReason, GenerateError, ToolCallDelta, Usage};

use super::{
    super::{Head, stream::Raise},
    *,
};

fn head() -> Head {
    Head { id: "chatcmpl-1".into(), created: 7, model: "m".into(), fingerprint: "f".into() }
}

fn text(channel: Channel, text: &str) -> Event {
    Event::Text { channel, text: text.into(), tokens: Vec::new(), logprobs: Vec::new() }
}

fn finished(reason: FinishReason) -> Event {
    let usage = Usage { prompt_tokens: 5, cached_tokens: 4, completion_tokens: 3, reasoning_tokens: 2 };
    Event::Finished { reason, stop: None, usage }
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

fn thought() -> Vec<Event> {
    vec![
        text(Channel::Reasoning, "hm"),
        text(Channel::Content, "a"),
        text(Channel::Content, "b"),
        finished(FinishReason::Stop),
    ]
}

fn called() -> Vec<Event> {
    vec![
        call(0, Some(("c0", "f")), "{\"x\""),
        call(0, None, ":1}"),
        call(1, Some(("c1", "g")), "{}"),
        finished(FinishReason::ToolCalls),
    ]
}

fn folded(events: Vec<Event>) -> ChatFold {
    let mut fold = ChatFold::default();
    events.into_iter().for_each(|event| fold.add(event).unwrap());
    fold
}

/// One chunk a line, without what all lines repeat.
fn lines<R: Raise>(mut raise: R, events: Vec<(u32, Event)>) -> String {
    let mut chunks = raise.opening();
    for (choice, event) in events {
        chunks.extend(raise.event(choice, event).unwrap());
    }
    chunks.extend(raise.closing());
    let line = |chunk: &R::Chunk| {
        let mut json = serde_json::to_value(chunk).unwrap();
        for key in ["id", "object", "created", "model", "system_fingerprint"] {
            assert!(json.as_object_mut().unwrap().shift_remove(key).is_some(), "{key}");
        }
        json.to_string()
    };
    chunks.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn alone(events: Vec<Event>) -> Vec<(u32, Event)> {
    events.into_iter().map(|event| (0, event)).collect()
}

#[test]
fn a_chat_is_one_object_with_every_required_null() {
    insta::assert_json_snapshot!(folded(thought()).finish(&head()), @r#"
    {
      "id": "chatcmpl-1",
      "object": "chat.completion",
      "created": 7,
      "model": "m",
      "system_fingerprint": "f",
      "choices": [
        {
          "index": 0,
          "message": {
            "role": "assistant",
            "content": "ab",
            "refusal": null,
            "reasoning_content": "hm",
            "reasoning": "hm"
          },
          "logprobs": null,
          "finish_reason": "stop"
        }
      ],
      "usage": {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "prompt_tokens_details": {
          "cached_tokens": 4
        },
        "completion_tokens_details": {
          "reasoning_tokens": 2
        }
      }
    }
    "#);
}

#[test]
fn tool_calls_are_gathered_and_content_is_null() {
    let json = serde_json::to_value(folded(called()).finish(&head())).unwrap();
    insta::assert_json_snapshot!(json["choices"][0], @r#"
    {
      "index": 0,
      "message": {
        "role": "assistant",
        "content": null,
        "refusal": null,
        "tool_calls": [
          {
            "id": "c0",
            "type": "function",
            "function": {
              "name": "f",
              "arguments": "{\"x\":1}"
            }
          },
          {
            "id": "c1",
            "type": "function",
            "function": {
              "name": "g",
              "arguments": "{}"
            }
          }
        ]
      },
      "logprobs": null,
      "finish_reason": "tool_calls"
    }
    "#);
}

#[test]
fn an_empty_answer_is_an_empty_string() {
    let json = serde_json::to_value(folded(vec![finished(FinishReason::Length)]).finish(&head())).unwrap();
    assert_eq!(json["choices"][0]["message"]["content"], "");
    assert_eq!(json["choices"][0]["finish_reason"], "length");
}

#[test]
fn chunks_have_one_role_one_reason_and_no_usage_unasked() {
    insta::assert_snapshot!(lines(ChatChunks::new(head(), false), alone(thought())), @r#"
    {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{"reasoning_content":"hm","reasoning":"hm"},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{"content":"b"},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}
    "#);
}

#[test]
fn usage_comes_last_when_asked_for() {
    insta::assert_snapshot!(lines(ChatChunks::new(head(), true), alone(vec![finished(FinishReason::Length)])), @r#"
    {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}
    {"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],"usage":null}
    {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}
    "#);
}

#[test]
fn tool_calls_stream_with_id_and_name_once() {
    insta::assert_snapshot!(lines(ChatChunks::new(head(), false), alone(called())), @r#"
    {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c0","type":"function","function":{"name":"f","arguments":"{\"x\""}}]},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"c1","type":"function","function":{"name":"g","arguments":"{}"}}]},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}]}
    "#);
}

#[test]
fn several_prompts_stream_side_by_side_and_their_usage_is_the_sum() {
    let events = vec![
        (0, text(Channel::Content, "a")),
        (1, text(Channel::Content, "x")),
        (1, finished(FinishReason::Stop)),
        (0, finished(FinishReason::Length)),
    ];
    insta::assert_snapshot!(lines(CompletionChunks::new(head(), true), events), @r#"
    {"choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null}],"usage":null}
    {"choices":[{"index":1,"text":"x","logprobs":null,"finish_reason":null}],"usage":null}
    {"choices":[{"index":1,"text":"","logprobs":null,"finish_reason":"stop"}],"usage":null}
    {"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}],"usage":null}
    {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":6,"total_tokens":16,"prompt_tokens_details":{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":4}}}
    "#);
}

#[test]
fn several_prompts_are_one_object_in_their_order() {
    let fold = |word: &str| {
        let mut fold = CompletionFold::default();
        fold.add(text(Channel::Content, word)).unwrap();
        fold.add(finished(FinishReason::Stop)).unwrap();
        fold
    };
    insta::assert_json_snapshot!(CompletionFold::finish(vec![fold("a"), fold("b")], &head()), @r#"
    {
      "id": "chatcmpl-1",
      "object": "text_completion",
      "created": 7,
      "model": "m",
      "system_fingerprint": "f",
      "choices": [
        {
          "index": 0,
          "text": "a",
          "logprobs": null,
          "finish_reason": "stop"
        },
        {
          "index": 1,
          "text": "b",
          "logprobs": null,
          "finish_reason": "stop"
        }
      ],
      "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 6,
        "total_tokens": 16,
        "prompt_tokens_details": {
          "cached_tokens": 8
        },
        "completion_tokens_details": {
          "reasoning_tokens": 4
        }
      }
    }
    "#);
}

#[test]
fn a_failure_is_handed_back_and_not_told_as_an_end() {
    let failed = || Event::Failed(GenerateError::Engine("x".into()));
    assert!(ChatFold::default().add(failed()).is_err());
    assert!(ChatChunks::new(head(), false).event(0, failed()).is_err());
    assert!(CompletionChunks::new(head(), false).event(0, failed()).is_err());
    assert!(ChatFold::default().add(call(3, None, "")).is_err(), "a call out of order");
}

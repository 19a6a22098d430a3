//! Raising as snapshots: what clients see of an engine's events.

use mesh_proto::{
    Channel, Event, FinishReason, GenerateError, Likelihood, TokenId, TokenLogprob, ToolCallDelta, Usage,
};

use super::{
    super::{Head, gather::Fold, stream::Raise},
    *,
};

fn head() -> Head {
    Head { id: "chatcmpl-1".into(), created: 7, model: "m".into(), fingerprint: "f".into() }
}

fn text(channel: Channel, text: &str) -> Event {
    Event::Text { channel, text: text.into(), tokens: Vec::new(), logprobs: Vec::new() }
}

/// As [`text`], of tokens of one byte or more each, with one alternative.
fn likely(tokens: &[&[u8]]) -> Event {
    let likelihood = |bytes: &[u8], logprob| Likelihood { token: TokenId(7), bytes: bytes.to_vec(), logprob };
    let logprobs = tokens.iter().map(|bytes| TokenLogprob {
        chosen: likelihood(bytes, -0.5),
        top: vec![likelihood(b"?", -0.25), likelihood(bytes, -0.5)],
    });
    let logprobs = logprobs.collect();
    let text = String::from_utf8(tokens.concat()).unwrap();
    Event::Text { channel: Channel::Content, text, tokens: vec![TokenId(7); tokens.len()], logprobs }
}

fn tally(choices: u32) -> Tally {
    Tally::new(choices, 5)
}

/// One answer, with usage as `told`.
fn chunks(told: UsageTold) -> ChatChunks {
    ChatChunks::new(head(), told, tally(1), 1)
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

fn fold<F: Fold>(events: Vec<Event>) -> F {
    let mut fold = F::default();
    events.into_iter().for_each(|event| fold.add(event).unwrap());
    fold
}

/// The one answer of a chat.
fn whole(events: Vec<Event>, logprobs: bool) -> serde_json::Value {
    serde_json::to_value(ChatFold::finish(vec![fold(events)], &head(), tally(1), logprobs)).unwrap()
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
    insta::assert_json_snapshot!(whole(thought(), false), @r#"
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
    let json = whole(called(), false);
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
    let json = whole(vec![finished(FinishReason::Length)], false);
    assert_eq!(json["choices"][0]["message"]["content"], "");
    assert_eq!(json["choices"][0]["finish_reason"], "length");
}

#[test]
fn chunks_have_one_role_one_reason_and_no_usage_unasked() {
    insta::assert_snapshot!(lines(chunks(UsageTold::Never), alone(thought())), @r#"
    {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{"reasoning_content":"hm","reasoning":"hm"},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{"content":"b"},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}
    "#);
}

#[test]
fn usage_comes_last_when_asked_for() {
    insta::assert_snapshot!(lines(chunks(UsageTold::AtTheEnd), alone(vec![finished(FinishReason::Length)])), @r#"
    {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}
    {"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],"usage":null}
    {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}
    "#);
}

#[test]
fn tool_calls_stream_with_id_and_name_once() {
    insta::assert_snapshot!(lines(chunks(UsageTold::Never), alone(called())), @r#"
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
    insta::assert_snapshot!(lines(CompletionChunks::new(head(), UsageTold::AtTheEnd, Tally::new(1, 10), Vec::new()), events), @r#"
    {"choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null}],"usage":null}
    {"choices":[{"index":1,"text":"x","logprobs":null,"finish_reason":null}],"usage":null}
    {"choices":[{"index":1,"text":"","logprobs":null,"finish_reason":"stop"}],"usage":null}
    {"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}],"usage":null}
    {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":6,"total_tokens":16,"prompt_tokens_details":{"cached_tokens":8},"completion_tokens_details":{"reasoning_tokens":4}}}
    "#);
}

#[test]
fn several_prompts_are_one_object_in_their_order() {
    let fold = |word: &str| fold::<CompletionFold>(vec![text(Channel::Content, word), finished(FinishReason::Stop)]);
    let all = vec![fold("a"), fold("b")];
    insta::assert_json_snapshot!(CompletionFold::finish(all, &head(), Tally::new(1, 10), Vec::new(), false), @r#"
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
    assert!(chunks(UsageTold::Never).event(0, failed()).is_err());
    assert!(CompletionChunks::new(head(), UsageTold::Never, tally(1), Vec::new()).event(0, failed()).is_err());
    assert!(ChatFold::default().add(call(3, None, "")).is_err(), "a call out of order");
}

#[test]
fn several_answers_to_one_prompt_cost_the_prompt_once() {
    let answers = vec![fold(thought()), fold(called())];
    let json = serde_json::to_value(ChatFold::finish(answers, &head(), tally(2), false)).unwrap();
    let line = |choice: &serde_json::Value| format!("{} {}", choice["index"], choice["finish_reason"]);
    let lines: Vec<String> = json["choices"].as_array().unwrap().iter().map(line).collect();
    assert_eq!(lines, ["0 \"stop\"", "1 \"tool_calls\""]);
    insta::assert_snapshot!(json["usage"], @r#"{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":4}}"#);
}

#[test]
fn several_answers_stream_side_by_side_each_with_its_role_and_index() {
    let events = vec![
        (1, text(Channel::Content, "x")),
        (0, text(Channel::Content, "a")),
        (1, finished(FinishReason::Length)),
        (0, call(0, Some(("c0", "f")), "{}")),
        (0, finished(FinishReason::ToolCalls)),
    ];
    let raise = ChatChunks::new(head(), UsageTold::AtTheEnd, tally(2), 2);
    insta::assert_snapshot!(lines(raise, events), @r#"
    {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}
    {"choices":[{"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}
    {"choices":[{"index":1,"delta":{"content":"x"},"logprobs":null,"finish_reason":null}],"usage":null}
    {"choices":[{"index":0,"delta":{"content":"a"},"logprobs":null,"finish_reason":null}],"usage":null}
    {"choices":[{"index":1,"delta":{},"logprobs":null,"finish_reason":"length"}],"usage":null}
    {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c0","type":"function","function":{"name":"f","arguments":"{}"}}]},"logprobs":null,"finish_reason":null}],"usage":null}
    {"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"usage":null}
    {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":6,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":4}}}
    "#);
}

#[test]
fn usage_grows_where_every_chunk_is_to_tell_it() {
    let events = vec![(0, likely(&[b"a", b"b"])), (1, likely(&[b"c"])), (0, finished(FinishReason::Stop))];
    let raise = CompletionChunks::new(head(), UsageTold::Always, tally(2), Vec::new());
    let lines = lines(raise, events);
    let spent = lines.lines().map(|line| {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        (json["usage"]["prompt_tokens"].as_u64().unwrap(), json["usage"]["completion_tokens"].as_u64().unwrap())
    });
    assert_eq!(spent.collect::<Vec<_>>(), [(5, 2), (5, 3), (5, 4), (5, 4)]);
}

#[test]
fn a_chats_tokens_are_told_with_bytes_and_the_likeliest_others() {
    let party = "🎉".as_bytes();
    let events = || vec![likely(&[b"a", &party[..2], &party[2..]]), finished(FinishReason::Stop)];
    insta::assert_snapshot!(whole(events(), true)["choices"][0]["logprobs"], @r#"{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"?","logprob":-0.25,"bytes":[63]},{"token":"a","logprob":-0.5,"bytes":[97]}]},{"token":"�","logprob":-0.5,"bytes":[240,159],"top_logprobs":[{"token":"?","logprob":-0.25,"bytes":[63]},{"token":"�","logprob":-0.5,"bytes":[240,159]}]},{"token":"��","logprob":-0.5,"bytes":[142,137],"top_logprobs":[{"token":"?","logprob":-0.25,"bytes":[63]},{"token":"��","logprob":-0.5,"bytes":[142,137]}]}],"refusal":null}"#);
    assert!(whole(vec![finished(FinishReason::Stop)], true)["choices"][0]["logprobs"]["content"].is_array());
    insta::assert_snapshot!(lines(chunks(UsageTold::Never), alone(events())), @r#"
    {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{"content":"a🎉"},"logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"?","logprob":-0.25,"bytes":[63]},{"token":"a","logprob":-0.5,"bytes":[97]}]},{"token":"�","logprob":-0.5,"bytes":[240,159],"top_logprobs":[{"token":"?","logprob":-0.25,"bytes":[63]},{"token":"�","logprob":-0.5,"bytes":[240,159]}]},{"token":"��","logprob":-0.5,"bytes":[142,137],"top_logprobs":[{"token":"?","logprob":-0.25,"bytes":[63]},{"token":"��","logprob":-0.5,"bytes":[142,137]}]}],"refusal":null},"finish_reason":null}]}
    {"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}
    "#);
}

#[test]
fn tokens_of_reasoning_and_of_calls_are_not_told_as_the_contents() {
    let mut thought = likely(&[b"hm"]);
    if let Event::Text { channel, .. } = &mut thought {
        *channel = Channel::Reasoning;
    }
    let json = whole(vec![thought, likely(&[b"a"]), finished(FinishReason::Stop)], true);
    assert_eq!(json["choices"][0]["logprobs"]["content"].as_array().unwrap().len(), 1);
}

#[test]
fn a_legacy_answers_tokens_are_four_lists_with_offsets_in_characters() {
    let party = "é🎉".as_bytes();
    let events = || vec![likely(&[&party[..3], &party[3..]]), likely(&[b"b"]), finished(FinishReason::Stop)];
    let whole = CompletionFold::finish(vec![fold(events())], &head(), tally(1), Vec::new(), true);
    insta::assert_snapshot!(serde_json::to_value(whole).unwrap()["choices"][0]["logprobs"], @r#"{"tokens":["é�","���","b"],"token_logprobs":[-0.5,-0.5,-0.5],"top_logprobs":[{"?":-0.25,"é�":-0.5},{"?":-0.25,"���":-0.5},{"?":-0.25,"b":-0.5}],"text_offset":[0,1,2]}"#);
    let raise = CompletionChunks::new(head(), UsageTold::Never, tally(1), Vec::new());
    insta::assert_snapshot!(lines(raise, alone(events())), @r#"
    {"choices":[{"index":0,"text":"é🎉","logprobs":{"tokens":["é�","���"],"token_logprobs":[-0.5,-0.5],"top_logprobs":[{"?":-0.25,"é�":-0.5},{"?":-0.25,"���":-0.5}],"text_offset":[0,1]},"finish_reason":null}]}
    {"choices":[{"index":0,"text":"b","logprobs":{"tokens":["b"],"token_logprobs":[-0.5],"top_logprobs":[{"?":-0.25,"b":-0.5}],"text_offset":[2]},"finish_reason":null}]}
    {"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}
    "#);
    let mut endless = likely(&[b"a"]);
    if let Event::Text { logprobs, .. } = &mut endless {
        logprobs[0].chosen.logprob = f32::NEG_INFINITY;
    }
    let whole = CompletionFold::finish(vec![fold(vec![endless])], &head(), tally(1), Vec::new(), true);
    assert_eq!(serde_json::to_value(whole).unwrap()["choices"][0]["logprobs"]["token_logprobs"][0], -9999.0);
}

#[test]
fn an_echo_comes_before_its_answer() {
    let events = || vec![text(Channel::Content, "x"), finished(FinishReason::Stop)];
    let echoes = || vec!["p".to_owned(), "q".to_owned()];
    let both = vec![fold(events()), fold(events())];
    let json = serde_json::to_value(CompletionFold::finish(both, &head(), tally(1), echoes(), false)).unwrap();
    assert_eq!((&json["choices"][0]["text"], &json["choices"][1]["text"]), (&"px".into(), &"qx".into()));
    let raise = CompletionChunks::new(head(), UsageTold::Never, tally(1), echoes());
    insta::assert_snapshot!(lines(raise, alone(events())), @r#"
    {"choices":[{"index":0,"text":"p","logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":1,"text":"q","logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"text":"x","logprobs":null,"finish_reason":null}]}
    {"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}
    "#);
}

//! The legacy endpoint: its prompts, and what of it does not work; must not hold chats.

use super::*;

#[test]
fn a_legacy_prompt_is_one_request_for_each_text_or_list() {
    let requests = |prompt: Value| {
        let body = json!({ "model": "m", "prompt": prompt, "temperature": 0 }).to_string();
        completions_of(body.as_bytes()).map(|asked| asked.requests).map_err(|e| e.body.message)
    };
    for (prompt, count) in [(json!("x"), 1), (json!(["x", "y"]), 2), (json!([1, 2]), 1), (json!([[1], [2, 3], [4]]), 3)]
    {
        let requests = requests(prompt).unwrap();
        assert_eq!(requests.len(), count);
        assert!(requests.iter().all(|r| r.max_tokens == Some(16) && !r.sampling.draws()));
    }
    let refusals: Vec<String> =
        [json!([]), json!(null), json!([1, "x"]), json!([[]]), json!([1000]), json!([-1]), json!([1.5]), json!({})]
            .into_iter()
            .map(|prompt| requests(prompt).unwrap_err())
            .collect();
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    `prompt` must have 1 to 256 prompts, not 0
    `prompt`: invalid type: null, expected text, token ids, or an array of either
    `prompt`: texts, tokens and arrays of tokens cannot be mixed
    `prompt` has an empty array of token ids
    `prompt[0]` is not one of this model's token ids, 0 to 999
    `prompt[0]` is not one of this model's token ids, 0 to 999
    `prompt[0]`: text, a token id, or an array of token ids
    `prompt`: invalid type: map, expected text, token ids, or an array of either
    "#);
}

#[test]
fn legacy_fields_that_do_not_work_are_refused_by_name() {
    let refusal = |fields: Value| {
        let mut body = json!({ "model": "m", "prompt": "x" });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let error = completions_of(body.to_string().as_bytes()).unwrap_err();
        format!("{}: {}", error.body.param.unwrap(), error.body.message)
    };
    let fields = [
        json!({ "suffix": "x" }),
        json!({ "best_of": 2 }),
        json!({ "best_of": 2, "n": 3 }),
        json!({ "logprobs": 6 }),
        json!({ "logprobs": true }),
        json!({ "logprobs": 0, "echo": true }),
        json!({ "min_tokens": 17 }),
        json!({ "tools": [] }),
    ];
    insta::assert_snapshot!(fields.map(refusal).join("\n"), @r#"
    suffix: `suffix` does not work here: leave it out, or send null
    best_of: `best_of` does not work here: leave it out, or send 1 or what `n` is (1)
    best_of: `best_of` does not work here: leave it out, or send 1 or what `n` is (3)
    logprobs: `logprobs` must be from 0 to 5, not 6
    logprobs: `logprobs`: invalid type: boolean `true`, expected a whole number
    logprobs: `logprobs` are told of the answer alone, and `echo` asks for the prompt's too; send one of them
    min_tokens: `min_tokens` is 17, and the answer may have 16 tokens at most
    tools: `tools` is not a parameter that works here; leave it out
    "#);
    let neutral = br#"{"model":"m","prompt":"x","echo":false,"suffix":null,"best_of":1,"logprobs":null,"n":1}"#;
    assert!(completions_of(neutral).is_ok());
}

//! What several answers, penalties, forms, tools and reasoning mean; must not hold snapshots of refusals.

use super::*;

#[test]
fn several_answers_have_seeds_of_their_own_and_stand_behind_their_prompt() {
    let seeds = |requests: &[GenerateRequest]| requests.iter().map(|r| r.sampling.seed).collect::<Vec<_>>();
    let asked = chat_of(&with(json!({ "n": 3, "seed": -1 }))).unwrap();
    assert_eq!(seeds(&asked.requests), [Some(u64::MAX), Some(0), Some(1)]);
    assert_eq!(asked.told.choices, 3);
    let drawn = chat_of(&with(json!({ "n": 2 }))).unwrap();
    assert_eq!(seeds(&drawn.requests), [None, None], "each engine draws");
    let body = json!({ "model": "m", "prompt": ["a", "b"], "n": 2, "best_of": 2, "seed": 5, "logprobs": 0 });
    let asked = completions_of(body.to_string().as_bytes()).unwrap();
    let prompts: Vec<_> = asked.requests.iter().map(|r| r.prompt.clone()).collect();
    let text = |text: &str| mesh_proto::Prompt::Text(text.into());
    assert_eq!(prompts, [text("a"), text("a"), text("b"), text("b")]);
    assert_eq!(seeds(&asked.requests), [Some(5), Some(6), Some(5), Some(6)]);
    assert!(asked.requests.iter().all(|r| r.logprobs == Some(0)));
}

#[test]
fn a_penalty_does_what_it_says_and_the_rest_stays_the_models() {
    let sampling = |fields| lowered(fields).sampling;
    let asked = sampling(json!({
        "frequency_penalty": -0.5, "presence_penalty": 0.5, "repeat_penalty": 1.1, "repeat_last_n": -1, "typical_p": 0.9,
        "xtc_probability": 0.5, "xtc_threshold": 0.2, "dry_multiplier": 0.8, "dry_penalty_last_n": 0,
    }));
    insta::assert_json_snapshot!(asked, @r#"
    {
      "temperature": 0.6,
      "top_p": 1.0,
      "top_k": 20,
      "min_p": 0.0,
      "typical_p": 0.9,
      "repetition_penalty": 1.1,
      "presence_penalty": 0.5,
      "frequency_penalty": -0.5,
      "repeat_last_n": null,
      "dry": {
        "multiplier": 0.8,
        "base": 1.75,
        "allowed_length": 2,
        "last_n": 0,
        "breakers": [
          "\n",
          ":",
          "\"",
          "*"
        ]
      },
      "xtc_probability": 0.5,
      "xtc_threshold": 0.2,
      "seed": null,
      "logit_bias": []
    }
    "#);
    assert_eq!(asked.repeat_last_n, None, "all");
    let own = json!({ "dry_multiplier": 1, "dry_base": 2, "dry_allowed_length": 4, "dry_penalty_last_n": 99,
        "dry_sequence_breakers": ["\n", "#"] });
    let dry = sampling(own).dry.unwrap();
    assert_eq!((dry.base, dry.allowed_length, dry.last_n, dry.breakers.len()), (2.0, 4, Some(99), 2));
    let facts = Facts { defaults: Sampling { dry: Some(dry), ..facts().defaults }, ..facts() };
    let by = |fields| chat(parse(&with(fields)).unwrap(), mesh_proto::RequestId("r".into()), &facts).unwrap();
    assert!(by(json!({})).requests[0].sampling.dry.is_some());
    assert!(by(json!({ "dry_multiplier": 0 })).requests[0].sampling.dry.is_none(), "the request turns it off");
}

#[test]
fn the_answers_form_is_a_constraint_as_the_client_wrote_it() {
    let constraint = |fields| lowered(fields).constraint;
    let schema = json!({ "type": "object", "properties": { "z": {}, "a": {} } });
    let text = schema.to_string();
    let named = json!({ "type": "json_schema", "json_schema": {
        "name": "r", "strict": true, "description": null, "schema": schema } });
    assert_eq!(constraint(json!({ "response_format": named })), Some(Constraint::JsonSchema(text.clone())));
    let llama = json!({ "type": "json_object", "schema": schema });
    assert_eq!(constraint(json!({ "response_format": llama })), Some(Constraint::JsonSchema(text)));
    let object = json!({ "type": "json_object" });
    assert_eq!(constraint(json!({ "response_format": object })), Some(Constraint::JsonObject));
    assert_eq!(constraint(json!({ "guided_regex": "a+" })), Some(Constraint::Regex("a+".into())));
    assert_eq!(constraint(json!({ "lark": "start: \"a\"" })), Some(Constraint::Lark("start: \"a\"".into())));
    assert_eq!(constraint(json!({ "response_format": { "type": "text" } })), None);
}

#[test]
fn tools_are_chosen_left_out_or_narrowed() {
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name } });
    let asked = |fields| {
        let asked = chat_of(&with(fields)).unwrap();
        let mesh_proto::Prompt::Chat(prompt) = &asked.requests[0].prompt else { panic!("no chat") };
        let names: Vec<String> = prompt.tools.iter().map(|tool| tool.name.clone()).collect();
        (asked.requests[0].tool_choice.clone(), names, asked.left_out)
    };
    let both = json!([tool("f"), { "type": "web_search_preview_2025_03_11" }, tool("g"), { "type": "namespace", "tools": [] }]);
    let left: Vec<String> = vec!["web_search_preview_2025_03_11".into(), "namespace".into()];
    let names: Vec<String> = vec!["f".into(), "g".into()];
    let choose = |choice: Value| asked(json!({ "tools": both, "tool_choice": choice }));
    assert_eq!(choose(json!("required")), (ToolChoice::Required, names.clone(), left.clone()));
    assert_eq!(choose(tool("g")), (ToolChoice::Named("g".into()), names, left.clone()));
    let allowed = json!({ "type": "allowed_tools", "allowed_tools": { "mode": "required", "tools": [tool("g")] } });
    assert_eq!(choose(allowed), (ToolChoice::Required, vec!["g".into()], left));
    assert!(!lowered(json!({ "tools": [tool("f")], "parallel_tool_calls": false })).parallel_tool_calls);
}

#[test]
fn what_is_said_of_reasoning_reaches_the_template() {
    let prompt = |fields| match lowered(fields).prompt {
        mesh_proto::Prompt::Chat(prompt) => prompt,
        other => panic!("no chat: {other:?}"),
    };
    let asked = prompt(json!({ "reasoning_effort": "high", "thinking_budget_tokens": 64,
        "chat_template_kwargs": { "enable_thinking": true, "style": { "b": 1, "a": [true] } } }));
    assert_eq!((asked.enable_thinking, asked.reasoning_effort.as_deref()), (Some(true), Some("high")));
    assert_eq!(asked.reasoning_budget, Some(64));
    assert_eq!(asked.variables, [("style".to_owned(), r#"{"b":1,"a":[true]}"#.to_owned())]);
    let none = prompt(json!({ "reasoning_effort": "none" }));
    assert_eq!((none.enable_thinking, none.reasoning_effort), (Some(false), None));
    assert_eq!(prompt(json!({ "reasoning_budget": 0 })).reasoning_budget, Some(0));
}

//! Model folders in all their forms, and prompts into tokens.
#![allow(clippy::unwrap_used)]

mod text_support;

use std::{fs, path::Path, sync::Arc};

use engine::text::{TextError, TextModel, TextRequest};
use mesh_proto::{ChatPrompt, GenerateError, Message, Prompt, Role, TokenId, ToolCall, ToolChoice};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use text_support::{Model, byte_level, byte_level_decoder, chat_prompt, now, run, tokenizer, weather, write};

/// A folder with a byte tokenizer and nothing else.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<String> = (0..=255).map(|byte| byte_level(&[byte])).collect();
    let json = tokenizer(&bytes, &[("<s>", true), ("</s>", true)], byte_level_decoder());
    write(folder.path(), "tokenizer.json", &json);
    folder
}

fn rendered(folder: &Path, chat: ChatPrompt) -> Result<String, GenerateError> {
    let model = TextModel::load(folder).unwrap();
    let prepared = model.prepare(TextRequest::new(&Prompt::Chat(chat)), now())?;
    model.decode(&prepared.tokens, true)
}

fn with_template(template: &str) -> TempDir {
    let folder = folder();
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    folder
}

#[test]
fn text_templates_are_read_in_all_four_forms_and_jinja_files_go_before_json_before_the_config() {
    let folder = folder();
    let say = |who: &str| format!("{who}: {{{{ messages[0].content }}}}");
    let ask = || rendered(folder.path(), chat_prompt("Hi")).unwrap();
    write(folder.path(), "tokenizer_config.json", &json!({"chat_template": say("config")}));
    assert_eq!(ask(), "config: Hi");
    let named = json!([{"name": "tool_use", "template": say("tools")}, {"name": "default", "template": say("list")}]);
    write(folder.path(), "tokenizer_config.json", &json!({"chat_template": named}));
    assert_eq!(ask(), "list: Hi");
    let with_tools = ChatPrompt { tools: vec![weather()], ..chat_prompt("Hi") };
    assert_eq!(rendered(folder.path(), with_tools.clone()).unwrap(), "tools: Hi");
    write(folder.path(), "chat_template.json", &json!({"chat_template": say("json")}));
    assert_eq!(ask(), "json: Hi");
    fs::write(folder.path().join("chat_template.jinja"), say("jinja")).unwrap();
    assert_eq!(ask(), "jinja: Hi");
    fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
    fs::write(folder.path().join("additional_chat_templates/tool_use.jinja"), say("more")).unwrap();
    assert_eq!((ask(), rendered(folder.path(), with_tools).unwrap()), ("jinja: Hi".into(), "more: Hi".into()));
}

#[test]
fn text_special_tokens_are_read_as_strings_and_as_objects_and_templates_see_them_by_name() {
    let folder = with_template("{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}");
    write(
        folder.path(),
        "special_tokens_map.json",
        &json!({"bos_token": "<old>", "unk_token": "<unk>", "pad_token": "<pad>"}),
    );
    let config = json!({"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null});
    write(folder.path(), "tokenizer_config.json", &config);
    assert_eq!(rendered(folder.path(), chat_prompt("Hi")).unwrap(), "<s>|</s>||<unk>");
    let model = TextModel::load(folder.path()).unwrap();
    assert_eq!(model.eos_from_tokenizer(), [TokenId(257)]);
    assert_eq!(model.vocab_size(), 258);
}

#[test]
fn text_files_that_cannot_be_used_are_named_with_what_is_wrong() {
    let empty = tempfile::tempdir().unwrap();
    let error = TextModel::load(empty.path()).unwrap_err();
    assert!(matches!(&error, TextError::Read { file, .. } if file.ends_with("tokenizer.json")), "{error}");
    let folder = with_template("line one\n{% for x in %}");
    let error = TextModel::load(folder.path()).unwrap_err();
    assert!(
        matches!(&error, TextError::Template { file, line: 2, .. } if file.ends_with("chat_template.jinja")),
        "{error}"
    );
    assert!(error.to_string().contains("chat_template.jinja: chat template `default`, line 2: "), "{error}");
    for (name, text) in [
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "["),
        ("tokenizer_config.json", r#"{"chat_template": 7}"#),
        ("chat_template.json", r#"{"chat_template": [{"name": "default"}]}"#),
        ("special_tokens_map.json", "[]"),
    ] {
        let folder = self::folder();
        fs::write(folder.path().join(name), text).unwrap();
        let error = TextModel::load(folder.path()).unwrap_err();
        assert!(matches!(&error, TextError::Malformed { file, .. } if file.ends_with(name)), "{name}: {error}");
    }
}

#[test]
fn text_model_without_template_refuses_chats_and_says_what_to_do() {
    let error = rendered(folder().path(), chat_prompt("Hi")).unwrap_err();
    let GenerateError::Invalid { field, message } = error else { panic!("{error}") };
    assert_eq!(field, "messages");
    assert!(message.contains("/v1/completions") && message.contains("chat_template.jinja"));
}

#[test]
fn text_of_a_template_that_raises_is_the_callers_message() {
    let folder = with_template("{% macro f() %}{{ raise_exception('Roles must alternate!') }}{% endmacro %}{{ f() }}");
    let error = rendered(folder.path(), chat_prompt("Hi")).unwrap_err();
    assert_eq!(error, GenerateError::invalid("messages", "Roles must alternate!"));
}

#[test]
fn text_of_hostile_templates_ends_in_an_error_on_a_small_stack() {
    let small = |template: &'static str| {
        let render = move || rendered(with_template(template).path(), chat_prompt("Hi"));
        std::thread::Builder::new().stack_size(2 << 20).spawn(render).unwrap().join().unwrap()
    };
    for template in [
        "{% macro f(x) %}{{ f(x + 1) }}{% endmacro %}{{ f(0) }}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
        "{% include 'default' %}",
        "{{ messages | no_such_filter }}",
    ] {
        let error = small(template).unwrap_err();
        assert!(error.to_string().starts_with("the"), "{template}: {error}");
    }
}

/// A folder whose vocabulary has ChatML's marks.
fn with_marks(template: &str) -> TempDir {
    let folder = with_template(template);
    let bytes: Vec<String> = (0..=255).map(|byte| byte_level(&[byte])).collect();
    let json = tokenizer(&bytes, &[("<|im_start|>", true), ("<|im_end|>", true)], byte_level_decoder());
    write(folder.path(), "tokenizer.json", &json);
    folder
}

#[test]
fn text_of_a_template_that_cannot_be_used_is_chatml_where_the_vocabulary_has_its_marks() {
    let said = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    let chat = || {
        let messages = vec![Message::text(Role::System, "Be brief."), Message::text(Role::User, "Hi")];
        ChatPrompt { messages, ..ChatPrompt::default() }
    };
    for template in ["{% for x in %}", "{{ messages | no_such_filter }}", "{% include 'nothing' %}"] {
        assert_eq!(rendered(with_marks(template).path(), chat()).unwrap(), said, "{template}");
    }
    // What it refuses stays refused, and what it shows of calls is not shown otherwise.
    let refuses = with_marks("{{ raise_exception('No!') }}");
    assert_eq!(rendered(refuses.path(), chat()).unwrap_err(), GenerateError::invalid("messages", "No!"));
    let with_tools = || ChatPrompt { tools: vec![weather()], ..chat() };
    let error = rendered(with_marks("{{ messages | no_such_filter }}").path(), with_tools()).unwrap_err();
    assert!(matches!(error, GenerateError::Engine(_)), "{error}");
}

#[test]
fn text_of_the_fallback_shows_tools_and_calls_as_hermes_does() {
    let call = ToolCall { id: "1".into(), name: "get_weather".into(), arguments: "{\"city\": \"Oslo\"}".into() };
    let messages = vec![
        Message::text(Role::System, "Be brief."),
        Message::text(Role::User, "Weather?"),
        Message { content: None, tool_calls: vec![call], ..Message::text(Role::Assistant, "") },
        Message { tool_call_id: Some("1".into()), ..Message::text(Role::Tool, "rain") },
    ];
    let folder = with_marks("{% for x in %}");
    assert_eq!(TextModel::load(folder.path()).unwrap().tool_dialect(), "hermes");
    let tools = vec![weather()];
    let told = rendered(
        folder.path(),
        ChatPrompt { messages: messages.clone(), tools: tools.clone(), ..ChatPrompt::default() },
    );
    let told = told.unwrap();
    let (system, rest) = told.split_once("<|im_end|>\n").unwrap();
    assert!(
        system.starts_with("<|im_start|>system\nBe brief.\n\nYou may call") && system.contains("\"get_weather\""),
        "{system}"
    );
    assert_eq!(
        rest,
        "<|im_start|>user\nWeather?<|im_end|>\n\
         <|im_start|>assistant\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call><|im_end|>\n\
         <|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    );
    // Without a system turn, the tools have one of their own.
    let told =
        rendered(folder.path(), ChatPrompt { messages: messages[1..2].to_vec(), tools, ..ChatPrompt::default() });
    let told = told.unwrap();
    assert!(
        told.starts_with("<|im_start|>system\nYou may call") && told.matches("<|im_start|>").count() == 3,
        "{told}"
    );
}

#[test]
fn text_of_developers_is_the_systems_unless_the_template_knows_them() {
    let chat = ChatPrompt { messages: vec![Message::text(Role::Developer, "x")], ..ChatPrompt::default() };
    let role = "{{ messages[0].role }}";
    for (aside, seen) in [
        ("", "system"),
        ("{# developer #}", "system"),
        ("{% if 'developer__shell' == 'x' %}{% endif %}", "system"),
        ("{% if messages[0].role == 'developer' %}{% endif %}", "developer"),
        ("{% if messages[0].role == \"developer\" %}{% endif %}", "developer"),
    ] {
        let template = with_template(&format!("{role}{aside}"));
        assert_eq!(rendered(template.path(), chat.clone()).unwrap(), seen, "{aside}");
    }
}

fn called() -> ChatPrompt {
    let mut message = Message::text(Role::Assistant, "");
    message.content = None;
    message.reasoning = Some("hm".into());
    message.tool_calls =
        vec![ToolCall { id: "c1".into(), name: "f".into(), arguments: r#"{"z":1.50,"a":"é"}"#.into() }];
    ChatPrompt { messages: vec![message], ..ChatPrompt::default() }
}

#[test]
fn text_templates_see_calls_as_objects_null_content_as_none_and_reasoning_by_its_name() {
    let folder = with_template(
        "{{ messages[0].content is none }} {{ messages[0].reasoning_content }} {{ messages[0].tool_calls[0].id }} \
         {{ messages[0].tool_calls[0].type }} {{ messages[0].tool_calls[0].function.arguments | tojson }}",
    );
    assert_eq!(rendered(folder.path(), called()).unwrap(), r#"True hm c1 function {"z": 1.5, "a": "é"}"#);
}

#[test]
fn text_templates_that_add_up_content_or_arguments_get_them_as_strings() {
    let folder = with_template("{{ '<' + messages[0].content + '>' }}");
    assert_eq!(rendered(folder.path(), called()).unwrap(), "<>");
    let folder = with_template("{{ '<' + messages[0].content + messages[0].tool_calls[0].function.arguments + '>' }}");
    assert_eq!(rendered(folder.path(), called()).unwrap(), r#"<{"z":1.50,"a":"é"}>"#);
}

#[test]
fn text_of_tools_is_rendered_in_the_clients_key_order_and_left_out_when_no_calls_are_wanted() {
    let folder = with_template("{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{{ tools is none }}");
    let model = TextModel::load(folder.path()).unwrap();
    let chat = ChatPrompt { tools: vec![weather()], ..chat_prompt("Hi") };
    assert_eq!(model.render(&chat, true, now()).unwrap(), weather().json + "False");
    let prepared = model
        .prepare(TextRequest { tool_choice: &ToolChoice::None, ..TextRequest::new(&Prompt::Chat(chat)) }, now())
        .unwrap();
    assert_eq!(model.decode(&prepared.tokens, true).unwrap(), "True");
}

#[test]
fn text_tool_choice_none_makes_call_markup_plain_text() {
    let call = "<tool_call>{\"name\": \"f\"}</tool_call>";
    let model = Model::with_tokens(&[call]);
    let chat = ChatPrompt { tools: vec![weather()], ..chat_prompt("Hi") };
    for (choice, calls) in [(ToolChoice::Auto, 1), (ToolChoice::None, 0)] {
        let prepared = model
            .text
            .prepare(TextRequest { tool_choice: &choice, ..TextRequest::new(&Prompt::Chat(chat.clone())) }, now())
            .unwrap();
        let mut answer = model.text.answer(&prepared, &[]);
        assert_eq!(run(&mut answer, [model.id(call)]).calls.len(), calls);
        assert_eq!(answer.called_tools(), calls == 1);
    }
}

#[test]
fn text_templates_are_told_of_thinking_only_when_it_is_asked_for() {
    let folder = with_template("{{ enable_thinking if enable_thinking is defined else 'unset' }}");
    for (thinking, expected) in [(None, "unset"), (Some(true), "True"), (Some(false), "False")] {
        let chat = ChatPrompt { enable_thinking: thinking, ..chat_prompt("Hi") };
        assert_eq!(rendered(folder.path(), chat).unwrap(), expected);
    }
}

/// A tokenizer that puts `<s>` before what it is asked to mark.
fn with_bos() -> TempDir {
    let folder = with_template("{{ bos_token }}{{ messages[0].content }}");
    let mut json: Json =
        serde_json::from_str(&fs::read_to_string(folder.path().join("tokenizer.json")).unwrap()).unwrap();
    json["post_processor"] = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [256], "tokens": ["<s>"]}}});
    json["truncation"] = json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    write(folder.path(), "tokenizer.json", &json);
    write(folder.path(), "tokenizer_config.json", &json!({"bos_token": "<s>"}));
    folder
}

#[test]
fn text_prompts_get_the_tokenizers_specials_and_chats_only_those_that_the_template_wrote() {
    let model = TextModel::load(with_bos().path()).unwrap();
    let ids = |prompt: Prompt| model.prepare(TextRequest::new(&prompt), now()).unwrap().tokens;
    let expected: Vec<TokenId> = [256, 72, 101, 108, 108, 111].map(TokenId).to_vec();
    assert_eq!(ids(Prompt::Text("Hello".into())), expected, "and a saved truncation does not hold");
    assert_eq!(ids(Prompt::Chat(chat_prompt("Hello"))), expected);
}

#[test]
fn text_prompts_of_tokens_are_checked_against_the_vocabulary() {
    let model = TextModel::load(folder().path()).unwrap();
    let prepare = |ids: &[u32]| {
        let tokens = ids.iter().copied().map(TokenId).collect();
        model.prepare(TextRequest::new(&Prompt::Tokens(tokens)), now())
    };
    assert_eq!(prepare(&[0, 257]).unwrap().tokens.len(), 2);
    for bad in [&[258][..], &[0, u32::MAX], &[]] {
        assert!(matches!(prepare(bad), Err(GenerateError::Invalid { field, .. }) if field == "prompt"), "{bad:?}");
    }
    let empty = model.prepare(TextRequest::new(&Prompt::Text(String::new())), now());
    assert!(matches!(empty, Err(GenerateError::Invalid { field, .. }) if field == "prompt"));
}

/// A model whose tokens are `names`, decoded by `decoder`.
fn named(names: &[&str], decoder: Json) -> Arc<TextModel> {
    let folder = with_template("{{ messages[0].content }}");
    let mut vocabulary: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    vocabulary.extend("Hix".chars().map(String::from));
    let mut json = tokenizer(&vocabulary, &[("</s>", true)], decoder);
    json["pre_tokenizer"] = Json::Null;
    write(folder.path(), "tokenizer.json", &json);
    Arc::new(TextModel::load(folder.path()).unwrap())
}

fn sentencepiece(start: u32) -> Json {
    json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": start, "stop": 0}]})
}

#[test]
fn text_of_every_kind_of_decoder_streams_to_what_it_decodes_at_once() {
    let pieces = ["▁", "▁Hello", "▁▁wor", "ld", "<0xF0>", "<0x9F>", "<0x8E>", "<0x89>", "!", "é", "▁x</w>"];
    let decoders = [
        sentencepiece(1),
        sentencepiece(0),
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true}),
        json!({"type": "WordPiece", "prefix": "▁", "cleanup": false}),
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Replace", "pattern": {"Regex": "▁+"}, "content": " "}]}),
        Json::Null,
    ];
    for decoder in decoders {
        let model = named(&pieces, decoder.clone());
        let chat = model.prepare(TextRequest::new(&Prompt::Chat(chat_prompt("Hi"))), now()).unwrap();
        let orders: [&[u32]; 6] = [
            &[1, 2, 3, 8, 4, 5, 6, 7, 1, 9],
            &[0, 1, 0, 0, 3],
            &[2, 3, 10, 10, 1],
            &[4, 5, 6, 7, 4, 5, 6, 7],
            &[8],
            &[0],
        ];
        for order in orders {
            let tokens: Vec<TokenId> = order.iter().copied().map(TokenId).collect();
            let expected = model.decode(&tokens, false).unwrap();
            assert_eq!(run(&mut model.answer(&chat, &[]), tokens).content, expected, "{order:?} by {decoder}");
        }
    }
}

#[test]
fn text_of_byte_tokens_waits_for_the_whole_character_and_loses_only_bad_bytes() {
    let model = named(&["<0xF0>", "<0x9F>", "<0x8E>", "<0x89>", "a"], sentencepiece(1));
    let prepared = model.prepare(TextRequest::new(&Prompt::Chat(chat_prompt("Hi"))), now()).unwrap();
    let text = |order: &[u32]| run(&mut model.answer(&prepared, &[]), order.iter().copied().map(TokenId)).content;
    assert_eq!(text(&[4, 0, 1, 2]), "a");
    assert_eq!(text(&[4, 0, 1, 2, 3]), "a🎉");
    assert_eq!(text(&[0, 1, 2, 3, 3, 4]), "🎉\u{fffd}a");
}

#[test]
fn text_that_continues_a_prompt_keeps_its_leading_space_and_a_chats_answer_drops_it() {
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    for decoder in [sentencepiece(1), metaspace, json!({"type": "WordPiece", "prefix": "##", "cleanup": false})] {
        let wordpiece = decoder["type"] == "WordPiece";
        let model = named(&["▁world", "▁again"], decoder);
        let tokens = [TokenId(0), TokenId(1)];
        let plain = model.prepare(TextRequest::new(&Prompt::Text("Hi".into())), now()).unwrap();
        let chat = model.prepare(TextRequest::new(&Prompt::Chat(chat_prompt("Hi"))), now()).unwrap();
        let (continued, fresh) =
            (run(&mut model.answer(&plain, &[]), tokens), run(&mut model.answer(&chat, &[]), tokens));
        let (want_continued, want_fresh) =
            if wordpiece { (" ▁world ▁again", "▁world ▁again") } else { (" world again", "world again") };
        assert_eq!((continued.content.as_str(), fresh.content.as_str()), (want_continued, want_fresh));
    }
}

#[test]
fn text_templates_are_told_how_to_reason_by_every_name_that_families_use() {
    let names =
        "enable_thinking thinking thinking_mode reasoning_effort thinking_effort thinking_budget reasoning_budget";
    let source: String = names.split(' ').map(|name| format!("{{{{ {name} | default('-') }}}} ")).collect();
    let (folder, with_none) = (with_template(&source), with_template(&format!("{source}{{# \"none\" #}}")));
    let told = |folder: &TempDir, chat: ChatPrompt| rendered(folder.path(), chat).unwrap().trim_end().to_owned();
    let chat = || chat_prompt("Hi");
    assert_eq!(told(&folder, chat()), "- - - - - - -");
    assert_eq!(told(&folder, ChatPrompt { enable_thinking: Some(true), ..chat() }), "True True enabled - - - -");
    assert_eq!(told(&folder, ChatPrompt { enable_thinking: Some(false), ..chat() }), "False False disabled - - 0 0");
    let effort = |effort: &str| ChatPrompt { reasoning_effort: Some(effort.into()), ..chat() };
    assert_eq!(told(&folder, effort("high")), "- - - high high - -");
    assert_eq!(told(&folder, effort("none")), "False False disabled - - 0 0");
    assert_eq!(told(&with_none, effort("none")), "False False disabled none none 0 0");
    assert_eq!(told(&folder, ChatPrompt { reasoning_budget: Some(512), ..chat() }), "- - - - - 512 512");
}

#[test]
fn text_templates_see_the_clients_variables_which_go_before_everything_but_what_is_the_servers() {
    let folder = with_template("{{ enable_thinking }} {{ a.b[1] }} {{ c is none }} {{ messages | length }}");
    let chat = |name: &str, value: &str| ChatPrompt {
        enable_thinking: Some(true),
        variables: vec![
            ("a".into(), r#"{"b": [0, "é"]}"#.into()),
            ("c".into(), "null".into()),
            (name.to_owned(), value.to_owned()),
        ],
        ..chat_prompt("Hi")
    };
    assert_eq!(rendered(folder.path(), chat("enable_thinking", "false")).unwrap(), "False é True 1");
    for name in ["messages", "tools", "add_generation_prompt", "bos_token", "strftime_now", "raise_exception"] {
        let error = rendered(folder.path(), chat(name, "[]")).unwrap_err();
        let field = format!("chat_template_kwargs.{name}");
        assert!(matches!(&error, GenerateError::Invalid { field: named, .. } if *named == field), "{error}");
    }
    let error = rendered(folder.path(), chat("x", "{")).unwrap_err();
    assert!(matches!(error, GenerateError::Invalid { field, .. } if field == "chat_template_kwargs.x"));
}

#[test]
fn text_templates_that_want_ids_of_nine_characters_get_them_whoever_gave_them() {
    let check = "{% for m in messages %}{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('id') }}\
                 {% endif %}{{ c.id }} {% endfor %}{{ m.tool_call_id }}{% endfor %}";
    let mut chat = called();
    chat.messages[0].tool_calls[0].id = "call_0123456789".into();
    chat.messages.push(Message { tool_call_id: Some("call_0123456789".into()), ..Message::text(Role::Tool, "x") });
    let text = rendered(with_template(check).path(), chat.clone()).unwrap();
    let (first, second) = text.trim().split_once(' ').unwrap();
    assert!(first == second && first.len() == 9 && first.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
    chat.messages[0].tool_calls[0].id = "abcdefghi".into();
    assert!(rendered(with_template(check).path(), chat).unwrap().starts_with("abcdefghi "));
}

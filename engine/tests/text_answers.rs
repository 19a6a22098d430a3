//! Answers: tokens in, pieces out.
#![allow(clippy::unwrap_used)]

mod text_support;

use proptest::prelude::*;
use text_support::{Model, Outcome, run};

/// The text, cut into byte chunks of the given sizes.
fn chunks(text: &str, sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut rest = text.as_bytes();
    let mut out = Vec::new();
    let mut sizes = sizes.iter().copied().cycle();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
        out.push(rest[..size].to_vec());
        rest = &rest[size..];
    }
    out
}

/// What `text` comes to as a chat's answer, cut into tokens of these sizes.
fn answer(text: &str, sizes: &[usize], (tools, thinking): (bool, bool), stops: &[&str]) -> Outcome {
    let tokens = chunks(text, sizes);
    let model = Model::with_tokens(&tokens);
    let prepared = model.chat(tools, Some(thinking));
    let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
    run(&mut model.text.answer(&prepared, &stops), tokens.iter().map(|token| model.id(token)))
}

fn whole(text: &str, tools: bool, thinking: bool) -> Outcome {
    let outcome = answer(text, &[text.len()], (tools, thinking), &[]);
    for size in [1, 2, 3, 7] {
        assert_eq!(answer(text, &[size], (tools, thinking), &[]), outcome, "in tokens of {size} bytes: {text:?}");
    }
    outcome
}

const CALL: &str = "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln\"}}\n</tool_call>";

fn weather_call() -> (String, String) {
    ("get_weather".to_owned(), "{\"city\": \"Köln\"}".to_owned())
}

#[test]
fn text_of_emoji_split_inside_their_characters_comes_whole_and_never_as_replacement_characters() {
    let tokens: Vec<&[u8]> = vec![
        b"Party ",
        b"\xf0\x9f",
        b"\x8e\x89",
        b" fam ",
        b"\xf0\x9f\x91",
        b"\xa9\xe2\x80",
        b"\x8d\xf0\x9f\x91\xa9",
        b"\xe2\x80\x8d\xf0",
        b"\x9f\x91\xa7",
        b" ja ",
        b"\xe6\x97",
        b"\xa5\xe6\x9c\xac",
        b"\xe8",
        b"\xaa\x9e",
        b" fin",
    ];
    let model = Model::with_tokens(&tokens);
    let ids: Vec<_> = tokens.iter().map(|token| model.id(token)).collect();
    let text = "Party 🎉 fam 👩‍👩‍👧 ja 日本語 fin";
    for prepared in [model.plain(), model.chat(false, None)] {
        assert_eq!(run(&mut model.text.answer(&prepared, &[]), ids.clone()).content, text);
        for cut in 0..ids.len() {
            let got = run(&mut model.text.answer(&prepared, &[]), ids[..cut].iter().copied()).content;
            assert!(text.starts_with(&got), "cut after {cut} tokens: {got:?}");
        }
    }
    assert_eq!(model.text.decode(&ids, false).unwrap(), text);
}

#[test]
fn text_of_invalid_bytes_in_mid_stream_is_what_the_reference_decoder_makes_of_them() {
    let tokens: Vec<&[u8]> =
        vec![b"a", b"\xff", b"\xe6\x97", b"b", b"\xf0\x9f", b"\x8e", b"\xc3", b"\xa9", b"\xe6", b"!"];
    let model = Model::with_tokens(&tokens);
    let ids: Vec<_> = tokens.iter().map(|token| model.id(token)).collect();
    let got = run(&mut model.text.answer(&model.plain(), &[]), ids.clone()).content;
    assert_eq!(got, model.text.decode(&ids, false).unwrap());
    assert!(got.contains('\u{fffd}'));
}

#[test]
fn text_leaves_out_special_tokens_and_keeps_other_added_ones() {
    let model = Model::with_tokens(&["a", "b"]);
    let tokens = ["a", "<|im_start|>", "</think>", "b"].map(|token| model.id(token));
    assert_eq!(run(&mut model.text.answer(&model.plain(), &[]), tokens).content, "a</think>b");
}

#[test]
fn text_tokens_beyond_the_vocabulary_say_nothing() {
    let model = Model::with_tokens(&["a"]);
    let tokens = [mesh_proto::TokenId(u32::MAX), model.id("a"), mesh_proto::TokenId(1 << 20)];
    assert_eq!(run(&mut model.text.answer(&model.plain(), &[]), tokens).content, "a");
}

#[test]
fn text_of_reasoning_is_split_from_content_and_the_space_between_goes_with_the_tags() {
    let outcome = whole("<think>\nI should ponder\n\nfirst\n</think>\n\nPondered answer\n", false, false);
    assert_eq!(outcome.reasoning, "I should ponder\n\nfirst");
    assert_eq!(outcome.content, "Pondered answer\n");
    assert_eq!(outcome.order, "rc");
}

#[test]
fn text_goes_on_as_reasoning_where_the_prompt_opened_it() {
    let outcome = whole("I should ponder\n</think>\n\nPondered", false, true);
    assert_eq!((outcome.reasoning.as_str(), outcome.content.as_str()), ("I should ponder", "Pondered"));
}

#[test]
fn text_has_reasoning_only_at_its_start() {
    let outcome = whole("Use <think>x</think> tags", false, false);
    assert_eq!((outcome.reasoning.as_str(), outcome.content.as_str()), ("", "Use <think>x</think> tags"));
    assert_eq!(whole("\n <thin", false, false).content, "");
    assert_eq!(whole("\n <3", false, false).content, "\n <3");
    assert_eq!(whole("<think>\n\n</think>\n\nHi", false, false).order, "c");
}

#[test]
fn text_of_plain_completions_is_raw() {
    let text = format!("<think>x</think>{CALL}");
    let tokens = chunks(&text, &[5]);
    let model = Model::with_tokens(&tokens);
    let outcome = run(&mut model.text.answer(&model.plain(), &[]), tokens.iter().map(|token| model.id(token)));
    assert_eq!(outcome.content, text);
}

#[test]
fn text_streams_reasoning_as_it_comes_and_counts_its_tokens() {
    let tokens = ["\n", "deep", " thought", "\n", "Answer"];
    let model = Model::with_tokens(&tokens);
    let prepared = model.chat(false, None);
    let mut answer = model.text.answer(&prepared, &[]);
    let mut seen = Vec::new();
    for token in ["<think>", "\n", "deep", " thought", "\n", "</think>", "\n", "Answer"] {
        let mut pieces = Vec::new();
        answer.push(model.id(token), &mut pieces);
        let mut outcome = Outcome::default();
        outcome.take(pieces);
        seen.push(outcome.reasoning + &outcome.content);
    }
    assert_eq!(seen, ["", "", "deep", " thought", "", "", "", "Answer"]);
    assert_eq!(answer.reasoning_tokens(), 6);
    assert!(!answer.called_tools());
}

#[test]
fn text_says_whether_the_model_reasons_now_and_how_that_is_closed() {
    let tokens = ["hm", "Hi"];
    let model = Model::with_tokens(&tokens);
    assert_eq!(model.text.reasoning_close(), Some("</think>"));
    let prepared = model.chat(false, Some(true));
    assert!(prepared.is_reasoning());
    let mut answer = model.text.answer(&prepared, &[]);
    let mut states = vec![answer.is_reasoning()];
    for token in ["hm", "</think>", "Hi"] {
        let mut pieces = Vec::new();
        answer.push(model.id(token), &mut pieces);
        // The first piece of reasoning waits for nothing: the template opened it.
        assert_eq!(pieces.is_empty(), token == "</think>", "{token}");
        states.push(answer.is_reasoning());
    }
    assert_eq!(states, [true, true, false, false]);
    assert!(!model.chat(false, None).is_reasoning() && !model.text.answer(&model.plain(), &[]).is_reasoning());
    let close = model.text.encode("</think>", false).unwrap();
    assert_eq!(close, [model.id("</think>")]);
}

#[test]
fn text_of_tool_calls_becomes_calls_and_the_space_around_them_goes() {
    let outcome = whole(&format!("I look.\n{CALL}\n{CALL}\n"), true, false);
    assert_eq!(outcome.content, "I look.");
    assert_eq!(outcome.calls, [weather_call(), weather_call()]);
    assert_eq!(outcome.order, "ctt");
    let outcome = whole(&format!("<think>\nhm\n</think>\n\n{CALL}"), true, false);
    assert_eq!((outcome.order.as_str(), outcome.reasoning.as_str()), ("rt", "hm"));
    assert_eq!(whole(&format!("{CALL}\nDone."), true, false).content, "Done.");
}

#[test]
fn text_of_tool_calls_stays_text_where_no_tools_are_offered() {
    let outcome = whole(CALL, false, false);
    assert_eq!((outcome.content.as_str(), outcome.calls.len()), (CALL, 0));
}

#[test]
fn text_that_is_no_readable_tool_call_is_given_back_as_it_was() {
    for text in [
        "So:\n <tool_call>\nget_weather(Köln)\n</tool_call> or so\n",
        "<tool_call>{\"name\": \"a}\n</tool_call>",
        "<tool_call>{\"name\": \"a</tool_call> and more",
        "<tool_call></tool_call>",
    ] {
        let outcome = whole(text, true, false);
        assert_eq!((outcome.content.as_str(), outcome.calls.len()), (text, 0));
    }
    let outcome = whole(&format!("<tool_call>{{\"name\": \"a}}\n</tool_call>\n{CALL}"), true, false);
    assert_eq!((outcome.content.as_str(), outcome.calls.len()), ("<tool_call>{\"name\": \"a}\n</tool_call>", 1));
}

#[test]
fn text_of_a_tool_call_may_hold_the_closing_tag_in_a_string() {
    let arguments = r#"{"text": "say \"</tool_call>\" then"}"#;
    let outcome =
        whole(&format!("<tool_call>{{\"name\": \"w\", \"arguments\": {arguments}}}</tool_call>"), true, false);
    assert_eq!(outcome.calls, [("w".to_owned(), arguments.to_owned())]);
}

#[test]
fn text_of_a_tool_call_cut_short_is_not_leaked_wherever_the_cut_is() {
    let text = format!("I look.\n{CALL}");
    for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
        let outcome = answer(&text[..cut], &[1], (true, false), &[]);
        let single = if cut == "I look.\n<".len() { "I look.\n<" } else { &"I look.\n"[..cut.min(8)] };
        let content = outcome.content.as_str();
        assert!(content == single || content == "I look.", "cut at {cut}: {content:?}");
        // The name is certain with its comma; from there on the arguments come as they are written.
        let named = text.find("\", ").unwrap() + 2;
        let whole = r#"{"city": "Köln"}"#;
        match outcome.calls.as_slice() {
            [] => assert!(cut < named, "cut at {cut}"),
            [(name, arguments)] => {
                assert!(cut >= named && name == "get_weather", "cut at {cut}");
                assert!(whole.starts_with(arguments.as_str()), "cut at {cut}: {arguments}");
                let all = text.len() - "}\n</tool_call>".len();
                assert_eq!(arguments == whole, cut >= all, "cut at {cut}: {arguments}");
            }
            more => panic!("{more:?}"),
        }
    }
}

#[test]
fn text_ends_at_a_stop_string_over_token_borders() {
    for sizes in [&[1][..], &[3], &[100]] {
        let outcome = answer("alpha beta<<HALT>>gamma", sizes, (false, false), &["gamma", "<<HALT>>", ""]);
        assert_eq!((outcome.content.as_str(), outcome.stop.as_deref()), ("alpha beta", Some("<<HALT>>")));
    }
    assert_eq!(answer("alpha <<HA", &[1], (false, false), &["<<HALT>>"]).content, "alpha <<HA");
}

#[test]
fn text_of_reasoning_and_of_calls_is_not_looked_at_for_stop_strings() {
    let outcome = answer("<think>stop</think>\n\nGo and stop.", &[4], (false, false), &["stop"]);
    assert_eq!((outcome.reasoning.as_str(), outcome.content.as_str()), ("stop", "Go and "));
    assert_eq!(outcome.stop.as_deref(), Some("stop"));
    let outcome = answer(CALL, &[4], (true, false), &["city"]);
    assert_eq!((outcome.calls.len(), outcome.stop), (1, None));
}

#[test]
fn text_markup_is_found_in_special_tokens_too_and_they_stay_hidden_elsewhere() {
    let added = [("[THINK]", true), ("[/THINK]", true), ("<tool_call>", true), ("</tool_call>", true)];
    let call = "{\"name\": \"f\"}";
    let model = Model::with_added(
        &["hm", "Hi", call],
        &added,
        "{{ messages[0].content }}{# [THINK] #}{% if tools %}{% endif %}",
    );
    let prepared = model.chat(true, None);
    let tokens =
        ["[THINK]", "hm", "[/THINK]", "Hi", "[THINK]", "<tool_call>", call, "</tool_call>", "</tool_call>", "Hi"];
    let outcome = run(&mut model.text.answer(&prepared, &[]), tokens.map(|token| model.id(token)));
    assert_eq!((outcome.reasoning.as_str(), outcome.content.as_str()), ("hm", "HiHi"));
    assert_eq!(outcome.calls, [("f".to_owned(), "{}".to_owned())]);
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..9, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_pieces_do_not_depend_on_how_the_text_is_cut_into_tokens(
        text in r#"( |\n){0,2}(<think>|a)?(a|é|👩‍👧| |\n|<|</think>|<tool_call>|</tool_call>|\{"name": "f", "arguments": \{"x": "é"\}\}|"|STOP){0,14}"#,
        sizes in sizes(), tools: bool, thinking: bool,
    ) {
        let whole = answer(&text, &[text.len()], (tools, thinking), &["STOP", "a <"]);
        prop_assert_eq!(answer(&text, &sizes, (tools, thinking), &["STOP", "a <"]), whole);
    }

    #[test]
    fn text_streamed_is_the_text_decoded_at_once(text in "\\PC{0,30}", sizes in sizes()) {
        let tokens = chunks(&text, &sizes);
        let model = Model::with_tokens(&tokens);
        let ids: Vec<_> = tokens.iter().map(|token| model.id(token)).collect();
        prop_assert_eq!(model.text.decode(&ids, false).unwrap(), text.clone());
        prop_assert_eq!(run(&mut model.text.answer(&model.plain(), &[]), ids).content, text);
    }

    #[test]
    fn text_of_any_bytes_is_the_lossy_text_up_to_an_incomplete_end(tokens in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..4), 0..12)) {
        let model = Model::with_tokens(&tokens);
        let ids: Vec<_> = tokens.iter().map(|token| model.id(token)).collect();
        let expected = String::from_utf8_lossy(&tokens.concat()).into_owned();
        let got = run(&mut model.text.answer(&model.plain(), &[]), ids).content;
        let without_end = expected.strip_suffix('\u{fffd}').unwrap_or(&expected);
        prop_assert!(expected == got || without_end == got);
    }
}

//! A conversation put into the order that chat templates take; must not know which dialect it came in.
//!
//! Templates want one system turn, first, and many of them raise an exception on anything else: a second one, one in the
//! middle, two turns of a person in a row. Agents send all of these. So neighbours of one role become one turn, and
//! instructions that come later are said within the person's turn, marked as what they are.

use mesh_proto::{Message, Role};

/// What stands between turns that become one.
const BETWEEN: &str = "\n\n";

/// Puts the turns into that order.
pub(super) fn settle(turns: Vec<Message>) -> Vec<Message> {
    let mut settled: Vec<Message> = Vec::with_capacity(turns.len());
    for mut turn in turns {
        if matches!(turn.role, Role::System | Role::Developer) {
            if settled.iter().all(|before| before.role == Role::System) {
                turn.role = Role::System;
            } else {
                let said = turn.content.take().unwrap_or_default();
                turn = Message::text(Role::User, format!("<system>\n{said}\n</system>"));
            }
        }
        match settled.last_mut() {
            Some(last) if last.role == turn.role && turn.role != Role::Tool && last.name == turn.name => {
                join(last, turn)
            }
            _ => settled.push(turn),
        }
    }
    settled
}

fn join(last: &mut Message, turn: Message) {
    last.content = both(last.content.take(), turn.content);
    last.reasoning = both(last.reasoning.take(), turn.reasoning);
    last.tool_calls.extend(turn.tool_calls);
}

fn both(first: Option<String>, second: Option<String>) -> Option<String> {
    match (first, second) {
        (Some(first), Some(second)) if first.is_empty() => Some(second),
        (Some(first), Some(second)) if second.is_empty() => Some(first),
        (Some(first), Some(second)) => Some(first + BETWEEN + &second),
        (first, second) => first.or(second),
    }
}

/// Drops the oldest exchanges (a person's turn and all up to the next one) until what is left may fit, going by its
/// bytes: a prompt of `prompt_tokens` must come down to `context_tokens`. `false`: there is nothing to drop, since
/// instructions and the last exchange stay.
pub(super) fn shorten(turns: &mut Vec<Message>, prompt_tokens: u32, context_tokens: u32) -> bool {
    /// How full the context may be by this estimate, in percent: the answer wants room, and bytes are no tokens. (guess)
    const FULL: u64 = 85;
    let total: u64 = turns.iter().map(bytes).sum();
    let most = total * u64::from(context_tokens) * FULL / (u64::from(prompt_tokens.max(1)) * 100);
    let first = turns.iter().take_while(|turn| turn.role == Role::System).count();
    let starts: Vec<usize> = (first + 1..turns.len()).filter(|at| turns[*at].role == Role::User).collect();
    let mut left = total;
    let mut from = first;
    for next in starts {
        if from > first && left <= most {
            break;
        }
        left -= turns[from..next].iter().map(bytes).sum::<u64>();
        from = next;
    }
    turns.drain(first..from);
    from > first
}

fn bytes(turn: &Message) -> u64 {
    let calls = turn.tool_calls.iter().map(|call| call.name.len() + call.arguments.len());
    let texts = [&turn.content, &turn.reasoning].into_iter().flatten().map(String::len);
    // Every turn costs its frame.
    (calls.sum::<usize>() + texts.sum::<usize>() + 16) as u64
}

#[cfg(test)]
mod tests {
    use mesh_proto::ToolCall;

    use super::*;

    fn said(turns: &[Message]) -> String {
        let line = |turn: &Message| {
            let calls: Vec<&str> = turn.tool_calls.iter().map(|call| call.name.as_str()).collect();
            format!("{:?} {:?} {:?} {calls:?}", turn.role, turn.content, turn.reasoning)
        };
        turns.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn neighbours_become_one_and_late_instructions_a_persons_words() {
        let call = |name: &str| Message {
            content: None,
            reasoning: Some("hm".into()),
            tool_calls: vec![ToolCall { id: "c".into(), name: name.into(), arguments: "{}".into() }],
            ..Message::text(Role::Assistant, "")
        };
        let tool = Message { tool_call_id: Some("c".into()), ..Message::text(Role::Tool, "18") };
        let turns = vec![
            Message::text(Role::System, "a"),
            Message::text(Role::Developer, "b"),
            Message::text(Role::User, "q"),
            Message::text(Role::System, "late"),
            Message::text(Role::Assistant, "I look"),
            call("f"),
            call("g"),
            tool.clone(),
            tool,
            Message::text(Role::Developer, "later"),
            Message::text(Role::User, "go on"),
        ];
        insta::assert_snapshot!(said(&settle(turns)), @r#"
        System Some("a\n\nb") None []
        User Some("q\n\n<system>\nlate\n</system>") None []
        Assistant Some("I look") Some("hm\n\nhm") ["f", "g"]
        Tool Some("18") None []
        Tool Some("18") None []
        User Some("<system>\nlater\n</system>\n\ngo on") None []
        "#);
    }

    #[test]
    fn the_oldest_exchanges_are_dropped_and_never_the_last() {
        let conversation = || {
            let mut turns = vec![Message::text(Role::System, "s")];
            for at in 0..10 {
                turns.push(Message::text(Role::User, format!("question {at} {}", "x".repeat(100))));
                turns.push(Message::text(Role::Assistant, "answer"));
            }
            turns
        };
        let mut turns = conversation();
        assert!(shorten(&mut turns, 2000, 1000));
        assert_eq!((turns.len(), turns[0].role, turns[1].role), (9, Role::System, Role::User));
        assert!(turns[1].content.as_ref().is_some_and(|text| text.starts_with("question 6")), "{}", said(&turns));
        let mut rounds = 0;
        while shorten(&mut turns, 1001, 1000) {
            rounds += 1;
        }
        assert_eq!((turns.len(), rounds), (3, 3), "one exchange is left, and each round drops at least one");
        let mut short = vec![Message::text(Role::User, "only")];
        assert!(!shorten(&mut short, 2000, 1000) && short.len() == 1);
    }
}

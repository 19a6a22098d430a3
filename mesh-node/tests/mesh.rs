//! A mesh of real processes on loopback, from the command line alone: found, ticket, join, doors, death of hosts.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests; what they measure is worth reading")]

#[path = "common/llama.rs"]
mod llama;
mod mesh_support;

use std::time::{Duration, Instant};

use llama::gguf_tiny;
use mesh_support::*;
use serde_json::json;
use tokio::time::sleep;

const TINY: &str = "--model mesh-tiny --mlx";

#[tokio::test]
async fn every_model_answers_at_every_door_and_the_header_tells_who() {
    let farm = Farm::new();
    let a = farm.found("a", TINY).await;
    let other = farm.other_model("tiny-two");
    let b = farm.join("b", &format!("serve --mlx-file {}", other.display())).await;
    let c = farm.join("c", "client").await;
    for node in [&a, &b, &c] {
        node.lists(&[("mesh-tiny", 1), ("tiny-two", 1)]).await;
        for (model, owner) in [("mesh-tiny", &a.id), ("tiny-two", &b.id)] {
            let body = json!({
                "model": model, "temperature": 0,
                "messages": [{ "role": "user", "content": "What is the capital of France?" }],
            });
            let response = node.post("/v1/chat/completions", &body).await;
            assert_eq!(response.headers()["x-mesh-node"], owner.as_str(), "{model} at {}", node.name);
            assert!(response.headers().contains_key("x-request-id"));
            let answer: serde_json::Value = response.json().await.unwrap();
            assert_eq!(answer["choices"][0]["message"]["content"], "The capital of France is Paris.");
            assert_eq!(answer["model"], model);
        }
        let unknown = json!({"model": "nope", "messages": [{"role": "user", "content": "x"}]});
        let unknown = node.post("/v1/chat/completions", &unknown).await;
        assert_eq!(unknown.status(), 404);
        let text = unknown.text().await.unwrap();
        assert!(text.contains("model_not_found") && text.contains("tiny-two"), "{text}");
    }
}

async fn outlives(signal: &str, greedy: bool, rounds: u32) {
    outlives_of(TINY, signal, greedy, rounds).await;
}

/// Two hosts and a door: what one of them says while it is killed is what an undisturbed one says.
async fn outlives_of(model: &str, signal: &str, greedy: bool, rounds: u32) {
    let farm = Farm::new();
    let mut hosts = vec![farm.found("a", model).await, farm.join("b", model).await];
    let door = farm.join("door", "client").await;
    let body = long_chat(600, (!greedy).then_some(42));
    let mut pauses = Vec::new();
    let mut dice = 0x9E37_79B9_u64;
    door.lists(&[("mesh-tiny", 2)]).await;
    let whole = door.stream(&body).await.whole().await;
    assert!(whole.done && whole.finish.as_deref() == Some("length"), "{:?} {:?}", whole.finish, whole.error);
    for round in 0..rounds {
        door.lists(&[("mesh-tiny", 2)]).await;
        let mut stream = door.stream(&body).await;
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (dice >> 33) as usize % (whole.text.len() * 3 / 4);
        assert!(stream.until(at).await, "it ended before it could be disturbed");
        let victim = hosts.iter().position(|host| host.id == stream.node).expect("a host of ours");
        let mut host = hosts.remove(victim);
        match signal {
            "KILL" => host.kill().await,
            other => host.signal(other),
        }
        stream.longest = Duration::ZERO;
        let stream = stream.whole().await;
        let log = || format!("round {round}, at {at}; door: {:#?}", door.lines());
        assert_eq!(stream.error, None, "{}", log());
        assert!(stream.text == whole.text, "{} bytes, not {}: {}", stream.text.len(), whole.text.len(), log());
        assert_eq!((stream.done, stream.finish.as_deref(), stream.ids.len()), (true, Some("length"), 1), "{}", log());
        let usage = stream.usage.unwrap();
        assert_eq!(usage["completion_tokens"], 600);
        assert_eq!(usage["prompt_tokens"], whole.usage.as_ref().unwrap()["prompt_tokens"]);
        pauses.push(stream.longest);
        match signal {
            "KILL" => {}
            "STOP" => host.kill().await,
            _ => {
                let status = tokio::time::timeout(PATIENCE, host.child.wait()).await.expect("it drains").unwrap();
                assert!(status.success(), "{status}: {:#?}", host.lines());
            }
        }
        hosts.push(host.again(&farm).await);
    }
    pauses.sort();
    let longest = pauses.last().copied().unwrap_or_default();
    println!(
        "{signal} {rounds} times, greedy {greedy}: longest pause {longest:?}, median {:?}",
        pauses[pauses.len() / 2]
    );
    // Not a benchmark: a bound that only a lost wake-up breaks.
    assert!(longest < Duration::from_secs(10), "{pauses:?}");
}

#[tokio::test]
async fn a_greedy_stream_outlives_its_host_killed() {
    outlives("KILL", true, rounds(3)).await;
}

#[tokio::test]
async fn a_seeded_stream_outlives_its_host_killed() {
    outlives("KILL", false, rounds(3)).await;
}

#[tokio::test]
async fn a_stream_outlives_its_host_interrupted_and_the_host_ends_well() {
    outlives("INT", true, rounds(2)).await;
}

#[tokio::test]
async fn a_stream_outlives_its_host_hung() {
    outlives("STOP", false, rounds(2)).await;
}

#[tokio::test]
async fn streams_of_a_gguf_model_outlive_their_host_killed_and_interrupted() {
    let Some(tiny) = gguf_tiny() else { return };
    outlives_of(&tiny, "KILL", true, rounds(2)).await;
    outlives_of(&tiny, "KILL", false, rounds(2)).await;
    outlives_of(&tiny, "INT", true, rounds(1)).await;
}

#[tokio::test]
async fn a_tool_call_is_made_once_though_its_host_is_killed_while_it_thinks() {
    let farm = Farm::new();
    let mut hosts = vec![farm.found("a", TINY).await, farm.join("b", TINY).await];
    let door = farm.join("door", "client").await;
    let body = json!({
        "model": "mesh-tiny", "stream": true, "temperature": 0,
        "messages": [{ "role": "user", "content": "What is the weather in Paris?" }],
        "chat_template_kwargs": { "enable_thinking": true },
        "tools": [{ "type": "function", "function": {
            "name": "get_weather", "description": "Get the weather of a city.",
            "parameters": { "type": "object", "required": ["city"],
                "properties": { "city": { "type": "string", "description": "The name of the city" } } } } }],
    });
    let mut taken_over = 0;
    // The answer takes some 50 ms: not every kill comes in its middle.
    for round in 0..8 {
        door.lists(&[("mesh-tiny", 2)]).await;
        let before = door.lines().iter().filter(|line| line.contains("takes over")).count();
        let mut stream = door.stream(&body).await;
        stream.until(1).await;
        let victim = hosts.iter().position(|host| host.id == stream.node).expect("a host of ours");
        let mut host = hosts.remove(victim);
        host.kill().await;
        let stream = stream.whole().await;
        assert_eq!(stream.text, "I call get_weather.", "round {round}: {:#?}", door.lines());
        assert_eq!(stream.calls, [("get_weather".to_owned(), "{\"city\": \"Paris\"}".to_owned())]);
        assert_eq!((stream.finish.as_deref(), stream.done), (Some("tool_calls"), true));
        taken_over += door.lines().iter().filter(|line| line.contains("takes over")).count() - before;
        hosts.push(host.again(&farm).await);
        if taken_over >= 2 {
            return;
        }
    }
    panic!("no kill came in the middle of an answer: {taken_over}");
}

#[tokio::test]
async fn a_node_that_holds_the_files_takes_over_a_model_whose_only_host_dies() {
    let farm = Farm::new();
    let mut a = farm.found("a", TINY).await;
    let b = farm.join("b", "serve").await;
    let door = farm.join("door", "client").await;
    door.lists(&[("mesh-tiny", 1)]).await;
    let body = long_chat(600, None);
    let whole = door.stream(&body).await.whole().await;
    let mut stream = door.stream(&body).await;
    assert_eq!(stream.node, a.id);
    assert!(stream.until(whole.text.len() / 3).await);
    a.kill().await;
    let stream = stream.whole().await;
    assert_eq!(stream.error, None, "door: {:#?}\nb: {:#?}", door.lines(), b.lines());
    assert!(stream.text == whole.text, "{} bytes, not {}", stream.text.len(), whole.text.len());
    println!("loaded and taken over within {:?}", stream.longest);
}

#[tokio::test]
async fn when_nobody_can_take_over_the_stream_ends_in_an_error_and_claims_no_finish() {
    let farm = Farm::new();
    let other = farm.other_model("tiny-two");
    let mut a = farm.found("a", &format!("serve --mlx-file {}", other.display())).await;
    let door = farm.join("door", "client").await;
    door.lists(&[("tiny-two", 1)]).await;
    let mut body = long_chat(600, None);
    body["model"] = json!("tiny-two");
    let mut stream = door.stream(&body).await;
    assert!(stream.until(200).await);
    a.kill().await;
    let stream = stream.whole().await;
    assert_eq!((stream.finish, stream.done), (None, false));
    assert_eq!(stream.error.expect("an error")["code"], "unavailable");
}

#[tokio::test]
async fn the_api_is_up_within_a_second_though_nobody_lets_the_node_in() {
    let farm = Farm::new();
    let mut a = farm.found("a", "serve").await;
    a.kill().await;
    let began = Instant::now();
    let c = farm.join("c", "client").await;
    let health = reqwest::get(format!("{}/health", c.api)).await.unwrap();
    assert!(health.status().is_success());
    println!("answers {:?} after its start", began.elapsed());
    let joining = loop {
        let joining = c.status().await["mesh"]["joining"].clone();
        if joining["last_error"].is_string() {
            break joining;
        }
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(joining["state"], "joining");
    // And it gets in as soon as somebody is there.
    let a = a.again(&farm).await;
    let _ = a;
}

#[tokio::test]
async fn a_restarted_node_is_back_for_all_and_hears_all() {
    let farm = Farm::new();
    let a = farm.found("a", "serve").await;
    let mut b = farm.join("b", TINY).await;
    let c = farm.join("c", "client").await;
    a.lists(&[("mesh-tiny", 1)]).await;
    c.lists(&[("mesh-tiny", 1)]).await;
    b.kill().await;
    let b = b.again(&farm).await;
    for node in [&a, &b, &c] {
        node.lists(&[("mesh-tiny", 1)]).await;
        let body = json!({"model": "mesh-tiny", "temperature": 0,
            "messages": [{ "role": "user", "content": "What is the capital of France?" }]});
        let answer = node.post("/v1/chat/completions", &body).await;
        assert_eq!(answer.headers()["x-mesh-node"], b.id.as_str());
    }
}

//! The local engine when its decoder fails: who is told what, and who goes on.
#![allow(clippy::unwrap_used)]

mod local_support;

use std::time::Duration;

use engine::{
    Engine, LocalEngine, LocalOptions, StartError,
    script::{self, END, Fault, Script, ScriptDecoder, ScriptOptions},
};
use local_support::{Bench, echo, read, request, small, start, text};
use mesh_proto::{FinishReason, GenerateError, GenerateRequest, TokenId};

fn noise() -> Script {
    Script::noise(128, END, 40)
}

fn limit(prompt: &str, max_tokens: u32) -> GenerateRequest {
    GenerateRequest { max_tokens: Some(max_tokens), ..request(prompt) }
}

/// Starts three answers, lets `fault` strike in the middle of them, and reads them. Checks that who did not fail said
/// what is right; returns how many failed.
async fn strike(bench: &Bench, fault: Fault) -> usize {
    let prompts = ["one one one one one", "two two", "three"];
    let hold = bench.probe.hold();
    let mut generations = Vec::new();
    for prompt in prompts {
        generations.push(bench.generate(limit(prompt, 200)).await);
    }
    let steps = bench.probe.counts().steps;
    drop(hold);
    while bench.probe.counts().steps < steps + 10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.probe.fail_next(fault);
    let mut failed = 0;
    for (prompt, generation) in prompts.into_iter().zip(generations) {
        let said = read(generation).await;
        let asked = limit(prompt, 200);
        let right = noise().answer(&script::byte_tokens(prompt), &asked.sampling, END, 200);
        match &said.end {
            Ok((reason, _, usage)) => {
                assert_eq!(usage.completion_tokens as usize, right.len(), "{fault:?}");
                let ends = right.last() == Some(&END);
                assert_eq!(*reason, if ends { FinishReason::Stop } else { FinishReason::Length });
                assert!(right.starts_with(&said.tokens) && right.len() - said.tokens.len() <= 1);
            }
            Err(GenerateError::Engine(_)) => {
                failed += 1;
                assert!(right.starts_with(&said.tokens), "{fault:?}: what was said before is right");
            }
            Err(other) => panic!("{other}"),
        }
    }
    bench.is_empty().await;
    failed
}

fn slow_noise() -> Bench {
    let options = ScriptOptions { step_delay: Duration::from_millis(1), ..ScriptOptions::default() };
    start(Script::noise(128, END, 0), small(), options)
}

fn endless_answer(prompt: &str) -> Vec<TokenId> {
    let asked = limit(prompt, 200);
    Script::noise(128, END, 0).answer(&script::byte_tokens(prompt), &asked.sampling, END, 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_fails_fails_alone_and_the_others_answers_do_not_change() {
    for fault in [Fault::SubmitSequence, Fault::CollectSequence, Fault::MissingToken] {
        let bench = slow_noise();
        let prompts = ["one one one one one", "two two", "three"];
        let mut generations = Vec::new();
        for prompt in prompts {
            generations.push(bench.generate(limit(prompt, 200)).await);
        }
        bench.until(|load| load.running == 3).await;
        while bench.probe.counts().steps < 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bench.probe.fail_next(fault);
        let mut failed = 0;
        for (prompt, generation) in prompts.into_iter().zip(generations) {
            let said = read(generation).await;
            let right = endless_answer(prompt);
            match said.end {
                Ok((reason, _, usage)) => {
                    assert_eq!((reason, usage.completion_tokens), (FinishReason::Length, 200), "{fault:?}");
                    assert_eq!(said.tokens, right, "{fault:?}");
                    assert_eq!(usage.cached_tokens, 0);
                }
                Err(GenerateError::Engine(_)) => {
                    failed += 1;
                    assert!(right.starts_with(&said.tokens), "what was said before is right");
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(failed, 1, "{fault:?}");
        bench.is_empty().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_cannot_be_opened_fails_alone() {
    let bench = start(echo(), small(), ScriptOptions::default());
    bench.probe.fail_next(Fault::Open);
    assert!(matches!(bench.ask(request("a!")).await.end, Err(GenerateError::Engine(_))));
    assert_eq!(bench.ask(request("a!")).await.text, "a");
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_fails_at_opening_closes_only_what_it_had_opened() {
    let bench = start(echo(), small(), ScriptOptions::default());
    let hold = bench.probe.hold();
    let mut generations = Vec::new();
    for _ in 0..4 {
        generations.push(bench.generate(request("abc!")).await);
    }
    bench.probe.fail_next(Fault::OpenDevice);
    drop(hold);
    let mut failed = 0;
    for generation in generations {
        failed += usize::from(read(generation).await.end.is_err());
    }
    assert!(failed > 0);
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_failure_fails_what_runs_and_the_rest_goes_on() {
    for fault in [Fault::SubmitDevice, Fault::CollectDevice] {
        let bench = start(noise(), LocalOptions { max_running: 2, ..small() }, ScriptOptions::default());
        let hold = bench.probe.hold();
        let mut generations = Vec::new();
        for _ in 0..4 {
            generations.push(bench.generate(request("prompt")).await);
        }
        bench.until(|load| load.running > 0).await;
        bench.probe.fail_next(fault);
        drop(hold);
        let mut ends = Vec::new();
        for generation in generations {
            ends.push(read(generation).await.end.is_ok());
        }
        // Whether the second had been taken in before, the hold does not tell.
        assert!(!ends[0] && ends[2] && ends[3], "{fault:?}: {ends:?}");
        bench.is_empty().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_keeps_failing_makes_the_engine_say_so_to_everybody() {
    let bench = start(echo(), LocalOptions { max_running: 1, ..small() }, ScriptOptions::default());
    let hold = bench.probe.hold();
    let mut generations = Vec::new();
    for _ in 0..5 {
        generations.push(bench.generate(request("abc!")).await);
    }
    bench.until(|load| load.running == 1).await;
    for _ in 0..3 {
        bench.probe.fail_next(Fault::CollectDevice);
    }
    drop(hold);
    for generation in generations {
        assert!(matches!(read(generation).await.end, Err(GenerateError::Engine(_))));
    }
    assert!(matches!(bench.engine.generate(request("abc!")).await.err(), Some(GenerateError::Engine(_))));
    bench.is_empty().await;
    bench.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_on_the_decoders_thread_hangs_nobody() {
    let bench = start(echo(), LocalOptions { max_running: 1, ..small() }, ScriptOptions::default());
    let hold = bench.probe.hold();
    let running = bench.generate(request("abc!")).await;
    let waiting = bench.generate(request("abc!")).await;
    bench.probe.fail_next(Fault::Panic);
    drop(hold);
    for generation in [running, waiting] {
        assert!(matches!(read(generation).await.end, Err(GenerateError::Engine(_))));
    }
    assert!(matches!(bench.engine.generate(request("abc!")).await.err(), Some(GenerateError::Engine(_))));
    assert_eq!((bench.engine.load().running, bench.engine.load().waiting), (0, 0));
    bench.engine.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_told_of_a_failure_all_the_same() {
    let endless = Script::always(TokenId(b'a'.into()));
    let bench = start(endless, LocalOptions { event_buffer: 2, ..small() }, ScriptOptions::default());
    let stalled = bench.generate(request("stalled")).await;
    bench.until(|load| load.running == 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    bench.probe.fail_next(Fault::SubmitDevice);
    assert!(bench.ask(request("other")).await.end.is_err());
    let said = read(stalled).await;
    assert!(matches!(said.end, Err(GenerateError::Engine(_))), "{said:?}");
    bench.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_leave_nothing_behind() {
    for fault in [Fault::SubmitSequence, Fault::CollectSequence, Fault::SubmitDevice, Fault::CollectDevice] {
        let options = ScriptOptions { step_delay: Duration::from_millis(1), ..ScriptOptions::default() };
        let bench = start(noise(), small(), options);
        strike(&bench, fault).await;
    }
}

#[test]
fn a_decoder_that_cannot_be_made_is_an_error_of_start() {
    let make = || Err::<(ScriptDecoder, _), _>("no such file");
    let error = LocalEngine::start(text(), vec![END], LocalOptions::default(), make).unwrap_err();
    assert_eq!(error.to_string(), "no such file");
    let panics = || -> Result<(ScriptDecoder, mesh_proto::ModelDescriptor), String> { panic!("while loading") };
    let error = LocalEngine::start(text(), vec![END], LocalOptions::default(), panics).unwrap_err();
    assert!(matches!(error, StartError::Panicked));
}

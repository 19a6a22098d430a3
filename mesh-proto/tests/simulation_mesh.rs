//! Whole meshes from seeds: every machine of every node together. `MESH_SIM_SEED=7` runs one seed,
//! `MESH_SIM_SEEDS=10000` so many. What takes minutes is ignored by default:
//! `cargo nextest run -p mesh-proto --release --test simulation_mesh --run-ignored only`.
#![allow(clippy::unwrap_used, reason = "a test says what it expects in the shortest way")]

use std::{io::Write, time::Instant};

use rand::{SeedableRng, rngs::ChaCha8Rng};

use mesh_proto::sim::{
    Violation,
    world::{self, Blow, Lab, Lying, Outcome, Plan, Progress, Purpose},
};
use mesh_proto::time::Millis;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Plays these seeds, or the one that is asked for; panics with the first violation's story.
#[expect(clippy::print_stdout, reason = "a test that measures")]
fn seeds(range: std::ops::Range<u64>, step: usize) {
    let lab = Lab::new(7).unwrap();
    let range = number("MESH_SIM_SEED").map_or(range, |one| one..one + 1);
    let (mut runs, mut broken, mut sums) = (0, Vec::<Box<Violation>>::new(), [0u64; 4]);
    for seed in range.step_by(step) {
        runs += 1;
        match world::run_small(&lab, seed) {
            Ok(outcome) => {
                let run = outcome.run;
                for (sum, value) in sums.iter_mut().zip([run.steps, run.deliveries, run.moves, outcome.deaths]) {
                    *sum += value;
                }
            }
            Err(violation) => broken.push(violation),
        }
    }
    let [steps, deliveries, moves, deaths] = sums;
    println!("{runs} small meshes: {steps} steps, {deliveries} deliveries, {moves} claims, {deaths} deaths");
    if let Some(first) = broken.first() {
        let seeds: Vec<u64> = broken.iter().map(|violation| violation.seed).collect();
        let kinds: Vec<&str> = broken.iter().map(|violation| violation.what.as_str()).take(30).collect();
        panic!("{} of {runs} seeds broke a law, {seeds:?}\n{kinds:#?}\nthe first:\n{first}", broken.len());
    }
}

#[test]
fn a_seed_of_small_meshes() {
    seeds(0..number("MESH_SIM_SEEDS").unwrap_or(200), 1);
}

#[test]
#[ignore = "a minute in a release build"]
fn ten_thousand_seeds_of_small_meshes_the_even_ones() {
    seeds(0..10_000, 2);
}

#[test]
#[ignore = "a minute in a release build"]
fn ten_thousand_seeds_of_small_meshes_the_odd_ones() {
    seeds(1..10_000, 2);
}

#[test]
fn the_same_seed_gives_the_same_trace_of_a_mesh() {
    let lab = Lab::new(7).unwrap();
    let traces = |seed| world::run_small(&lab, seed).unwrap();
    assert_eq!(traces(3), world::run_small(&Lab::new(7).unwrap(), 3).unwrap());
    let seen: Vec<_> = (0..5).map(|seed| traces(seed).run.trace).collect();
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "seeds differ");
}

/// With `MESH_SIM_PROGRESS=1`: a line a second of the world's, straight to stderr, which the test harness does not keep.
fn progress(begun: Instant, at: &Progress) {
    let memory = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = memory.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let Progress { now, end, steps, sent, links, deaths, wrong } = at;
    let line = format!(
        "{:>5} s of {}, {:>6.1} s taken, {} of memory, {steps} steps, sent {sent:?}, {links} links, {deaths} deaths, {wrong} wrong\n",
        now.0 / 1000,
        end.0 / 1000,
        begun.elapsed().as_secs_f64(),
        memory.trim(),
    );
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[expect(clippy::print_stdout, reason = "a test that measures")]
fn large(nodes: usize, seconds: u64) -> Outcome {
    let seed = number("MESH_SIM_SEED").unwrap_or(1);
    let (begun, tells) = (Instant::now(), number("MESH_SIM_PROGRESS").is_some());
    let mut tell = |at: &Progress| {
        if tells {
            progress(begun, at);
        }
    };
    let lab = Lab::new(nodes).unwrap();
    let outcome = world::run_large(&lab, nodes, seconds, seed, &mut tell).unwrap_or_else(|broken| panic!("{broken}"));
    println!("{}", row(nodes, &outcome));
    outcome
}

/// A line of docs/mesh-simulation.md's table: bytes a second and node, by purpose.
fn row(nodes: usize, outcome: &Outcome) -> String {
    let each = |bytes: u64| bytes * 1000 / (outcome.counted.0 * nodes as u64);
    let purposes: Vec<String> =
        Purpose::ALL.iter().map(|purpose| each(outcome.traffic.wire(*purpose)).to_string()).collect();
    format!(
        "| {nodes} | {} | {} | {} | {}, {}, {} | {} |",
        purposes.join(" | "),
        each(outcome.traffic.all()),
        outcome.most.all() * 1000 / outcome.counted.0,
        outcome.deaths,
        outcome.unnoticed,
        outcome.wrong,
        outcome.run.steps
    )
}

#[test]
fn a_hundred_nodes_agree_through_trouble() {
    large(100, 16);
}

#[test]
#[ignore = "minutes, for release builds"]
fn a_thousand_nodes_agree_through_trouble() {
    large(1_000, 60);
}

#[test]
#[ignore = "many minutes and some 4 GB, for release builds"]
fn ten_thousand_nodes_agree_through_trouble() {
    large(10_000, 15);
}

/// Who only says that it loads keeps a model from the mesh for as long as a load may take, whatever it says meanwhile.
#[test]
fn nobody_holds_a_place_by_loading_for_ever() {
    let lab = Lab::new(7).unwrap();
    for (seed, lie) in (0..3).flat_map(|seed| [(seed, Lying::Loads), (seed, Lying::LoadsAnew)]) {
        let plan = Plan::patient(lie, &mut ChaCha8Rng::seed_from_u64(seed));
        world::run(&lab, plan, seed).unwrap_or_else(|broken| panic!("{lie:?}: {broken}"));
    }
}

/// Seed 1300, before nodes knocked at those whom their disks name: who said goodbye is looked for by nobody, and who then
/// comes back with an old revocation list is at home among the expelled. The second node has admitted every third.
#[test]
fn who_comes_back_to_the_expelled_alone_finds_the_members() {
    let lab = Lab::new(7).unwrap();
    for seed in 0..40 {
        let drawn = Plan::small(&mut ChaCha8Rng::seed_from_u64(seed)).quiet();
        let blows = [(5_000, Blow::Leave(4)), (9_000, Blow::Revoke(1)), (12_000, Blow::Restart(4, Millis(0)))];
        let blows = blows.map(|(at, blow)| (Millis(at), blow)).to_vec();
        let plan = Plan { nodes: 7, able: 2, loss: 0, blows, trouble: Millis::secs(12), ..drawn };
        world::run(&lab, plan, seed).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

/// The table and the plot of docs/mesh-simulation.md. `MESH_SIM_SIZES=10,100,1000` for other sizes.
#[test]
#[ignore = "prints what a mesh costs by its size"]
fn what_a_mesh_costs_by_its_size() {
    let sizes = std::env::var("MESH_SIM_SIZES").unwrap_or("10,100".into());
    let sizes: Vec<usize> = sizes.split(',').filter_map(|size| size.trim().parse().ok()).collect();
    let bars = sizes.into_iter().map(|nodes| {
        let outcome = large(nodes, 20);
        let each = outcome.traffic.all() * 1000 / (outcome.counted.0 * nodes as u64);
        format!("{nodes:>6} {} {each} B/s", "#".repeat((each / 2_000) as usize))
    });
    bars.collect::<Vec<_>>().iter().for_each(|bar| println!("{bar}"));
}

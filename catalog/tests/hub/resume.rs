//! Interrupted downloads go on where they were, counted in bytes; several at once share one.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use catalog::hub::{Hub, HubConfig, Stage};
use test_hub::{Content, Fault, Repo, Rule};

use crate::support::{Bench, REPO, generated, selection, small, tuning};

/// One shard of a model that is as large as the issue says: 300 MB in three.
const SHARD: u64 = 100_000_000;

fn large() -> Repo {
    let shard = |number: u64| format!("model-0000{number}-of-00003.safetensors");
    let repo = Repo::new(REPO).file("config.json", "{}");
    (1..=3).fold(repo, |repo, number| repo.lfs(shard(number), Content::generated(number, SHARD)))
}

/// What the tests below start as a process of its own, to be killed.
#[tokio::test]
async fn child() {
    let (Ok(endpoint), Ok(cache)) = (std::env::var("HUB_TEST_ENDPOINT"), std::env::var("HUB_TEST_CACHE")) else {
        return;
    };
    let hub = Hub::new(HubConfig { endpoint, tuning: tuning(), ..HubConfig::new(cache) }).unwrap();
    let listing = hub.files(REPO, "main").await.unwrap();
    hub.download(&selection(listing), |_| {}).await.unwrap();
}

fn spawn(bench: &Bench) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "resume::child"])
        .env("HUB_TEST_ENDPOINT", bench.server.url())
        .env("HUB_TEST_CACHE", bench.cache())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn after_kill_9_only_the_rest_is_fetched() {
    let mut bench = Bench::of(large());
    bench.server.rule(Rule::new("safetensors", Fault::Throttle(10_000_000)));
    let mut child = spawn(&bench);
    let begun = Instant::now();
    while bench.arrived() < 120_000_000 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} bytes", bench.arrived());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let here = bench.arrived();
    assert!(here < 3 * SHARD, "killed in the middle");
    let journals = bench.blob_names().iter().filter(|name| name.ends_with(".journal")).count();
    assert!(journals > 0 && bench.server.most_at_once() > 3, "{journals}: in ranges");
    assert!(!bench.cache().join("models--org--model/snapshots").exists(), "nothing half is shown");
    bench.renew(large());
    let snapshot = bench.get().await.unwrap();
    assert_eq!(bench.server.content_bytes_sent(), 3 * SHARD + 2 - here, "exactly the rest");
    for number in [1, 2, 3] {
        let path = snapshot.dir.join(format!("model-0000{number}-of-00003.safetensors"));
        assert_eq!(fs::metadata(path).unwrap().len(), SHARD);
    }
    let checked = tokio::task::spawn_blocking({
        let hub = bench.hub();
        move || hub.verify(REPO, |_| {}).unwrap()
    });
    assert!(checked.await.unwrap().iter().all(|file| file.right));
    assert!(bench.blob_names().iter().all(|name| !name.contains(".incomplete")), "{:?}", bench.blob_names());
}

#[tokio::test]
async fn a_dropped_download_goes_on_too() {
    let mut bench = Bench::of(small());
    bench.server.rule(Rule::new("safetensors", Fault::Throttle(2_000_000)));
    let enough = async {
        while bench.arrived() < 300_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = bench.get() => panic!("it had no time"),
        () = enough => {}
    }
    bench.renew(small());
    let snapshot = bench.get().await.unwrap();
    assert_eq!(fs::read(snapshot.dir.join("model.safetensors")).unwrap(), generated(1, 3_000_000));
    let sent = bench.server.bytes_sent("model.safetensors");
    assert!(sent <= 2_700_000, "{sent}");
}

#[tokio::test]
async fn two_tasks_and_two_processes_fetch_each_byte_once() {
    let bench = Bench::of(small());
    bench.server.rule(Rule::new("safetensors", Fault::Throttle(6_000_000)));
    let mut children = [spawn(&bench), spawn(&bench)];
    let (one, two) = tokio::join!(bench.get(), bench.get());
    assert_eq!(one.unwrap(), two.unwrap());
    for child in &mut children {
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(ended.success());
    }
    assert_eq!(bench.server.bytes_sent("model.safetensors"), 3_000_000);
    assert_eq!(bench.server.bytes_sent("config.json"), 22);
    let waited = bench.progress.lock().unwrap().iter().any(|progress| progress.stage == Stage::Waiting);
    assert!(waited, "whoever waits says so");
}

#[tokio::test]
async fn a_part_of_other_bytes_is_found_out_and_fetched_again() {
    let bench = Bench::of(small());
    bench.get().await.unwrap();
    let name = bench.blob_names().into_iter().find(|name| name.len() == 64).unwrap();
    fs::remove_file(bench.blobs().join(&name)).unwrap();
    fs::write(bench.blobs().join(format!("{name}.incomplete")), vec![7; 1_000_000]).unwrap();
    bench.server.clear_log();
    let snapshot = bench.get().await.unwrap();
    assert_eq!(fs::read(snapshot.dir.join("model.safetensors")).unwrap(), generated(1, 3_000_000));
    assert_eq!(bench.server.bytes_sent("model.safetensors"), 2_000_000 + 3_000_000);
    // Longer than the file can be: nothing to go on from.
    fs::remove_file(bench.blobs().join(&name)).unwrap();
    fs::write(bench.blobs().join(format!("{name}.incomplete")), vec![7; 3_000_001]).unwrap();
    bench.get().await.unwrap();
}

//! Everything that a hub, a line or a stranger can do: a clear line, and a clean cache.

use std::{fs, io, path::Path, time::Instant};

use catalog::hub::{FileInfo, Hub, HubConfig, HubError, Tuning};
use test_hub::{Content, Fault, Rule, Stage};

use crate::support::{Bench, REPO, generated, line, selection, small};

const FILE: &str = "model.safetensors";

/// In order, and in ranges too.
async fn survives(faults: impl Fn() -> Vec<Rule>) -> Bench {
    survives_at(Bench::of(small()).spread(), faults()).await;
    survives_at(Bench::of(small()), faults()).await
}

async fn survives_at(bench: Bench, faults: impl IntoIterator<Item = Rule>) -> Bench {
    for rule in faults {
        bench.server.rule(rule);
    }
    let snapshot = bench.get().await.unwrap();
    assert_eq!(fs::read(snapshot.dir.join(FILE)).unwrap(), generated(1, 3_000_000));
    assert!(bench.blob_names().iter().all(|name| !name.contains('.')), "{:?}", bench.blob_names());
    bench
}

async fn fails(rule: Rule) -> String {
    fails_at(Bench::of(small()), rule).await
}

async fn fails_at(bench: Bench, rule: Rule) -> String {
    bench.server.rule(rule);
    let said = line(bench.get().await.unwrap_err());
    assert!(!bench.cache().join("models--org--model/snapshots").exists(), "{said}");
    said
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    let content = |fault| Rule::new(FILE, fault);
    let api = |fault| Rule::new("/api/models/", fault);
    let begun = Instant::now();
    survives(|| vec![content(Fault::status(500)).first(2), api(Fault::status(503)).first(1)]).await;
    survives(|| vec![content(Fault::rate_limited(0)).first(3), api(Fault::rate_limited(0)).first(1)]).await;
    survives(|| vec![content(Fault::Hangup).first(2), api(Fault::Hangup).first(2)]).await;
    survives(|| vec![content(Fault::status(403)).stage(Stage::Content).first(1)]).await;
    assert!(begun.elapsed().as_secs() < 10);
    let begun = Instant::now();
    survives(|| vec![content(Fault::rate_limited(1)).first(1)]).await;
    assert!(begun.elapsed().as_millis() >= 1000, "the hub's own wish counts");
}

#[tokio::test]
async fn a_line_that_drops_goes_on_by_ranges() {
    let bench = survives(|| vec![Rule::new(FILE, Fault::Cut(700_000)).first(4)]).await;
    assert!(bench.server.bytes_sent(FILE) <= 3_000_000 + 4 * 70_000, "{}", bench.server.bytes_sent(FILE));
    let ranges = bench.server.log().iter().filter(|request| request.range.is_some() && request.status == 206).count();
    assert!(ranges >= 3, "{ranges}");
    for bench in [Bench::of(small()), Bench::of(small()).spread()] {
        survives_at(bench.impatient(), [Rule::new(FILE, Fault::Stall(500_000)).first(2)]).await;
    }
    survives(|| vec![Rule::new(FILE, Fault::Length(1000)).first(2)]).await;
    survives(|| vec![Rule::new(FILE, Fault::Length(-1000)).first(2)]).await;
    survives(|| vec![Rule::new(FILE, Fault::Without("content-length")).first(2)]).await;
}

#[tokio::test]
async fn a_server_without_ranges_or_with_wrong_ones_is_begun_anew_with() {
    let cut = || Rule::new(FILE, Fault::Cut(700_000)).first(1);
    survives(|| vec![cut(), Rule::new(FILE, Fault::IgnoreRange)]).await;
    survives(|| vec![cut(), Rule::new(FILE, Fault::ShiftRange(10)).nth(2)]).await;
    survives(|| vec![cut(), Rule::new(FILE, Fault::Etag("\"another\"".into())).nth(1)]).await;
    survives(|| vec![cut(), Rule::new(FILE, Fault::Etag("W/\"weak\"".into())).nth(1)]).await;
    survives(|| vec![cut(), Rule::new(FILE, Fault::Without("content-range")).nth(2)]).await;
}

#[tokio::test]
async fn a_corrupted_byte_is_noticed_and_fetched_again_once() {
    let bench = survives(|| vec![Rule::new(FILE, Fault::Corrupt(2_345_678)).first(1)]).await;
    assert_eq!(bench.server.bytes_sent(FILE), 6_000_000);
    let said = fails(Rule::new(FILE, Fault::Corrupt(2_345_678))).await;
    assert!(said.contains(FILE) && said.contains("checksum") && said.contains("twice"), "{said}");
    let said = fails(Rule::new("config.json", Fault::Corrupt(3))).await;
    assert!(said.contains("config.json") && said.contains("checksum"), "small ones too: {said}");
}

#[tokio::test]
async fn what_does_not_pass_is_told() {
    let cases = [
        (Fault::Cut(0), "tried 5 times"),
        (Fault::Hangup, "tried 5 times"),
        (Fault::status(500), "answered 500"),
        (Fault::status(418), "answered 418"),
        (Fault::rate_limited(0), "429"),
        (Fault::rate_limited(61), "61 s of patience"),
        (Fault::Redirect(Fault::REDIRECT_TO_ITSELF.into()), "circle"),
        (Fault::Redirect("ftp://127.0.0.1/x".into()), "not HTTP"),
        (Fault::Redirect("file:///etc/passwd".into()), "not HTTP"),
    ];
    for (fault, told) in cases {
        let said = fails(Rule::new(FILE, fault.clone())).await;
        assert!(said.contains(told) && said.contains(REPO), "{fault:?}: {said}");
    }
    let said = fails_at(Bench::of(small()).impatient(), Rule::new(FILE, Fault::Silence)).await;
    assert!(said.contains("nothing came for 0.6 s"), "{said}");
    for fault in [Fault::Body("{".into()), Fault::Body("[]".into()), Fault::HugeJson(70 << 20)] {
        let said = fails(Rule::new("/api/models/", fault.clone())).await;
        assert!(said.contains("makes no sense"), "{fault:?}: {said}");
    }
    let said = fails(Rule::new("/tree/", Fault::HugeJson(70 << 20))).await;
    assert!(said.contains("more than"), "{said}");
}

#[tokio::test]
async fn who_may_not_is_told_what_to_do() {
    let gated = small().gated(["hf_good"]);
    let bench = Bench::new(test_hub::Hub::new().repo(gated).token("hf_other"));
    let said = line(bench.get().await.unwrap_err());
    assert!(said.contains("gated") && said.contains("/org/model") && said.contains("set HF_TOKEN"), "{said}");
    let said = line(bench.get_by(&bench.hub_of("hf_other")).await.unwrap_err());
    assert!(said.contains("gated") && said.contains("account"), "{said}");
    assert!(bench.is_clean());
    bench.get_by(&bench.hub_of(" hf_good\n")).await.unwrap();

    let wrong = bench.hub_of("hf_SECRET");
    let error = bench.get_by(&wrong).await.unwrap_err();
    let all = format!("{error} {error:?} {wrong:?} {:?}", wrong.config());
    assert!(all.contains("was not accepted") && !all.contains("hf_SECRET"), "{all}");

    let missing = |repo: &'static str, revision: &'static str| {
        let hub = bench.hub_of("hf_good");
        async move { line(hub.files(repo, revision).await.unwrap_err()) }
    };
    assert!(missing("org/nope", "main").await.contains("no such repository"));
    assert!(missing(REPO, "nope").await.contains("no revision nope"));
    let anonymous = line(bench.hub().files("org/nope", "main").await.unwrap_err());
    assert!(anonymous.contains("no such repository") && anonymous.contains("HF_TOKEN"), "{anonymous}");

    let hub = bench.hub_of("hf_good");
    let mut wanted = selection(hub.files(REPO, "main").await.unwrap());
    let file = FileInfo { path: "nope.bin".into(), bytes: 1, sha256: Some("0".repeat(64)), git_oid: None };
    wanted.files = vec![file];
    let said = line(hub.download(&wanted, |_| {}).await.unwrap_err());
    assert!(said.contains("no file nope.bin"), "{said}");
}

#[tokio::test]
async fn the_token_stays_with_the_hub() {
    let bench = Bench::of(small().private(["hf_good"]));
    bench.get_by(&bench.hub_of("hf_good")).await.unwrap();
    let log = bench.server.log();
    let at_store = |request: &&test_hub::Request| request.path.starts_with("/cdn/");
    assert!(log.iter().filter(at_store).count() > 0);
    assert!(log.iter().filter(at_store).all(|request| !request.authorized));
    assert!(log.iter().filter(|request| !request.path.starts_with("/cdn/")).all(|request| request.authorized));
}

#[tokio::test]
async fn names_that_leave_the_snapshot_are_refused_before_anything_is_fetched() {
    let long = "x".repeat(256);
    for path in ["../../../../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "a\0b", "a//b", &long] {
        let bench = Bench::of(small().file(path, "evil"));
        let said = line(bench.get().await.unwrap_err());
        assert!(said.contains("refused: the file"), "{path:?}: {said}");
        assert_eq!(bench.server.content_bytes_sent(), 0);
        assert!(bench.is_clean());
        // Nor by a selection that somebody made up.
        let hub = bench.hub();
        let file = FileInfo { path: path.into(), bytes: 4, sha256: None, git_oid: Some("a".repeat(40)) };
        let made_up = catalog::hub::Selection {
            repo: REPO.into(),
            revision: "main".into(),
            commit: "b".repeat(40),
            files: vec![file],
        };
        assert!(matches!(hub.download(&made_up, |_| {}).await, Err(HubError::BadName { .. })), "{path:?}");
    }
    let bad_sum = small().claim_sha256(FILE, "../../../evil");
    assert!(line(Bench::of(bad_sum).get().await.unwrap_err()).contains("no usable checksum"));
    for repo in ["../evil", "org/../evil", "org/a/b", "/org/a"] {
        let hub = Bench::of(small()).hub();
        assert!(matches!(hub.files(repo, "main").await, Err(HubError::BadName { .. })), "{repo}");
    }
    let bench = Bench::of(small());
    assert!(matches!(bench.hub().files(REPO, "../main").await, Err(HubError::BadName { .. })));
}

#[tokio::test]
async fn links_that_were_planted_in_the_cache_are_refused() {
    for planted in ["models--org--model", "models--org--model/blobs", "models--org--model/snapshots", ".locks"] {
        let (bench, elsewhere) = (Bench::of(small()), tempfile::tempdir().unwrap());
        let link = bench.cache().join(planted);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        let said = line(bench.get().await.unwrap_err());
        assert!(said.contains("refused") && said.contains(planted), "{said}");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0, "{planted}: nothing was written there");
        assert!(bench.hub().delete(REPO, None, false).is_err());
    }
    // The files that a download writes.
    let bench = Bench::of(small());
    let victim = bench.cache().join("victim");
    fs::write(&victim, "precious").unwrap();
    let listing = bench.hub().files(REPO, "main").await.unwrap();
    let sha = listing.files.iter().find_map(|file| file.sha256.clone()).unwrap();
    fs::create_dir_all(bench.blobs()).unwrap();
    for name in [sha.clone(), format!("{sha}.incomplete")] {
        let link = bench.blobs().join(name);
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        let said = line(bench.get().await.unwrap_err());
        assert!(said.contains("refused"), "{said}");
        fs::remove_file(link).unwrap();
    }
    // These are written on the way, and only not kept.
    std::os::unix::fs::symlink(&victim, bench.blobs().join(format!("{sha}.incomplete.etag"))).unwrap();
    bench.get().await.unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

fn scarce(_: &Path) -> io::Result<u64> {
    Ok(2_999_999 + (64 << 20))
}

#[tokio::test]
async fn space_is_looked_at_first_and_counts_what_is_there() {
    let bench = Bench::of(small());
    let scarce = Hub::new(HubConfig { tuning: Tuning { free: scarce, ..bench.config().tuning }, ..bench.config() });
    let scarce = scarce.unwrap();
    let said = line(bench.get_by(&scarce).await.unwrap_err());
    assert!(said.contains("not enough space") && said.contains("66.9 MiB"), "{said}");
    assert_eq!(bench.server.content_bytes_sent(), 0);
    // With a part of it here, the rest fits.
    let listing = scarce.files(REPO, "main").await.unwrap();
    let sha = listing.files.iter().find_map(|file| file.sha256.clone()).unwrap();
    fs::write(bench.blobs().join(format!("{sha}.incomplete")), &generated(1, 3_000_000)[..100]).unwrap();
    bench.get_by(&scarce).await.unwrap();
    assert_eq!(bench.server.bytes_sent(FILE), 3_000_000 - 100);
}

#[tokio::test]
async fn sizes_that_are_lies_end_in_an_error_and_not_on_the_disk() {
    let bench = Bench::of(small().claim_bytes(FILE, 4_000_000));
    let said = line(bench.get().await.unwrap_err());
    assert!(said.contains(FILE), "{said}");
    let bench = Bench::of(small().claim_bytes(FILE, 1000));
    let said = line(bench.get().await.unwrap_err());
    assert!(said.contains("checksum"), "{said}");
    assert!(bench.blob_names().iter().all(|name| name.len() != 64), "{:?}", bench.blob_names());
    let bench = Bench::of(small().claim_bytes(FILE, u64::MAX - 5));
    assert!(line(bench.get().await.unwrap_err()).contains("beyond all measure"));
    let bench = Bench::of(small().claim_bytes(FILE, 1 << 60));
    assert!(line(bench.get().await.unwrap_err()).contains("not enough space"));
}

#[tokio::test]
async fn many_files_come_in_pages() {
    let repo = (0..25).fold(small(), |repo, number| repo.file(format!("f/{number}"), Content::from("x")));
    let bench = Bench::new(test_hub::Hub::new().repo(repo).page(7));
    let snapshot = bench.get().await.unwrap();
    assert_eq!(snapshot.files.len(), 29);
    assert!(snapshot.files.iter().all(|path| path.is_file()));
}

#[test]
fn addresses_and_tokens_that_cannot_be_are_refused() {
    let with = |endpoint: &str, token: &str| {
        let token = catalog::hub::Secret::new(token);
        let config = HubConfig { endpoint: endpoint.into(), token, ..HubConfig::new("/nowhere") };
        Hub::new(config).map(drop).map_err(line)
    };
    for endpoint in ["", "hub", "ftp://hub", "https://user:hf_SECRET@hub", "https://hub?x=1"] {
        let said = with(endpoint, "").unwrap_err();
        assert!(said.contains("HF_ENDPOINT") && !said.contains("SECRET"), "{said}");
    }
    let said = with("https://hub", "hf_SECRET\nX: y").unwrap_err();
    assert!(said.contains("HF_TOKEN") && !said.contains("SECRET"), "{said}");
    assert!(with("http://127.0.0.1:1/prefix/", "hf_fine").is_ok());
}

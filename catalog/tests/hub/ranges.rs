//! A large file over several connections: each byte once, whatever the server does, and from where it was after a kill.

use std::{fs, time::Duration};

use catalog::hub::Snapshot;
use test_hub::{Content, Fault, Repo, Rule, Stage};

use crate::support::{Bench, REPO, generated, journaled, line};

const FILE: &str = "model.safetensors";
const MIB: u64 = 1 << 20;
/// Twelve ranges and a bit.
const SIZE: u64 = 12 * MIB + 345;

fn large() -> Repo {
    Repo::new(REPO).lfs(FILE, Content::generated(1, SIZE))
}

fn bench() -> Bench {
    Bench::of(large()).spread()
}

fn is_right(bench: &Bench, snapshot: &Snapshot) {
    assert!(fs::read(snapshot.dir.join(FILE)).unwrap() == generated(1, SIZE), "other bytes");
    assert!(bench.blob_names().iter().all(|name| !name.contains('.')), "{:?}", bench.blob_names());
}

async fn survives(bench: Bench) -> Bench {
    let snapshot = bench.get().await.unwrap();
    is_right(&bench, &snapshot);
    bench
}

fn asked(bench: &Bench, stage: Stage) -> usize {
    let meant = |request: &&test_hub::Request| request.stage == stage && request.path.ends_with(FILE);
    bench.server.log().iter().filter(meant).count()
}

/// The one journal that there is.
fn journal(bench: &Bench) -> std::path::PathBuf {
    let name = bench.blob_names().into_iter().find(|name| name.ends_with(".journal")).unwrap();
    bench.blobs().join(name)
}

/// Ends with so many of its ranges here, one of them hanging.
async fn broken_off(bench: &mut Bench) {
    bench.server.rule(Rule::new(FILE, Fault::Cut(300_000)).range(format!("bytes={}-", 5 * MIB)));
    bench.server.rule(Rule::new(FILE, Fault::Cut(0)).range(format!("bytes={}-", 5 * MIB + 300_000)));
    let said = line(bench.get().await.unwrap_err());
    assert!(said.contains(FILE) && said.contains("tried 5 times"), "{said}");
    assert!(bench.is_clean());
    bench.renew(large());
}

#[tokio::test]
async fn it_comes_over_several_connections_and_the_hub_is_asked_once() {
    let bench = bench();
    bench.server.rule(Rule::new(FILE, Fault::Throttle(3_000_000)));
    let bench = survives(bench).await;
    assert_eq!(bench.server.bytes_sent(FILE), SIZE, "each byte once");
    assert_eq!((asked(&bench, Stage::Resolve), asked(&bench, Stage::Content)), (1, 13));
    assert!((4..=8).contains(&bench.server.most_at_once()), "{}", bench.server.most_at_once());
    let told = bench.progress.lock().unwrap().clone();
    assert!(told.iter().all(|progress| progress.all_done <= progress.all_total));
    assert_eq!(told.last().unwrap().all_done, SIZE);
}

#[tokio::test]
async fn connections_are_bounded_over_all_files() {
    let file = |number: u64| format!("model-{number}.safetensors");
    let repo = (1..=4).fold(large(), |repo, number| repo.lfs(file(number), Content::generated(number, 5 * MIB)));
    let bench = Bench::of(repo).spread().with(|tuning| tuning.connections = 3);
    bench.server.rule(Rule::new("safetensors", Fault::Throttle(6_000_000)));
    let bench = survives(bench).await;
    assert_eq!(bench.server.most_at_once(), 3);
    assert_eq!(bench.server.content_bytes_sent(), SIZE + 20 * MIB);
}

#[tokio::test]
async fn one_connection_is_enough() {
    let bench = survives(bench().with(|tuning| tuning.connections = 1)).await;
    assert_eq!((bench.server.bytes_sent(FILE), bench.server.most_at_once()), (SIZE, 1));
}

#[tokio::test]
async fn a_range_that_is_always_cut_ends_it_and_the_others_stay() {
    let mut bench = bench();
    broken_off(&mut bench).await;
    let here = journaled(&journal(&bench));
    let total: u64 = here.iter().map(|piece| piece.end - piece.start).sum();
    assert!(here.contains(&(5 * MIB..5 * MIB + 300_000)), "what came of it, too: {here:?}");
    assert!(total > 5 * MIB, "{here:?}");
    let hub = bench.hub();
    assert!(hub.installed()[0].unfinished >= total, "{:?}", hub.installed());
    let bench = survives(bench).await;
    assert_eq!(bench.server.bytes_sent(FILE), SIZE - total, "only the rest");
}

#[tokio::test]
async fn a_range_that_is_cut_now_and_then_goes_on() {
    let bench = bench();
    bench.server.rule(Rule::new(FILE, Fault::Cut(700_000)).range(format!("bytes={}-", 3 * MIB)).first(1));
    bench
        .server
        .rule(Rule::new(FILE, Fault::Hangup).stage(Stage::Content).range(format!("bytes={}-", 7 * MIB)).first(3));
    let bench = survives(bench).await;
    assert_eq!(bench.server.bytes_sent(FILE), SIZE);
}

#[tokio::test]
async fn a_server_without_ranges_sends_it_once_over_one_connection() {
    let bench = bench();
    bench.server.rule(Rule::new(FILE, Fault::IgnoreRange));
    let bench = survives(bench).await;
    assert_eq!((bench.server.bytes_sent(FILE), bench.server.most_at_once()), (SIZE, 1));
    // It is begun anew with where that is cut, as often as it gets further.
    let bench = self::bench();
    bench.server.rule(Rule::new(FILE, Fault::IgnoreRange));
    bench.server.rule(Rule::new(FILE, Fault::Cut(3 * MIB)).first(1));
    let bench = survives(bench).await;
    assert_eq!(bench.server.bytes_sent(FILE), SIZE + 3 * MIB);
    // And not for ever.
    let bench = self::bench();
    bench.server.rule(Rule::new(FILE, Fault::IgnoreRange));
    bench.server.rule(Rule::new(FILE, Fault::Cut(3 * MIB)));
    assert!(line(bench.get().await.unwrap_err()).contains("tried 5 times"));
}

#[tokio::test]
async fn ranges_that_are_others_than_those_asked_for_are_done_without() {
    let bench = bench();
    bench.server.rule(Rule::new(FILE, Fault::Without("content-range")));
    let bench = survives(bench).await;
    assert_eq!(bench.server.bytes_sent(FILE) / SIZE, 1, "the answers to ranges were not read");
    let bench = self::bench();
    bench.server.rule(Rule::new(FILE, Fault::ShiftRange(10)).nth(4));
    let bench = survives(bench).await;
    assert!(bench.server.bytes_sent(FILE) >= 2 * SIZE - 10, "noticed at the end");
}

#[tokio::test]
async fn a_file_that_changes_midway_is_begun_anew() {
    let bench = bench();
    // The first answers are of other bytes, by another name.
    bench.server.rule(Rule::new(FILE, Fault::Corrupt(10)).first(1));
    bench.server.rule(Rule::new(FILE, Fault::Etag("\"before\"".into())).stage(Stage::Content).first(1));
    // Slow, so that little is on its way to whom does not read it.
    bench.server.rule(Rule::new(FILE, Fault::Throttle(3_000_000)));
    let bench = survives(bench).await;
    assert!(bench.server.bytes_sent(FILE) < SIZE + 6 * MIB, "{}", bench.server.bytes_sent(FILE));
    // A server that has many names for it: in the end the file comes whole.
    let bench = self::bench();
    for nth in 1..=20 {
        let name = Fault::Etag(format!("\"{nth}\""));
        bench.server.rule(Rule::new(FILE, name).stage(Stage::Content).nth(nth));
    }
    survives(bench).await;
}

#[tokio::test]
async fn a_part_of_another_name_is_not_gone_on_with() {
    let mut bench = bench();
    broken_off(&mut bench).await;
    let note = bench.blob_names().into_iter().find(|name| name.ends_with(".etag")).unwrap();
    fs::write(bench.blobs().join(note), "\"another\"").unwrap();
    let bench = survives(bench).await;
    assert!(bench.server.bytes_sent(FILE) >= SIZE);
}

#[tokio::test]
async fn an_address_that_grew_old_is_asked_for_anew() {
    let bench = bench();
    bench.server.rule(Rule::new(FILE, Fault::Throttle(3_000_000)));
    let ageing = async {
        for enough in [2 * MIB, 9 * MIB] {
            while bench.server.bytes_sent(FILE) < enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            bench.server.expire();
        }
    };
    let (snapshot, ()) = tokio::join!(bench.get(), ageing);
    is_right(&bench, &snapshot.unwrap());
    assert_eq!(bench.server.bytes_sent(FILE), SIZE);
    let refused = bench.server.log().iter().filter(|request| request.status == 403).count();
    assert!(refused > 0 && asked(&bench, Stage::Resolve) > 1, "{refused}");
}

#[tokio::test]
async fn a_corrupted_byte_is_noticed_and_all_of_it_comes_once_more() {
    let bench = bench();
    bench.server.rule(Rule::new(FILE, Fault::Corrupt(7 * MIB + 5)).range(format!("bytes={}-", 7 * MIB)).first(1));
    let bench = survives(bench).await;
    assert_eq!(bench.server.bytes_sent(FILE), 2 * SIZE);
    let bench = self::bench();
    bench.server.rule(Rule::new(FILE, Fault::Corrupt(7 * MIB + 5)));
    let said = line(bench.get().await.unwrap_err());
    assert!(said.contains("checksum") && said.contains("twice"), "{said}");
    assert!(bench.blob_names().iter().all(|name| !name.contains(".incomplete")), "{:?}", bench.blob_names());
}

#[tokio::test]
async fn what_changed_on_disk_since_is_fetched_again_and_nothing_else() {
    let mut bench = bench();
    broken_off(&mut bench).await;
    let journal = journal(&bench);
    let told = fs::read_to_string(&journal).unwrap();
    let pieces = journaled(&journal);
    let total: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
    // A byte of one piece; a line that a power cut left torn; one that claims what is not there; and one twice.
    let data = journal.with_extension("");
    let mut bytes = fs::read(&data).unwrap();
    let (damaged, torn) = (pieces[1].clone(), pieces.last().unwrap().clone());
    bytes[damaged.start as usize + 77] ^= 1;
    bytes.resize(SIZE as usize + 9, 7);
    fs::write(&data, bytes).unwrap();
    let mut lines: Vec<&str> = told.split_inclusive('\n').collect();
    let last = lines.pop().unwrap();
    let claim = format!("{} {MIB} {}\n", 11 * MIB, "ab".repeat(32));
    let known = lines[1].to_owned();
    lines.extend([claim.as_str(), &known, &last[..last.len() - 9]]);
    fs::write(&journal, lines.concat()).unwrap();
    let bench = survives(bench).await;
    let lost = damaged.end - damaged.start + torn.end - torn.start;
    assert_eq!(bench.server.bytes_sent(FILE), SIZE - total + lost);
}

#[tokio::test]
async fn pieces_without_a_journal_are_nothing() {
    let mut bench = bench();
    broken_off(&mut bench).await;
    fs::remove_file(journal(&bench)).unwrap();
    let bench = survives(bench).await;
    assert_eq!(bench.server.bytes_sent(FILE), SIZE);
}

#[tokio::test]
async fn what_another_tool_has_begun_is_gone_on_with() {
    let mut bench = bench();
    let sha = Content::generated(1, SIZE).sha256().unwrap();
    fs::create_dir_all(bench.blobs()).unwrap();
    let (part, here) = (bench.blobs().join(format!("{sha}.incomplete")), 3 * MIB + 1234);
    fs::write(&part, &generated(1, SIZE)[..here as usize]).unwrap();
    broken_off(&mut bench).await;
    assert!(!part.exists(), "its length would lie by now");
    let total = bench.arrived();
    assert!(total >= here, "{total}");
    // One that begins while ours lies there is left alone, and of no use once the file is here.
    fs::write(&part, "x").unwrap();
    let bench = survives(bench).await;
    assert_eq!(bench.server.bytes_sent(FILE), SIZE - total);
}

#[tokio::test]
async fn links_that_were_planted_are_refused() {
    let bench = bench();
    let sha = Content::generated(1, SIZE).sha256().unwrap();
    fs::create_dir_all(bench.blobs()).unwrap();
    let victim = bench.cache().join("victim");
    fs::write(&victim, "precious").unwrap();
    for ending in [".incomplete.pieces", ".incomplete.pieces.journal"] {
        let link = bench.blobs().join(format!("{sha}{ending}"));
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        let said = line(bench.get().await.unwrap_err());
        assert!(said.contains("refused") && said.contains(ending), "{said}");
        fs::remove_file(link).unwrap();
    }
    // These are replaced, or not kept.
    for ending in [".incomplete.pieces.journal.new", ".incomplete.pieces.etag"] {
        std::os::unix::fs::symlink(&victim, bench.blobs().join(format!("{sha}{ending}"))).unwrap();
    }
    let snapshot = bench.get().await.unwrap();
    assert!(fs::read(snapshot.dir.join(FILE)).unwrap() == generated(1, SIZE));
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
}

#[tokio::test]
async fn a_dropped_download_loses_nothing_that_was_written() {
    let mut bench = bench();
    bench.server.rule(Rule::new(FILE, Fault::Stall(200_000)));
    let enough = async {
        while bench.server.bytes_sent(FILE) < 1 || bench.progress.lock().unwrap().iter().all(|one| one.done < 200_000) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = bench.get() => panic!("it cannot end"),
        () = enough => {}
    }
    bench.renew(large());
    let bench = survives(bench).await;
    // The rest of each first bit at least: no piece was complete.
    let sent = bench.server.bytes_sent(FILE);
    assert!(sent <= SIZE - 200_000, "{sent}");
}

#[tokio::test]
async fn an_unfinished_one_is_pruned_and_deleted() {
    let mut bench = bench();
    broken_off(&mut bench).await;
    let hub = bench.hub();
    let plan = hub.prune(true).unwrap();
    assert_eq!(hub.prune(false).unwrap(), plan);
    assert!(bench.blob_names().iter().all(|name| !name.contains(".incomplete")), "{:?}", bench.blob_names());
    broken_off(&mut bench).await;
    hub.delete(REPO, None, false).unwrap();
    assert!(hub.installed().is_empty());
}

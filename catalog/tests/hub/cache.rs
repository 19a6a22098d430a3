//! What lies in the cache afterwards: fetched once, found offline and by other tools, deleted and pruned.

use std::{fs, path::Path};

use catalog::hub::Stage;
use test_hub::Content;

use crate::support::{Bench, REPO, line, names, selection, small};

#[tokio::test]
async fn a_model_is_fetched_once_and_lies_as_hugging_faces_tools_expect() {
    let bench = Bench::of(small());
    let snapshot = bench.get().await.unwrap();
    let repo = bench.cache().join("models--org--model");
    let commit = fs::read_to_string(repo.join("refs/main")).unwrap();
    assert_eq!(snapshot.dir, repo.join("snapshots").join(&commit));
    let oid = Content::from("nested").git_oid().unwrap();
    let link = fs::read_link(snapshot.dir.join("sub/folder/notes.txt")).unwrap();
    assert_eq!(link, Path::new("../../../../blobs").join(&oid));
    assert_eq!(fs::read_to_string(snapshot.dir.join("sub/folder/notes.txt")).unwrap(), "nested");
    let sha = Content::generated(1, 3_000_000).sha256().unwrap();
    assert_eq!(fs::read_link(snapshot.dir.join("model.safetensors")).unwrap(), Path::new("../../blobs").join(&sha));
    assert!(bench.cache().join(".locks/models--org--model").join(format!("{sha}.lock")).is_file());
    assert_eq!(bench.blob_names().len(), 4);

    let told = bench.progress.lock().unwrap().clone();
    let last = told.iter().rfind(|progress| progress.stage == Stage::Done).unwrap();
    assert_eq!((last.all_done, last.all_total), (3_000_028, 3_000_028), "{told:?}");
    assert!(told.iter().all(|progress| progress.done <= progress.total && progress.all_done <= progress.all_total));

    bench.server.clear_log();
    assert_eq!(bench.get().await.unwrap(), snapshot);
    assert!(bench.server.log().iter().all(|request| request.path.starts_with("/api/models/")), "no contents");
}

#[tokio::test]
async fn offline_there_is_what_is_in_the_cache() {
    let bench = Bench::of(small());
    let said = line(bench.offline().files(REPO, "main").await.unwrap_err());
    assert!(said.contains("offline") && said.contains("org/model at main"), "{said}");
    let snapshot = bench.get().await.unwrap();
    let wanted = selection(bench.hub().files(REPO, "main").await.unwrap());
    bench.server.clear_log();
    assert_eq!(bench.get_by(&bench.offline()).await.unwrap(), snapshot);
    let by_commit = bench.offline().files(REPO, &wanted.commit).await.unwrap();
    assert_eq!(by_commit.files.len(), 4);
    fs::remove_file(snapshot.dir.join("model.safetensors").canonicalize().unwrap()).unwrap();
    let said = line(bench.offline().download(&wanted, |_| {}).await.unwrap_err());
    assert!(said.contains("offline") && said.contains("model.safetensors of org/model"), "{said}");
    assert!(bench.server.log().is_empty());
}

#[tokio::test]
async fn a_new_commit_brings_only_what_changed_and_the_old_one_can_go() {
    let bench = Bench::of(small());
    bench.get().await.unwrap();
    let first = fs::read_to_string(bench.cache().join("models--org--model/refs/main")).unwrap();
    bench.server.put(small().commit().file("config.json", r#"{"model_type":"qwen4"}"#)).unwrap();
    bench.server.clear_log();
    let second = bench.get().await.unwrap();
    assert_eq!(bench.server.content_bytes_sent(), 22, "the new config.json alone");

    let hub = bench.hub();
    let [installed] = hub.installed().try_into().unwrap();
    assert_eq!((installed.repo.as_str(), installed.snapshots.len(), installed.bytes), (REPO, 2, 3_000_050));
    let refs: Vec<_> = installed.snapshots.iter().map(|snapshot| (snapshot.refs.len(), snapshot.files.len())).collect();
    assert!(refs.contains(&(1, 4)) && refs.contains(&(0, 4)), "{refs:?}");

    let plan = hub.delete(REPO, Some(&first), true).unwrap();
    assert_eq!((plan.commits.as_slice(), plan.bytes), (&[first.clone()][..], 22));
    assert_eq!(bench.blob_names().len(), 5, "a dry run");
    assert_eq!(hub.delete(REPO, Some(&first), false).unwrap(), plan);
    assert_eq!(bench.blob_names().len(), 4);
    assert!(second.files.iter().all(|path| path.is_file()));
    assert!(hub.delete(REPO, Some(&first), false).is_err(), "it is gone");

    let plan = hub.delete(REPO, None, true).unwrap();
    assert_eq!(plan.bytes, 3_000_028);
    hub.delete(REPO, None, false).unwrap();
    assert!(hub.installed().is_empty());
    assert_eq!(names(bench.cache()), [".locks"]);
    bench.get().await.unwrap();
}

#[tokio::test]
async fn rubbish_is_passed_over_and_pruned() {
    let bench = Bench::of(small());
    let snapshot = bench.get().await.unwrap();
    let cache = bench.cache();
    fs::create_dir_all(cache.join("datasets--org--data/blobs")).unwrap();
    fs::create_dir_all(cache.join("models--")).unwrap();
    fs::write(cache.join("models--a--file"), "").unwrap();
    fs::write(cache.join("version.txt"), "1").unwrap();
    fs::create_dir_all(cache.join("models--org--model/snapshots/not-a-commit")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", snapshot.dir.join("planted")).unwrap();
    std::os::unix::fs::symlink("../../blobs/gone", snapshot.dir.join("dangling")).unwrap();
    fs::write(bench.blobs().join("a".repeat(64)), "nobody's").unwrap();
    fs::write(bench.blobs().join(format!("{}.incomplete", "b".repeat(64))), "half").unwrap();
    let hub = bench.hub();
    let [installed] = hub.installed().try_into().unwrap();
    assert_eq!((installed.snapshots.len(), installed.snapshots[0].files.len()), (1, 4));
    assert_eq!(installed.unfinished, 4);
    let plan = hub.prune(true).unwrap();
    assert_eq!((plan.paths.len(), plan.bytes), (2, 12));
    assert_eq!(hub.prune(false).unwrap(), plan);
    assert!(hub.prune(true).unwrap().paths.is_empty());
    assert!(snapshot.files.iter().all(|path| path.is_file()));
}

#[tokio::test]
async fn bytes_that_changed_on_disk_are_named() {
    let bench = Bench::of(small());
    let snapshot = bench.get().await.unwrap();
    let hub = bench.hub();
    assert!(hub.verify(REPO, |_| {}).unwrap().iter().all(|file| file.right));
    let path = snapshot.dir.join("model.safetensors").canonicalize().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[1_234_567] ^= 1;
    fs::write(&path, bytes).unwrap();
    let wrong: Vec<_> = hub.verify(REPO, |_| {}).unwrap().into_iter().filter(|file| !file.right).collect();
    assert_eq!(wrong.len(), 1);
    assert_eq!(wrong[0].file.path, "model.safetensors");
    assert!(hub.verify("org/other", |_| {}).is_err());
    hub.discard(REPO, &wrong[0].file).unwrap();
    bench.get().await.unwrap();
    assert!(hub.verify(REPO, |_| {}).unwrap().iter().all(|file| file.right));
}

#[tokio::test]
async fn what_is_being_downloaded_is_not_deleted() {
    let bench = Bench::of(small());
    bench.server.rule(test_hub::Rule::new("safetensors", test_hub::Fault::Throttle(1_500_000)));
    let hub = bench.hub();
    let meddling = async {
        while bench.server.bytes_sent("model.safetensors") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let said = line(hub.delete(REPO, None, false).unwrap_err());
        assert!(said.contains("being downloaded"), "{said}");
        assert!(hub.prune(false).unwrap().paths.is_empty());
    };
    let (snapshot, ()) = tokio::join!(bench.get(), meddling);
    assert!(snapshot.unwrap().files.iter().all(|path| path.is_file()));
}

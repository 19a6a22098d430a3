//! Others than the hub: what they bring counts when its checksum is the hub's, and where they fail the hub is asked for
//! the rest.

use std::{
    collections::VecDeque,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use catalog::hub::{Answer, Elsewhere, Hears, Hub, Stage, Turn, WantedFile};
use futures_util::future::{BoxFuture, FutureExt as _};
use test_hub::{Content, Repo};

use crate::support::{Bench, REPO, generated};

const BYTES: u64 = 3_000_000;

/// What happened, in its order.
type Diary = Arc<Mutex<Vec<String>>>;

/// Others that bring these bytes, one after the other each time they are asked.
#[derive(Debug)]
struct Others {
    bring: Mutex<VecDeque<Vec<u8>>>,
    diary: Diary,
}

struct Noted(Diary);

impl Turn for Noted {
    fn at(&mut self, arrived: u64) {
        let mut diary = self.0.lock().unwrap();
        if arrived == BYTES && diary.last().is_none_or(|last| last != "all here") {
            diary.push("all here".into());
        }
    }

    fn judged(&mut self, right: Option<&Path>) {
        let words =
            right.map_or("wrong".to_owned(), |path| format!("right, {} bytes", fs::metadata(path).unwrap().len()));
        self.0.lock().unwrap().push(words);
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.lock().unwrap().push("over".into());
    }
}

impl Elsewhere for Others {
    fn listed(&self, repo: &str, open: bool) {
        self.diary.lock().unwrap().push(format!("{repo} {open}"));
    }

    fn ask<'a>(&'a self, wanted: &'a WantedFile, hear: Hears<'a>) -> BoxFuture<'a, Answer> {
        async move {
            assert_eq!((wanted.repo.as_str(), wanted.bytes, wanted.name.len()), (REPO, BYTES, 64));
            let bytes = self.bring.lock().unwrap().pop_front().unwrap_or_default();
            hear(bytes.len() as u64, Stage::Elsewhere);
            fs::write(&wanted.beside, &bytes).unwrap();
            Answer { arrived: bytes.len() as u64, turn: Box::new(Noted(self.diary.clone())) }
        }
        .boxed()
    }
}

/// Downloads a file that others bring so; what happened, and how much the hub was asked for.
async fn get(bench: &Bench, bring: impl IntoIterator<Item = Vec<u8>>) -> (Vec<String>, u64) {
    let diary = Diary::default();
    let others = Others { bring: Mutex::new(bring.into_iter().collect()), diary: diary.clone() };
    let hub = Hub::with_elsewhere(bench.config(), Arc::new(others)).unwrap();
    let snapshot = bench.get_by(&hub).await.unwrap();
    assert_eq!(fs::read(snapshot.dir.join("weights")).unwrap(), generated(1, BYTES));
    assert_eq!(bench.blob_names().len(), 1, "nothing is left beside it: {:?}", bench.blob_names());
    let diary = diary.lock().unwrap().clone();
    (diary, bench.server.content_bytes_sent())
}

fn bench() -> Bench {
    Bench::of(Repo::new(REPO).lfs("weights", Content::generated(1, BYTES)))
}

#[tokio::test]
async fn what_others_have_is_not_asked_of_the_hub() {
    let (diary, bytes) = get(&bench(), [generated(1, BYTES)]).await;
    assert_eq!(
        (diary.as_slice(), bytes),
        (&["org/model true", "right, 3000000 bytes", "over"].map(String::from)[..], 0)
    );
}

#[tokio::test]
async fn where_others_fail_in_the_middle_the_hub_is_asked_for_the_rest() {
    let (diary, bytes) = get(&bench(), [generated(1, BYTES)[..2_000_000].to_vec()]).await;
    assert_eq!((diary.as_slice(), bytes), (&["org/model true", "all here", "over"].map(String::from)[..], 1_000_000));
    // What the hub itself has sent already is kept where it is more.
    let bench = bench();
    let whole = generated(1, BYTES);
    let listing = bench.hub().files(REPO, "main").await.unwrap();
    fs::create_dir_all(bench.blobs()).unwrap();
    let part = format!("{}.incomplete", listing.files[0].sha256.clone().unwrap());
    fs::write(bench.blobs().join(part), &whole[..2_500_000]).unwrap();
    assert_eq!(get(&bench, [whole[..2_000_000].to_vec()]).await.1, 500_000);
}

#[tokio::test]
async fn wrong_bytes_from_others_are_thrown_away() {
    // Wrong as a whole, three times: nobody is asked any more.
    let wrong = || vec![7; BYTES as usize];
    let (diary, bytes) = get(&bench(), [wrong(), wrong(), wrong(), generated(1, BYTES)]).await;
    let said = ["org/model true", "wrong", "over", "wrong", "over", "wrong", "over"].map(String::from);
    assert_eq!((diary.as_slice(), bytes), (&said[..], BYTES));
    // Wrong once, and right from somebody else.
    let (diary, bytes) = get(&bench(), [wrong(), generated(1, BYTES)]).await;
    assert_eq!((diary[1].as_str(), diary[3].as_str(), bytes), ("wrong", "right, 3000000 bytes", 0));
    // Wrong as a beginning: the whole is wrong then, and fetched anew.
    let (_, bytes) = get(&bench(), [vec![7; 1_000_000]]).await;
    assert_eq!(bytes, 2_000_000 + BYTES);
}

#[tokio::test]
async fn others_are_told_whether_everybody_may_read_a_repository() {
    for (repo, open) in
        [(Repo::new(REPO), true), (Repo::new(REPO).gated(["hf_t"]), false), (Repo::new(REPO).private(["hf_t"]), false)]
    {
        let bench = Bench::new(test_hub::Hub::new().repo(repo.file("weights", "x")).token("hf_t"));
        let (diary, config) = (Diary::default(), bench.hub_of("hf_t").config().clone());
        let others = Others { bring: Mutex::default(), diary: diary.clone() };
        Hub::with_elsewhere(config, Arc::new(others)).unwrap().files(REPO, "main").await.unwrap();
        assert_eq!(*diary.lock().unwrap(), [format!("{REPO} {open}")]);
    }
}

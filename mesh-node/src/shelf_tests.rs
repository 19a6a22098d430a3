//! The shelf over engines that only pretend; must not read a model.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use engine::{Engine, EngineLoad, Generation};
use futures_util::future::BoxFuture;
use mesh_proto::{GenerateError, GenerateRequest, ModelDescriptor, Sampling, record::Capabilities};
use tokio::sync::Notify;

use super::*;

/// What happened to a model.
#[derive(Default)]
struct Fate {
    loads: AtomicU32,
    drops: AtomicU32,
    /// Turned on, its loads fail.
    bad: AtomicU32,
    sharers: AtomicU32,
    /// Generations that `drain` waits for.
    busy: AtomicU32,
    idle: Notify,
}

struct Pretender(ModelDescriptor, Arc<Fate>);

impl Engine for Pretender {
    fn descriptor(&self) -> &ModelDescriptor {
        &self.0
    }

    fn generate(&self, _: GenerateRequest) -> BoxFuture<'_, Result<Generation, GenerateError>> {
        Box::pin(async { Err(GenerateError::ShuttingDown) })
    }

    fn load(&self) -> EngineLoad {
        EngineLoad { running: self.1.busy.load(Ordering::SeqCst), ..EngineLoad::default() }
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while self.1.busy.load(Ordering::SeqCst) > 0 {
                self.1.idle.notified().await;
            }
        })
    }
}

impl Drop for Pretender {
    fn drop(&mut self) {
        self.1.drops.fetch_add(1, Ordering::SeqCst);
    }
}

struct Pretending(BTreeMap<ModelId, Arc<Fate>>);

impl Loader for Pretending {
    fn load(&self, job: LoadJob, _: &mut dyn FnMut(&str)) -> Result<Served, String> {
        let fate = self.0[&job.files.id].clone();
        fate.loads.fetch_add(1, Ordering::SeqCst);
        fate.sharers.store(job.sharers, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        if fate.bad.load(Ordering::SeqCst) > 0 {
            return Err("it is bad".to_owned());
        }
        let descriptor = ModelDescriptor {
            id: job.files.id,
            engine: "pretender".into(),
            family: "none".into(),
            quantization: "none".into(),
            context_tokens: 9,
            vocab_size: 9,
            created: 1,
        };
        Ok(Served {
            engine: Arc::new(Pretender(descriptor, fate)),
            defaults: Sampling::default(),
            max_concurrency: 1,
            capabilities: Capabilities::default(),
        })
    }
}

struct World {
    shelf: Shelf,
    fates: BTreeMap<ModelId, Arc<Fate>>,
    cache: tempfile::TempDir,
}

fn id(name: &str) -> ModelId {
    ModelId::new(name)
}

impl World {
    /// `a` and `b` are on the shelf, of which nobody is named at the start.
    fn new() -> Self {
        let world = Self::empty(0, false);
        for (name, byte) in [("a", 1), ("b", 2)] {
            let identity = ModelIdentity { content: [byte; 32], ..ModelIdentity::default() };
            let facts = ModelFacts { identity, ..ModelFacts::default() };
            assert!(world.shelf.add(ModelFiles { id: id(name), dir: name.into(), gguf: None }, facts, false));
        }
        world
    }

    fn empty(named: u32, identify: bool) -> Self {
        let fates: BTreeMap<_, _> = ["a", "b", "mesh-tiny"].map(|name| (id(name), Arc::default())).into();
        let cache = tempfile::tempdir().unwrap();
        let options = ServingOptions {
            cache: cache.path().to_owned(),
            context_tokens: Some(100),
            parallel: 1,
            max_memory: None,
            gguf: GgufServing::default(),
            named,
            identify,
        };
        let loader = Arc::new(Pretending(fates.clone()));
        Self { shelf: Shelf::with_loader(LocalEngines::default(), options, loader), fates, cache }
    }

    fn tiny(&self) -> ModelFiles {
        catalog::resolve("mesh-tiny", self.cache.path(), Some(Format::Mlx), None).unwrap()
    }

    fn model(&self, name: &str) -> LocalModel {
        self.shelf.locals().all()[&id(name)].clone()
    }

    fn state(&self, name: &str) -> &'static str {
        match self.model(name).state {
            LocalState::OnDisk => "on disk",
            LocalState::Loading => "loading",
            LocalState::Ready(_) => "ready",
            LocalState::Failed(_) => "failed",
        }
    }

    fn loads(&self, name: &str) -> u32 {
        self.fates[&id(name)].loads.load(Ordering::SeqCst)
    }

    fn drops(&self, name: &str) -> u32 {
        self.fates[&id(name)].drops.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_model_goes_into_memory_and_out_of_it_and_in_again() {
    let world = World::new();
    let a = id("a");
    assert_eq!(world.state("a"), "on disk");
    for round in 1..=2 {
        world.shelf.load(&a).await.unwrap();
        assert_eq!((world.state("a"), world.state("b"), world.loads("a")), ("ready", "on disk", round));
        world.shelf.unload(&a).await.unwrap();
        assert_eq!((world.state("a"), world.drops("a")), ("on disk", round));
    }
    assert_eq!(world.shelf.unload(&a).await.unwrap_err(), "a is not in memory");
    assert!(world.shelf.load(&id("c")).await.unwrap_err().contains("no model called c"));
}

#[tokio::test]
async fn two_loads_of_one_model_at_once_are_one() {
    let world = World::new();
    let a = id("a");
    let (first, second, third) = tokio::join!(world.shelf.load(&a), world.shelf.load(&a), world.shelf.load(&a));
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(world.loads("a"), 1);
    world.shelf.load(&a).await.unwrap();
    assert_eq!(world.loads("a"), 1, "it is there");
}

#[tokio::test]
async fn a_load_goes_on_when_nobody_waits_for_it() {
    let world = World::new();
    let a = id("a");
    assert!(timeout(Duration::from_millis(5), world.shelf.load(&a)).await.is_err());
    assert_eq!(world.state("a"), "loading");
    world.shelf.load(&a).await.unwrap();
    assert_eq!(world.loads("a"), 1);
}

#[tokio::test]
async fn a_load_that_fails_says_why_and_may_be_tried_again() {
    let world = World::new();
    let (a, fate) = (id("a"), &world.fates[&id("a")]);
    fate.bad.store(1, Ordering::SeqCst);
    let (first, second) = tokio::join!(world.shelf.load(&a), world.shelf.load(&a));
    assert_eq!((first.unwrap_err().as_str(), second.unwrap_err().as_str()), ("it is bad", "it is bad"));
    assert!(matches!(world.model("a").state, LocalState::Failed(reason) if reason == "it is bad"));
    fate.bad.store(0, Ordering::SeqCst);
    world.shelf.load(&a).await.unwrap();
    assert_eq!((world.state("a"), world.loads("a")), ("ready", 2));
}

#[tokio::test]
async fn an_unload_waits_for_running_answers_and_a_load_waits_for_it() {
    let world = World::new();
    let (a, fate) = (id("a"), &world.fates[&id("a")]);
    world.shelf.load(&a).await.unwrap();
    fate.busy.store(1, Ordering::SeqCst);
    let unload = tokio::spawn({
        let (shelf, a) = (world.shelf.clone(), a.clone());
        async move { shelf.unload(&a).await }
    });
    while world.state("a") == "ready" {
        tokio::task::yield_now().await;
    }
    assert!(world.shelf.locals().find(&a).is_none(), "no new requests");
    let load = tokio::spawn({
        let (shelf, a) = (world.shelf.clone(), a.clone());
        async move { shelf.load(&a).await }
    });
    sleep(Duration::from_millis(30)).await;
    assert_eq!((world.drops("a"), world.loads("a")), (0, 1));
    fate.busy.store(0, Ordering::SeqCst);
    fate.idle.notify_one();
    unload.await.unwrap().unwrap();
    load.await.unwrap().unwrap();
    assert_eq!((world.drops("a"), world.loads("a"), world.state("a")), (1, 2, "ready"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_end_is_cut_off_after_half_a_minute() {
    let world = World::new();
    let a = id("a");
    world.shelf.load(&a).await.unwrap();
    world.fates[&a].busy.store(1, Ordering::SeqCst);
    let asked = Instant::now();
    world.shelf.unload(&a).await.unwrap();
    assert_eq!(asked.elapsed().as_secs(), DRAIN.as_secs());
    assert_eq!(world.drops("a"), 1);
}

#[tokio::test]
async fn an_engine_that_somebody_holds_is_left_to_them() {
    let world = World::new();
    let a = id("a");
    world.shelf.load(&a).await.unwrap();
    let held = world.shelf.locals().find(&a).unwrap();
    world.shelf.unload(&a).await.unwrap();
    assert_eq!(world.drops("a"), 0);
    drop(held);
    assert_eq!(world.drops("a"), 1);
}

#[tokio::test]
async fn models_are_found_by_what_they_are() {
    let world = World::new();
    let key = world.model("b").key();
    world.shelf.load_key(key).await.unwrap();
    assert_eq!((world.state("a"), world.state("b")), ("on disk", "ready"));
    world.shelf.unload_key(key).await.unwrap();
    assert_eq!(world.state("b"), "on disk");
    assert!(world.shelf.load_key(ModelKey([9; 32])).await.is_err());
}

#[tokio::test]
async fn those_named_at_the_start_share_alike_and_later_ones_share_what_is_left() {
    let world = World::empty(2, false);
    let sharers = |name: &str| world.fates[&id(name)].sharers.load(Ordering::SeqCst);
    world.shelf.name(world.tiny()).await.unwrap();
    for name in ["a", "b"] {
        assert!(world.shelf.add(
            ModelFiles { id: id(name), dir: name.into(), gguf: None },
            ModelFacts::default(),
            false
        ));
    }
    for name in ["mesh-tiny", "a", "b"] {
        world.shelf.load(&id(name)).await.unwrap();
    }
    assert_eq!((sharers("mesh-tiny"), sharers("a"), sharers("b")), (2, 2, 4));
    let alone = World::new();
    alone.shelf.load(&id("a")).await.unwrap();
    assert_eq!(alone.fates[&id("a")].sharers.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_named_model_is_on_its_way_at_once_and_known_once_it_was_read() {
    let world = World::empty(1, true);
    world.shelf.name(world.tiny()).await.unwrap();
    let before = world.model("mesh-tiny");
    assert!(before.pinned && matches!(before.state, LocalState::Loading));
    assert_eq!(before.facts.family, "qwen3");
    assert_eq!(before.facts.context_tokens, 100, "as --ctx-size says");
    world.shelf.load(&id("mesh-tiny")).await.unwrap();
    let content = catalog::content(&world.tiny(), world.cache.path(), &mut |_| {}).unwrap();
    assert_eq!(world.model("mesh-tiny").facts.identity.content, content);
    assert_ne!(before.facts.identity.content, content, "until then it is nobody else's model");
}

#[tokio::test]
async fn a_node_that_is_alone_does_not_read_files_to_know_what_they_are() {
    let world = World::empty(1, false);
    world.shelf.offer(world.tiny(), false).await.unwrap();
    world.shelf.load(&id("mesh-tiny")).await.unwrap();
    assert_eq!(world.model("mesh-tiny").facts.identity.content, [0; 32]);
}

#[tokio::test]
async fn a_name_leads_to_the_shelf_first_and_then_to_this_machine() {
    let world = World::new();
    assert_eq!(world.shelf.find("a", None).await.unwrap(), id("a"));
    assert_eq!(world.shelf.find("mesh-tiny", Some(Format::Mlx)).await.unwrap(), id("mesh-tiny"));
    assert_eq!(world.state("mesh-tiny"), "on disk");
    let dir = world.tiny().dir;
    assert!(matches!(world.shelf.name(world.tiny()).await, Err(ShelfError::SameName(_))));
    let moved = world.cache.path().join("a");
    std::fs::rename(dir, &moved).unwrap();
    let same = world.shelf.find(moved.to_str().unwrap(), Some(Format::Mlx)).await.unwrap_err();
    assert!(same.to_string().contains("two models would be called a"), "{same}");
    let nothing = world.shelf.find("nothing", None).await.unwrap_err();
    assert!(nothing.to_string().contains("no model called nothing"), "{nothing}");
}

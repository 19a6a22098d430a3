//! Responses that are kept for later, in memory, within limits; must not know what they say, or HTTP.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::value::RawValue;

/// Most responses. Unit: responses; default 4,096, a guess: a long day of several agents.
const MAX_RESPONSES: usize = 4_096;
/// Most bytes of all of them, as JSON. Unit: bytes; default 128 MiB, a guess: little beside a model.
const MAX_BYTES: usize = 128 << 20;
/// How long one is kept that nobody asks for or goes on from. Unit: hours; default 24, a guess. OpenAI keeps them 30 days.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// An item of a request's input, with the id that it was given.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) json: Box<RawValue>,
}

/// A response and what it answered.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) id: String,
    /// The one that it goes on from.
    pub(super) previous: Option<String>,
    /// What this request added to the conversation.
    pub(super) input: Vec<Item>,
    /// The ids of the response's own items.
    pub(super) output_ids: Vec<String>,
    /// The response, JSON text.
    pub(super) response: String,
}

impl Kept {
    /// The response's items.
    pub(super) fn output(&self) -> Vec<Box<RawValue>> {
        #[derive(Deserialize)]
        struct Output {
            output: Vec<Box<RawValue>>,
        }
        // It was written by us.
        serde_json::from_str::<Output>(&self.response).map(|response| response.output).unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        self.response.len() + self.input.iter().map(|item| item.id.len() + item.json.get().len()).sum::<usize>()
    }

    fn item_ids(&self) -> impl Iterator<Item = &String> {
        self.input.iter().map(|item| &item.id).chain(&self.output_ids)
    }
}

/// The memory. What was not asked for longest goes first when it is full.
#[derive(Debug)]
pub(super) struct Store(Mutex<Shelf>);

#[derive(Debug)]
struct Shelf {
    max_responses: usize,
    max_bytes: usize,
    entries: HashMap<String, Entry>,
    /// By last use.
    order: BTreeMap<u64, String>,
    /// Whose items they are, by their ids.
    items: HashMap<String, String>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    kept: Arc<Kept>,
    use_number: u64,
    used: Instant,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(MAX_RESPONSES, MAX_BYTES)
    }
}

impl Store {
    fn new(max_responses: usize, max_bytes: usize) -> Self {
        Self(Mutex::new(Shelf {
            max_responses,
            max_bytes,
            entries: HashMap::new(),
            order: BTreeMap::new(),
            items: HashMap::new(),
            bytes: 0,
            uses: 0,
        }))
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one; others go for it.
    pub(super) fn put(&self, kept: Kept, now: Instant) {
        self.shelf().put(kept, now);
    }

    /// One of them.
    pub(super) fn get(&self, id: &str, now: Instant) -> Option<Arc<Kept>> {
        let mut shelf = self.shelf();
        shelf.expire(now);
        shelf.touch(id, now)
    }

    /// One and all that it goes on from, oldest first; or the id of one that is missing.
    pub(super) fn chain(&self, id: &str, now: Instant) -> Result<Vec<Arc<Kept>>, String> {
        let mut shelf = self.shelf();
        shelf.expire(now);
        let mut chain = Vec::new();
        let mut next = Some(id.to_owned());
        // From the last to the first, so that where memory ends a conversation loses its end before its beginning.
        while let Some(id) = next {
            let kept = shelf.touch(&id, now).ok_or(id)?;
            next = kept.previous.clone();
            chain.push(kept);
        }
        chain.reverse();
        Ok(chain)
    }

    /// An item of any of them.
    pub(super) fn item(&self, id: &str) -> Option<Box<RawValue>> {
        #[derive(Deserialize)]
        struct Named {
            id: Option<String>,
        }
        let kept = {
            let shelf = self.shelf();
            shelf.entries.get(shelf.items.get(id)?)?.kept.clone()
        };
        if let Some(item) = kept.input.iter().find(|item| item.id == id) {
            return Some(item.json.clone());
        }
        let is_named =
            |json: &str| serde_json::from_str::<Named>(json).is_ok_and(|named| named.id.as_deref() == Some(id));
        kept.output().into_iter().find(|item| is_named(item.get()))
    }

    /// Forgets one; `false`: there is no such.
    pub(super) fn remove(&self, id: &str) -> bool {
        self.shelf().remove(id)
    }
}

impl Shelf {
    fn put(&mut self, kept: Kept, now: Instant) {
        self.expire(now);
        self.remove(&kept.id);
        let bytes = kept.bytes();
        while !self.order.is_empty()
            && (self.entries.len() >= self.max_responses || self.bytes + bytes > self.max_bytes)
        {
            self.drop_oldest();
        }
        if bytes > self.max_bytes {
            tracing::info!(id = kept.id, bytes, "a response is too large to be kept");
            return;
        }
        for item in kept.item_ids() {
            self.items.insert(item.clone(), kept.id.clone());
        }
        self.bytes += bytes;
        let id = kept.id.clone();
        self.uses += 1;
        self.order.insert(self.uses, id.clone());
        self.entries.insert(id, Entry { kept: Arc::new(kept), use_number: self.uses, used: now });
    }

    fn touch(&mut self, id: &str, now: Instant) -> Option<Arc<Kept>> {
        let entry = self.entries.get_mut(id)?;
        self.uses += 1;
        self.order.remove(&entry.use_number);
        self.order.insert(self.uses, id.to_owned());
        (entry.use_number, entry.used) = (self.uses, now);
        Some(entry.kept.clone())
    }

    fn expire(&mut self, now: Instant) {
        let is_old = |entry: &Entry| now.saturating_duration_since(entry.used) > MAX_AGE;
        while self.order.values().next().and_then(|id| self.entries.get(id)).is_some_and(is_old) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, id)) = self.order.pop_first() {
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &str) -> bool {
        let Some(Entry { kept, use_number, .. }) = self.entries.remove(id) else { return false };
        self.order.remove(&use_number);
        self.bytes -= kept.bytes();
        for item in kept.item_ids() {
            // A client may have sent the item again, and a later response holds it too.
            if self.items.get(item).is_some_and(|owner| owner == id) {
                self.items.remove(item);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(id: &str, previous: Option<&str>) -> Kept {
        let json = |text: String| RawValue::from_string(text).unwrap();
        Kept {
            id: id.into(),
            previous: previous.map(str::to_owned),
            input: vec![Item { id: format!("in_{id}"), json: json(format!("{{\"id\":\"in_{id}\"}}")) }],
            output_ids: vec![format!("out_{id}")],
            response: format!("{{\"output\":[{{\"id\":\"out_{id}\"}}]}}"),
        }
    }

    fn ids(chain: &[Arc<Kept>]) -> String {
        chain.iter().map(|kept| kept.id.as_str()).collect()
    }

    #[test]
    fn a_chain_is_found_from_its_end_and_breaks_where_one_is_missing() {
        let (store, now) = (Store::default(), Instant::now());
        for (id, previous) in [("a", None), ("b", Some("a")), ("c", Some("b")), ("x", Some("a"))] {
            store.put(kept(id, previous), now);
        }
        assert_eq!(store.chain("c", now).map(|chain| ids(&chain)), Ok("abc".into()));
        assert_eq!(store.chain("x", now).map(|chain| ids(&chain)), Ok("ax".into()));
        assert_eq!(store.item("out_b").unwrap().get(), "{\"id\":\"out_b\"}");
        assert_eq!(store.item("in_b").unwrap().get(), "{\"id\":\"in_b\"}");
        assert!(store.remove("b") && !store.remove("b"));
        assert_eq!(store.chain("c", now).map(|chain| ids(&chain)), Err("b".into()));
        assert!(store.item("out_b").is_none() && store.item("nothing").is_none());
        assert_eq!(store.chain("nothing", now).map(|chain| ids(&chain)), Err("nothing".into()));
    }

    #[test]
    fn what_was_not_used_longest_goes_first_and_the_end_of_a_chain_before_its_beginning() {
        let (store, now) = (Store::new(3, 1 << 20), Instant::now());
        store.put(kept("a", None), now);
        store.put(kept("b", Some("a")), now);
        store.put(kept("x", None), now);
        store.chain("b", now).unwrap();
        store.put(kept("y", None), now);
        assert!(store.get("x", now).is_none());
        store.chain("b", now).unwrap();
        store.get("y", now).unwrap();
        store.put(kept("z", None), now);
        assert!(store.get("b", now).is_none() && store.get("a", now).is_some());
    }

    #[test]
    fn bytes_and_age_are_bounded_and_nothing_is_left_of_what_went() {
        let bytes = kept("a", None).bytes();
        let (store, start) = (Store::new(1000, 2 * bytes), Instant::now());
        for id in ["a", "b", "c"] {
            store.put(kept(id, None), start);
        }
        assert!(store.get("a", start).is_none() && store.get("b", start).is_some());
        let huge = Kept { response: "x".repeat(2 * bytes), ..kept("h", None) };
        store.put(huge, start);
        assert!(store.get("h", start).is_none());
        store.put(kept("d", None), start);
        store.put(kept("e", None), start + Duration::from_secs(1));
        let later = start + MAX_AGE + Duration::from_millis(500);
        assert!(store.get("d", later).is_none() && store.get("e", later).is_some());
        assert!(store.remove("e"));
        let shelf = store.shelf();
        assert_eq!((shelf.bytes, shelf.entries.len(), shelf.order.len(), shelf.items.len()), (0, 0, 0, 0));
    }
}

//! Mutated frames and tickets for as long as one likes: no panic, and whatever is read can be said again.
//!
//! `MESH_FUZZ_SECONDS=600 MESH_FUZZ_SEED=1 cargo test --release -p mesh-proto --test fuzz -- --ignored --nocapture`
#![allow(clippy::unwrap_used, reason = "a test says what it expects in the shortest way")]

mod support;

use std::{
    env,
    panic::{RefUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use mesh_proto::identity::{Contact, PREFIX, Ticket};
use support::*;

/// A small seeded generator (splitmix64): a seed and a case's number are the case.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        // Lengths, variants and the marks of varints, more often than chance has them.
        const TELLING: [u8; 12] = [0, 1, 2, 3, 127, 128, 250, 251, 252, 253, 254, 255];
        if self.roll(2) == 0 { TELLING[self.roll(TELLING.len())] } else { self.roll(256) as u8 }
    }

    /// A copy with a few changes; `other` lends pieces.
    fn mutate(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.roll(4) {
            let at = self.roll(bytes.len() + 1);
            let end = (at + self.roll(9)).min(bytes.len());
            match self.roll(7) {
                0 if at < bytes.len() => bytes[at] = self.byte(),
                1 if at < bytes.len() => bytes[at] ^= 1 << self.roll(8),
                2 => bytes.insert(at, self.byte()),
                3 => drop(bytes.drain(at..end)),
                4 => bytes.truncate(at),
                5 => {
                    let again = bytes[at..end].to_vec();
                    bytes.splice(at..at, again);
                }
                _ => {
                    let from = self.roll(other.len());
                    let to = (from + self.roll(64)).min(other.len());
                    bytes.splice(at..end, other[from..to].iter().copied());
                }
            }
        }
        bytes
    }
}

/// What is said again of what was read.
type Read = dyn Fn(&[u8]) -> Option<Vec<u8>> + RefUnwindSafe;

/// What is fuzzed: valid bytes, those of their mutants that were read, and the reader. It panics where what it read
/// cannot be said again.
struct Target {
    name: &'static str,
    pool: Vec<Vec<u8>>,
    read: Box<Read>,
    run: u64,
    accepted: u64,
}

/// Most mutants kept of one target. Guess: enough to get deeper, few enough to come back to each.
const MOST_KEPT: usize = 256;

impl Target {
    fn of(sample: Sample) -> Self {
        let decode = sample.decode;
        let read = move |bytes: &[u8]| {
            let said = decode(bytes).ok()?;
            assert!(said.len() <= bytes.len(), "the shortest form is longer than another");
            assert_eq!(decode(&said).unwrap(), said, "said twice, it differs");
            Some(said)
        };
        Self { name: sample.name, pool: vec![sample.bytes], read: Box::new(read), run: 0, accepted: 0 }
    }

    /// Ticket texts as they are: spaces, capitals, and mostly a wrong checksum.
    fn texts(tickets: &[Ticket]) -> Self {
        let pool = tickets.iter().map(|ticket| ticket.to_text().unwrap().into_bytes()).collect();
        let read = |bytes: &[u8]| reads(&String::from_utf8_lossy(bytes)).then(|| bytes.to_vec());
        Self { name: "ticket's text", pool, read: Box::new(read), run: 0, accepted: 0 }
    }

    /// What is inside, under a right checksum.
    fn insides(tickets: &[Ticket]) -> Self {
        let inside = |ticket: &Ticket| {
            let text = ticket.to_text().unwrap().to_uppercase();
            let mut bytes = BASE32_NOPAD.decode(&text.as_bytes()[PREFIX.len()..]).unwrap();
            bytes.truncate(bytes.len() - 4);
            bytes
        };
        let read = |bytes: &[u8]| {
            let sum = blake3::hash(bytes);
            let whole = [bytes, &sum.as_bytes()[..4]].concat();
            let text = format!("{PREFIX}{}", BASE32_NOPAD.encode(&whole).to_lowercase());
            reads(&text).then(|| bytes.to_vec())
        };
        let pool = tickets.iter().map(inside).collect();
        Self { name: "ticket's inside", pool, read: Box::new(read), run: 0, accepted: 0 }
    }
}

/// Whether it is a ticket; then it is the same again.
fn reads(text: &str) -> bool {
    let Ok(ticket) = text.parse::<Ticket>() else { return false };
    assert_eq!(ticket.to_text().unwrap().parse::<Ticket>().unwrap(), ticket);
    true
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is no number")))
}

#[test]
#[ignore = "runs for MESH_FUZZ_SECONDS, 60 by default"]
fn mutated_frames_and_tickets_never_panic_and_what_is_read_can_be_said_again() {
    let (seconds, seed) = (number("MESH_FUZZ_SECONDS", 60), number("MESH_FUZZ_SEED", 1));
    let contact = Contact { node: key(2).id(), direct: vec![], relay: Some("https://relay.example".into()) };
    let mut far = ticket();
    far.contacts.push(contact);
    let tickets = [ticket(), far];
    let mut targets: Vec<Target> = samples().into_iter().map(Target::of).collect();
    targets.push(Target::texts(&tickets));
    targets.push(Target::insides(&tickets));

    let mut dice = Dice(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut case = 0u64;
    while Instant::now() < end {
        // The clock is looked at once in so many cases.
        for _ in 0..512 {
            case += 1;
            let (which, lender) = (dice.roll(targets.len()), dice.roll(targets.len()));
            let lender = &targets[lender].pool;
            let other = lender[dice.roll(lender.len())].clone();
            let target = &targets[which];
            let base = dice.roll(target.pool.len());
            let bytes = dice.mutate(&target.pool[base], &other);
            let read = catch_unwind(|| (target.read)(&bytes));
            let Ok(read) = read else {
                panic!("case {case} of seed {seed}, {}: {}", target.name, HEXLOWER.encode(&bytes));
            };
            let target = &mut targets[which];
            target.run += 1;
            target.accepted += u64::from(read.is_some());
            if let Some(said) = read.filter(|said| said.len() < 1 << 16) {
                if target.pool.len() < MOST_KEPT {
                    target.pool.push(said);
                } else {
                    // The first ones are the valid ones.
                    let at = 2 + dice.roll(MOST_KEPT - 2);
                    target.pool[at] = said;
                }
            }
        }
    }
    for target in &targets {
        println!("{:>12} run {:>12} accepted  {}", target.run, target.accepted, target.name);
        assert!(seconds == 0 || target.accepted > 0, "{}: no mutant was ever read", target.name);
    }
    let accepted: u64 = targets.iter().map(|target| target.accepted).sum();
    println!("{case} cases of seed {seed} in {seconds} s, {accepted} accepted");
    assert!(seconds == 0 || case > 1000);
}

//! The detector's constants; must not know who is watched.

use crate::time::Millis;

/// How quick the detector is. All in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Silence after which a peer is probed, and probed again. Default 500, as QUIC's keep-alive. Cost: where
    /// nothing else is said, two datagrams of some 60 bytes a peer and half second: 240 B/s.
    pub probe_every: Millis,
    /// Silence after which a peer is suspected and others are asked. Default 1200: two probes unanswered. Cost:
    /// a peer that stalls for longer gets no new requests until it is heard.
    pub suspect_after: Millis,
    /// Silence after which a suspected peer is declared dead. Default 2600: the promise is 3 s after a kill,
    /// less what a busy machine oversleeps; and the slowest living peer (1.5 s late) is silent for
    /// 1.5 s and a probe's 0.5 s. Cost: less kills the slow, more keeps clients waiting.
    pub dead_after: Millis,
    /// How many others are asked. Default 3, from the SWIM paper. Cost: as many probes per suspicion.
    pub helpers: usize,
    /// How long one voucher's word defers the declaration. Default 2000: others are asked again each
    /// [`Config::ask_every`], so that one lost answer does no harm. Cost: a peer that dies while it is cut
    /// off from here only is declared so much later.
    pub vouch_for: Millis,
    /// Between two questions to others about one suspect. Default 700.
    pub ask_every: Millis,
    /// How long others' words alone can keep a peer from being declared dead. Default 30,000, guess. Cost: as
    /// long do liars keep a dead peer suspected instead of dead, which nobody routes to either way.
    pub vouched_at_most: Millis,
    /// How much later than promised a wake-up may come before the node takes the silence for its own: then all
    /// clocks are moved by the delay. Default 300. Cost: added to the declaration when this node stalls.
    pub own_stall: Millis,
    /// How long a node that is not watched has to answer once it is looked at. Default 2600, as
    /// [`Config::dead_after`]: the slowest living peer's 1.5 s, and a lost probe. It is suspected, and so not routed
    /// to, from the accusation on.
    pub second_look: Millis,
    /// How long a node that is not watched has to refute an accusation before this node looks for itself. Default
    /// 1000: accusation and refutation cross 10,000 nodes in 0.7 s each, most of them in half of that. With 500 a third of
    /// a mesh dialled each node that a liar accused, and with 10,000 nodes and 25 liars that was most of all dials. Cost:
    /// added to the time in which a death is noticed by those who do not watch.
    pub refutable: Millis,
    /// Within how long after that all who do not watch look for themselves. Default 500. Cost: the same; less makes
    /// a bigger crowd at an accused node's door.
    pub look_within: Millis,
    /// Between two probes of the dead whose newer records still come in. Default 5000, guess. Cost: one dial.
    pub revisit_every: Millis,
    /// Between two refutations of accusations. Default 1000. Cost: bounds the records that liars can provoke.
    pub refute_every: Millis,
    /// How long the dead and the left are remembered. Default 60,000, guess: the directory's tombstones remember
    /// longer. Cost: 100 bytes each.
    pub forget_after: Millis,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            probe_every: Millis(500),
            suspect_after: Millis(1200),
            dead_after: Millis(2600),
            helpers: 3,
            vouch_for: Millis(2000),
            ask_every: Millis(700),
            vouched_at_most: Millis(30_000),
            own_stall: Millis(300),
            second_look: Millis(2600),
            refutable: Millis(1000),
            look_within: Millis(500),
            revisit_every: Millis(5000),
            refute_every: Millis(1000),
            forget_after: Millis(60_000),
        }
    }
}

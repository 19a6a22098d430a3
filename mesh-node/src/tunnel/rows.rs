//! Vectors and scores as reply frames, with heartbeats, and out of them again; must not know who listens or asks.

use std::{sync::Arc, time::Duration};

use engine::Engine;
use mesh_proto::{FinishReason, PoolRequest, PoolTask, Pooled, Usage, codec::Ext, infer::Reply, routing::HEARTBEAT};
use tokio::{sync::mpsc, time::interval};

/// Frames that the listener may leave unread: each is half a megabyte at most.
const ROOM: usize = 4;

/// Lets an engine do a task, and says what comes of it. Dropping the receiver cancels.
pub(crate) fn speak_rows(engine: Arc<dyn Engine>, request: PoolRequest) -> mpsc::Receiver<Reply> {
    let (replies, received) = mpsc::channel(ROOM);
    tokio::spawn(async move {
        let mut beats = interval(Duration::from_millis(HEARTBEAT.0));
        let mut pooling = engine.pool(request);
        let pooled = loop {
            tokio::select! {
                pooled = &mut pooling => break pooled,
                _ = beats.tick() => {
                    let progress = engine.load().steps;
                    if replies.send(Reply::Beat { progress }).await.is_err() {
                        return;
                    }
                }
                () = replies.closed() => return,
            }
        };
        let frames = match pooled {
            Ok(pooled) => frames(pooled),
            Err(error) => vec![Reply::Failed(error)],
        };
        for frame in frames {
            if replies.send(frame).await.is_err() {
                return;
            }
        }
    });
    received
}

/// All rows, in frames that are not too long, and the end.
fn frames(pooled: Pooled) -> Vec<Reply> {
    let Pooled { rows, prompt_tokens } = pooled;
    let mut frames = Vec::new();
    let (mut at, mut some, mut values) = (0, Vec::new(), 0);
    for row in rows {
        if !some.is_empty() && values + row.len() > Reply::MAX_VALUES {
            let rows = std::mem::take(&mut some);
            let next = at + u32::try_from(rows.len()).unwrap_or(u32::MAX);
            frames.push(Reply::Rows { at, rows });
            (at, values) = (next, 0);
        }
        values += row.len();
        some.push(row);
    }
    if !some.is_empty() {
        frames.push(Reply::Rows { at, rows: some });
    }
    frames.push(Reply::Finished {
        pieces: Vec::new(),
        logprobs: Vec::new(),
        reason: FinishReason::Stop,
        stop: None,
        usage: Usage { prompt_tokens, ..Usage::default() },
        ext: Ext::default(),
    });
    frames
}

/// The rows of one task as they come from one host.
#[derive(Debug, Default)]
pub(crate) struct Rows(Vec<Vec<f32>>);

impl Rows {
    /// More of them; says whether they go on where the last ones ended.
    pub(crate) fn take(&mut self, at: u32, rows: Vec<Vec<f32>>) -> bool {
        let in_step = at as usize == self.0.len();
        self.0.extend(rows);
        in_step && self.0.len() <= PoolTask::MAX_INPUTS
    }

    /// How many came.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The answer, if it is one to this task: a host's word alone does not make it so.
    pub(crate) fn whole(self, task: &PoolTask, prompt_tokens: u32) -> Option<Pooled> {
        let width = self.0.first().map_or(0, Vec::len);
        let fits = match task {
            PoolTask::Rerank { .. } => width == 1,
            PoolTask::Embed { dimensions, .. } => width > 0 && dimensions.is_none_or(|wanted| wanted as usize == width),
        };
        let alike = self.0.iter().all(|row| row.len() == width && row.iter().all(|value| value.is_finite()));
        (fits && alike && self.0.len() == task.rows()).then_some(Pooled { rows: self.0, prompt_tokens })
    }
}

#[cfg(test)]
mod tests {
    use mesh_proto::{PoolInputs, codec};

    use super::*;

    fn embed(texts: usize, dimensions: Option<u32>) -> PoolTask {
        PoolTask::Embed { inputs: PoolInputs::Texts(vec!["x".into(); texts]), dimensions }
    }

    /// Through the codec, as a peer hears them.
    fn told(pooled: Pooled) -> (Rows, u32) {
        let mut rows = Rows::default();
        for frame in frames(pooled) {
            let bytes = codec::encode(&frame).unwrap();
            match codec::decode::<Reply>(&bytes).unwrap() {
                Reply::Rows { at, rows: more } => assert!(rows.take(at, more)),
                Reply::Finished { usage, .. } => return (rows, usage.prompt_tokens),
                other => panic!("{other:?}"),
            }
        }
        panic!("no end")
    }

    #[test]
    fn rows_of_any_size_come_over_in_frames_that_a_peer_takes() {
        for (count, width) in [(1, 1), (3, 8), (2048, 1024), (2, Reply::MAX_VALUES), (1, 0)] {
            let rows: Vec<Vec<f32>> = (0..count).map(|at| vec![at as f32; width]).collect();
            let (heard, tokens) = told(Pooled { rows: rows.clone(), prompt_tokens: 7 });
            let whole = heard.whole(&embed(count, None), tokens);
            assert_eq!(whole, (width > 0).then_some(Pooled { rows, prompt_tokens: 7 }));
        }
    }

    #[test]
    fn what_is_no_answer_to_the_task_is_not_taken_for_one() {
        let rows = |rows: &[&[f32]]| Rows(rows.iter().map(|row| row.to_vec()).collect());
        assert!(rows(&[&[1.0], &[2.0]]).whole(&embed(2, None), 1).is_some());
        for (wrong, task) in [
            (rows(&[&[1.0]]), embed(2, None)),
            (rows(&[&[1.0], &[2.0, 3.0]]), embed(2, None)),
            (rows(&[&[f32::NAN]]), embed(1, None)),
            (rows(&[&[1.0]]), embed(1, Some(2))),
            (rows(&[&[1.0, 2.0]]), PoolTask::Rerank { query: "q".into(), documents: vec!["d".into()] }),
        ] {
            assert!(wrong.whole(&task, 1).is_none());
        }
        assert!(!Rows::default().take(1, vec![vec![1.0]]));
    }
}

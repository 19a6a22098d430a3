//! `/v1/embeddings` and `/v1/rerank` behind the real listener, and between nodes of one process.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
#[cfg(unix)]
mod hostile_support;

use std::sync::Arc;

use common::{
    Node, ScriptEngine,
    script_pool::{WIDTH, score, vector},
    until,
};
use data_encoding::BASE64;
use mesh_node::{api, local::LocalEngines, router::Router, server};
use mesh_proto::{PoolTask, routing::AttemptConfig};
use serde_json::{Value, json};

const MODEL: &str = "org/script";

async fn embed(node: &Node, fields: Value) -> (u16, Value) {
    ask(node, "/v1/embeddings", fields).await
}

async fn ask(node: &Node, path: &str, fields: Value) -> (u16, Value) {
    let mut body = json!({ "model": MODEL });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let response = node.post(path, body.to_string()).await;
    (response.status().as_u16(), response.json().await.unwrap())
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

#[tokio::test]
async fn texts_and_tokens_come_back_as_vectors_in_their_order() {
    let node = Node::start().await;
    let (status, answer) = embed(&node, json!({ "input": ["one", "two", "one"] })).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["object"], &answer["model"]), (&json!("list"), &json!(MODEL)));
    assert_eq!(answer["usage"], json!({ "prompt_tokens": 9, "total_tokens": 9 }));
    let data = answer["data"].as_array().unwrap();
    for (at, text) in ["one", "two", "one"].iter().enumerate() {
        assert_eq!((&data[at]["object"], &data[at]["index"]), (&json!("embedding"), &json!(at)));
        assert_eq!(floats(&data[at]["embedding"]), vector(text));
    }
    let tokens: Vec<u8> = b"two".to_vec();
    for input in [json!(tokens), json!([tokens])] {
        let (_, answer) = embed(&node, json!({ "input": input })).await;
        assert_eq!(floats(&answer["data"][0]["embedding"]), vector("two"));
    }
    let (_, answer) = embed(&node, json!({ "input": "two", "encoding_format": "base64" })).await;
    let bytes = BASE64.decode(answer["data"][0]["embedding"].as_str().unwrap().as_bytes()).unwrap();
    let read: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
    assert_eq!(read, vector("two"));
    let (_, answer) = embed(&node, json!({ "input": "two", "dimensions": 3 })).await;
    let cut = floats(&answer["data"][0]["embedding"]);
    let length: f32 = cut.iter().map(|value| value * value).sum();
    assert!(cut.len() == 3 && (length - 1.0).abs() < 1e-6, "{cut:?}");
    let whole = vector("two");
    assert!((cut[0] / cut[1] - whole[0] / whole[1]).abs() < 1e-5);
}

#[tokio::test]
async fn what_cannot_be_embedded_is_told_with_the_field_and_a_clients_status() {
    let node = Node::start().await;
    let many = vec!["a"; PoolTask::MAX_INPUTS + 1];
    for (fields, param, status) in [
        (json!({ "input": "" }), "input", 400),
        (json!({ "input": many }), "input", 400),
        (json!({ "input": "a", "dimensions": WIDTH + 1 }), "dimensions", 400),
        (json!({ "input": "a", "normalize": false }), "normalize", 400),
        (json!({ "input": "a", "model": "nobody" }), "model", 404),
    ] {
        let (got, answer) = embed(&node, fields.clone()).await;
        assert_eq!((got, answer["error"]["param"].as_str()), (status, Some(param)), "{answer}");
    }
    let (status, answer) = embed(&node, json!({ "input": "x".repeat(5000) })).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
    let (status, answer) = embed(&node, json!({ "input": "#BUSY" })).await;
    assert_eq!((status, &answer["error"]["code"]), (429, &json!("busy")), "{answer}");
    let (status, answer) = embed(&node, json!({ "input": "#FAIL" })).await;
    assert_eq!((status, &answer["error"]["code"]), (500, &json!("engine_failed")), "{answer}");
    let metrics = node.get("/metrics").await.text().await.unwrap();
    for line in [
        "mesh_llm_poolings_total{model=\"org/script\",task=\"embeddings\",end=\"busy\"} 1",
        "mesh_llm_poolings_total{model=\"org/script\",task=\"embeddings\",end=\"engine_failed\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[tokio::test]
async fn documents_come_back_ranked_and_both_paths_are_one() {
    let node = Node::start().await;
    let documents = ["the sea", "a blue sky", "blue", "sky"];
    for path in ["/v1/rerank", "/rerank"] {
        let body = json!({ "query": "blue sky", "documents": documents, "top_n": 3, "return_documents": true });
        let (status, answer) = ask(&node, path, body).await;
        assert_eq!(status, 200, "{answer}");
        let results = answer["results"].as_array().unwrap();
        let order: Vec<u64> = results.iter().map(|result| result["index"].as_u64().unwrap()).collect();
        assert_eq!(order, [1, 2, 3]);
        assert_eq!(results[0]["relevance_score"], json!(score("blue sky", documents[1])));
        assert_eq!(results[0]["document"], json!({ "text": documents[1] }));
        assert_eq!(answer["usage"]["prompt_tokens"], json!(documents.concat().len()));
    }
    let (status, answer) = ask(&node, "/v1/rerank", json!({ "query": "x", "documents": ["a"], "top_n": 0 })).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("top_n")));
}

#[tokio::test]
async fn keys_are_asked_for_here_too() {
    let node = Node::start_with(&["secret"]).await;
    for path in ["/v1/embeddings", "/v1/rerank", "/rerank"] {
        assert_eq!(node.post(path, "{}").await.status(), 401, "{path}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels() {
    let node = Node::start().await;
    let asked = node.client.post(format!("{}/v1/embeddings", node.url));
    let asked = asked.body(json!({ "model": MODEL, "input": "#HANG" }).to_string());
    let waiting = tokio::spawn(asked.send());
    until("it runs", || node.engine.running() == 1).await;
    waiting.abort();
    until("it is cancelled", || node.engine.running() == 0 && node.engine.cancelled() == 1).await;
}

#[tokio::test]
async fn a_model_that_was_not_made_for_it_is_refused_by_name() {
    mesh_node::choose_tls();
    let locals = LocalEngines::default();
    assert!(locals.add_served(common::served(Arc::new(ScriptEngine::plain("plain")))));
    let listener = server::bind("127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new(locals, AttemptConfig::default());
    let routes = api::routes(router, api::Door { keys: api::Keys::new([]), address: Some(address) });
    let server = tokio::spawn(server::serve(listener, routes, std::future::pending()));
    for (path, body) in [
        ("/v1/embeddings", json!({ "model": "plain", "input": "a" })),
        ("/v1/rerank", json!({ "model": "plain", "query": "a", "documents": ["b"] })),
    ] {
        let post = reqwest::Client::new().post(format!("http://{address}{path}")).body(body.to_string());
        let response = post.send().await.unwrap();
        assert_eq!(response.status(), 400, "{path}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["param"], "model", "{answer}");
    }
    server.abort();
}

#[cfg(unix)]
mod between_nodes {
    use std::sync::atomic::Ordering::SeqCst;

    use mesh_node::router::Made;
    use mesh_proto::{
        GenerateError, ModelId, PoolInputs, PoolRequest, RequestId,
        codec::{self, Ext},
        infer::{Ask, Reply},
        record::{Capabilities, Load, ServedModel},
    };
    use tokio::time::timeout;

    use super::*;
    use crate::hostile_support::{Act, Honest, Member, Node, PATIENCE, ask_raw, framed, reply};

    fn request(task: PoolTask) -> PoolRequest {
        PoolRequest { id: RequestId("r".into()), model: ModelId::new(MODEL), task }
    }

    fn texts(texts: &[&str]) -> PoolTask {
        PoolTask::Embed { inputs: PoolInputs::Texts(texts.iter().map(|&text| text.into()).collect()), dimensions: None }
    }

    async fn pool(node: &Node, task: PoolTask) -> Result<Made, GenerateError> {
        let target = node.router.find(&ModelId::new(MODEL)).await.unwrap();
        timeout(PATIENCE, node.router.pool(&target, request(task))).await.expect("an answer in time")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_door_answers_what_its_host_makes() {
        let honest = Honest::new().await;
        let many: Vec<String> = (0..PoolTask::MAX_INPUTS).map(|at| format!("text {at}")).collect();
        let refs: Vec<&str> = many.iter().map(String::as_str).collect();
        let made = pool(&honest.door, texts(&refs)).await.unwrap();
        assert!(made.pooled.rows == many.iter().map(|text| vector(text)).collect::<Vec<_>>(), "each its own");
        assert_eq!(made.pooled.prompt_tokens as usize, many.concat().len());
        assert_eq!(made.trace.now().unwrap().0, honest.host.id());
        let documents = vec!["a blue sky".to_owned(), "the sea".to_owned()];
        let rerank = PoolTask::Rerank { query: "blue sky".into(), documents };
        let made = pool(&honest.door, rerank).await.unwrap();
        assert_eq!(made.pooled.rows, [[1.0], [0.0]]);
        // The host's words about a request are the client's to read.
        let refused = pool(&honest.door, texts(&["a", ""])).await.unwrap_err();
        assert!(matches!(&refused, GenerateError::Invalid { field, .. } if field == "input"), "{refused:?}");
        let wide = PoolTask::Embed { inputs: PoolInputs::Texts(vec!["a".into()]), dimensions: Some(9) };
        let refused = pool(&honest.door, wide).await.unwrap_err();
        assert!(matches!(&refused, GenerateError::Invalid { field, .. } if field == "dimensions"), "{refused:?}");
        honest.are_well().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_client_that_leaves_a_door_cancels_at_the_host() {
        let honest = Honest::new().await;
        let engine = honest.host.engine.clone().unwrap();
        let target = honest.door.router.find(&ModelId::new(MODEL)).await.unwrap();
        let router = honest.door.router.clone();
        let waiting = tokio::spawn(async move { router.pool(&target, request(texts(&["#HANG"]))).await.map(drop) });
        honest.host.until("it runs", |_| engine.running() == 1).await;
        waiting.abort();
        honest.host.until("it is cancelled", |_| engine.running() == 0 && engine.cancelled() == 1).await;
        honest.are_well().await;
    }

    /// A member that says that it serves the host's model, idly and quickly, so that it is asked first.
    fn like(model: ServedModel, capabilities: Capabilities) -> ServedModel {
        ServedModel { capabilities, load: Load { ttft_ms: 1, ..Load::default() }, max_concurrency: 10_000, ..model }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_host_that_breaks_off_or_lies_is_followed_by_the_next() {
        let honest = Honest::new().await;
        let rows = |at, rows| Act::Say(Reply::Rows { at, rows });
        let finished = || {
            let usage = Default::default();
            let (pieces, logprobs, ext) = (Vec::new(), Vec::new(), Ext::default());
            let reason = mesh_proto::FinishReason::Stop;
            Act::Say(Reply::Finished { pieces, logprobs, reason, stop: None, usage, ext })
        };
        let lies: Vec<Vec<Act>> = vec![
            vec![rows(0, vec![vec![9.0; WIDTH]]), Act::Reset],
            vec![rows(1, vec![vec![9.0; WIDTH]]), finished()],
            vec![rows(0, vec![vec![9.0; WIDTH]]), finished()],
            vec![rows(0, vec![vec![9.0; WIDTH], vec![9.0]]), finished()],
            vec![rows(0, vec![vec![f32::NAN; WIDTH]; 2]), finished()],
            vec![Act::Say(Reply::Failed(GenerateError::Engine("lost".into())))],
            vec![Act::Hang],
        ];
        for (at, lie) in lies.into_iter().enumerate() {
            let said = lie.clone();
            let liar = Member::answering(&honest.ticket, Arc::new(move |_: &Ask| said.clone())).await;
            let model = honest.door.word_of(&honest.host.id());
            let can = model.capabilities;
            let _link = liar.publish(vec![like(model, can)]).await;
            honest.door.owners(MODEL, &[honest.host.id(), liar.id()]).await;
            // Chance decides who is asked first; some of so many are asked of the liar.
            let asked = async {
                while liar.heard.asks.load(SeqCst) == 0 {
                    let made = pool(&honest.door, texts(&["one", "two"])).await.unwrap();
                    assert_eq!(made.pooled.rows, [vector("one"), vector("two")], "lie {at}");
                    assert_eq!(made.trace.now().unwrap().0, honest.host.id());
                }
            };
            timeout(PATIENCE, asked).await.expect("the liar is asked");
            let _link = liar.publish(vec![]).await;
            honest.door.owners(MODEL, &[honest.host.id()]).await;
        }
        honest.are_well().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_host_of_an_earlier_release_is_not_asked_and_would_refuse_by_name() {
        let honest = Honest::new().await;
        let earlier = Member::answering(&honest.ticket, Arc::new(|_: &Ask| vec![Act::Reset])).await;
        let model = honest.door.word_of(&honest.host.id());
        let can = Capabilities::CHAT.and(Capabilities::RESUME);
        let _link = earlier.publish(vec![like(model, can)]).await;
        honest.door.owners(MODEL, &[honest.host.id(), earlier.id()]).await;
        for _ in 0..20 {
            let made = pool(&honest.door, texts(&["one"])).await.unwrap();
            assert_eq!(made.trace.now().unwrap().0, honest.host.id());
        }
        assert_eq!(earlier.heard.asks.load(SeqCst), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_ask_without_its_task_and_one_that_breaks_caps_are_turned_away() {
        let honest = Honest::new().await;
        let member = Member::new(&honest.ticket).await;
        let key = honest.host.locals.all().values().next().unwrap().key();
        let ask = codec::encode(&Ask::pool(RequestId::default(), ModelId::new(MODEL), key)).unwrap();
        let connection = member.asking().await;
        let task = |bytes: &[u8]| [framed(&ask), framed(bytes)].concat();
        for bytes in [framed(&ask), task(&[1, 0, 0]), task(&[7])] {
            let (mut send, mut stream) = ask_raw(&connection, &bytes).await;
            let _ = send.finish();
            assert!(reply(&mut stream).await.is_err(), "nothing but a reset");
        }
        let (_send, mut stream) = ask_raw(&connection, &task(&[1, 9, 9])).await;
        let later = reply(&mut stream).await.unwrap();
        let named = |error: &GenerateError| matches!(error, GenerateError::Invalid { field, .. } if field == "task");
        assert!(matches!(&later, Reply::Failed(error) if named(error)), "{later:?}");
        let good = codec::encode(&texts(&["one"])).unwrap();
        let (_send, mut stream) = ask_raw(&connection, &task(&good)).await;
        let rows = loop {
            match reply(&mut stream).await.unwrap() {
                Reply::Beat { .. } => {}
                Reply::Rows { at: 0, rows } => break rows,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(rows, [vector("one")]);
        honest.are_well().await;
    }
}

//! What several tests build: keys, a mesh's founder, records; must not decide anything.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use mesh_proto::{
    Channel, ChatPrompt, Constraint, Dry, FinishReason, GenerateError, GenerateRequest, Likelihood, LogitBias, Message,
    ModelId, PoolInputs, PoolTask, Prompt, RequestId, Role, Sampling, TokenId, TokenLogprob, ToolCall, ToolCallDelta,
    ToolChoice, ToolDefinition, Usage,
    codec::{self, CodecError, Ext, Wire},
    directory::*,
    files::{FileName, FileState, FileSum, FilesAsk, FilesReply},
    identity::*,
    infer::{Ask, Piece, Reply},
    placement::ModelKey,
    record::*,
    suspicion::ProbeFrame,
    time::*,
};

/// 14 November 2023, the day on which all of these tests happen.
pub const DAY: UnixMillis = UnixMillis(1_700_000_000_000);

pub fn key(number: u64) -> NodeKey {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    NodeKey::from_seed(seed)
}

pub fn founder() -> Admission {
    Admission::found(key(0), DAY).unwrap()
}

pub fn mesh() -> MeshId {
    MeshId::of(&key(0).id())
}

pub fn session(joiner: &NodeKey) -> Session {
    Session { joiner: joiner.id(), exporter: [9; 32] }
}

/// Lets `joiner` in.
pub fn member(desk: &mut Admission, joiner: &NodeKey, terms: &Terms) -> CertChain {
    let invitation = desk.invite(terms, DAY).unwrap();
    let ticket = Ticket::new(vec![], invitation, desk.secret(&terms.nonce));
    let session = session(joiner);
    let request = AdmitRequest::join(&ticket, &session);
    let reply = desk.answer(&request, &session, &Revocations::new(desk.mesh()), DAY);
    reply.accept(&ticket, &session, DAY).unwrap()
}

pub fn server(desk: &mut Admission, joiner: &NodeKey) -> CertChain {
    member(desk, joiner, &Terms::new(MemberRole::Serve, Nonce([1; 16])))
}

pub fn at(local: u64) -> Now {
    Now::new(Millis(local), DAY.after(Millis(local)))
}

/// A record without models, signed at `issued`.
pub fn bare(key: &NodeKey, chain: &CertChain, sequence: u64, issued: Now) -> Record {
    Record {
        mesh: MeshId::of(&chain.root),
        node: key.id(),
        version: Version { incarnation: DAY.0, sequence },
        issued_at: issued.unix,
        lifetime: Millis::secs(7),
        chain: chain.clone(),
        build: Build { release: "0.1.0".into(), protocols: vec!["mesh-llm/infer/1".into()] },
        contact: Contact { node: key.id(), direct: vec!["127.0.0.1:4000".parse().unwrap()], relay: None },
        draining: false,
        memory: Memory { budget: 1 << 34, free: 1 << 33, bandwidth: 0 },
        models: vec![],
        demand: vec![],
        claims: vec![],
        prefixes: vec![],
        ext: Ext::default(),
    }
}

/// A record with one of everything.
pub fn full(key: &NodeKey, chain: &CertChain) -> Record {
    let identity = ModelIdentity {
        repository: "org/tiny".into(),
        revision: "abc".into(),
        quantization: "4-bit".into(),
        content: [5; 32],
    };
    let model = identity.key();
    Record {
        models: vec![ServedModel {
            id: ModelId::new("tiny"),
            identity,
            engine: "mlx".into(),
            family: "qwen3".into(),
            state: ModelState::Ready,
            context_tokens: 4096,
            max_concurrency: 8,
            weight_bytes: 1 << 20,
            capabilities: Capabilities::CHAT.and(Capabilities::TOOLS),
            vocab_size: 32_000,
            created: DAY.0 / 1000,
            defaults: Recommended::of(&Sampling { temperature: 0.5, top_k: 20, ..Sampling::default() }),
            load: Load { in_flight: 2, queued: 1, free_kv_bytes: 1000, tokens_per_kilosecond: 50_000, ttft_ms: 120 },
            ext: Ext::default(),
        }],
        demand: vec![Demand { model: ModelId::new("tiny"), requests_per_kilosecond: 1500 }],
        claims: vec![Claim { model, slot: 0, term: 3, weight: 16, serving: true, ext: Ext::default() }],
        prefixes: vec![PrefixSketch { model, kind: 1, bytes: vec![0xAA, 0xBB] }],
        ext: Ext::default().with(900, b"later".to_vec()),
        ..bare(key, chain, 7, at(0))
    }
}

pub fn aged(record: &Record, key: &NodeKey, age: u64) -> Aged {
    Aged { age: Millis(age), record: Signed::sign(record, key).unwrap() }
}

pub fn announce(aged: Aged) -> Vec<u8> {
    codec::encode(&Announce { aged, ext: Ext::default() }).unwrap()
}

/// One value of each kind on the wire: name, bytes, and its decoder.
pub struct Sample {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub decode: fn(&[u8]) -> Result<Vec<u8>, CodecError>,
}

/// Whatever is read can be said again.
fn again<T: Wire>(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    codec::decode::<T>(bytes).map(|value| codec::encode(&value).unwrap())
}

fn sample<T: Wire>(name: &'static str, value: &T) -> Sample {
    Sample { name, bytes: codec::encode(value).unwrap(), decode: again::<T> }
}

pub fn samples() -> Vec<Sample> {
    let mut desk = founder();
    let (joiner, terms) = (key(1), Terms::new(MemberRole::Serve, Nonce([7; 16])));
    let invitation = desk.invite(&terms, DAY).unwrap();
    let ticket = Ticket::new(vec![], invitation.clone(), desk.secret(&terms.nonce));
    let session = session(&joiner);
    let join = AdmitRequest::join(&ticket, &session);
    let admitted = desk.answer(&join, &session, &Revocations::new(mesh()), DAY);
    let chain = admitted.accept(&ticket, &session, DAY).unwrap();
    let record = full(&joiner, &chain);
    let aged = aged(&record, &joiner, 250);
    let list = RevocationList {
        nodes: vec![key(5).id()],
        serials: vec![[6; 16]],
        invitations: vec![Nonce([7; 16])],
        ..RevocationList::empty(mesh()).next(DAY)
    };
    let signed = Signed::sign(&list, &key(0)).unwrap();
    let version = record.version;
    let node = joiner.id();
    let ext = Ext::default;
    let digest = RangeDigest { range: Range { bits: 4, prefix: 0x3000 }, count: 300, sum: [0xEE; 16] };
    vec![
        sample("invitation", &invitation.claim().unwrap()),
        sample("membership certificate", &chain.member.claim().unwrap()),
        sample("certificate chain", &chain),
        sample("admission request: join", &join),
        sample("admission request: renew", &AdmitRequest::Renew { chain: chain.clone(), ext: ext() }),
        sample("admission request: hello", &AdmitRequest::Hello { chain: chain.clone(), ext: ext() }),
        sample("admission reply: admitted", &admitted),
        sample("admission reply: refused", &AdmitReply::refused(AdmitRefusal::Expired)),
        sample("admission reply: welcome", &AdmitReply::Welcome { chain: chain.clone(), ext: ext() }),
        sample("revocation list", &list),
        sample("record", &record),
        sample("announcement", &Announce { aged: aged.clone(), ext: ext() }),
        sample("sync: digest", &SyncFrame::Digest { ranges: vec![digest], revocations: 1, more: false, ext: ext() }),
        sample(
            "sync: items",
            &SyncFrame::Items { ranges: vec![Range::ALL], items: vec![Item { node, version }], ext: ext() },
        ),
        sample("sync: want", &SyncFrame::Want { nodes: vec![node], ext: ext() }),
        sample("sync: records", &SyncFrame::Records { records: vec![aged], more: true, ext: ext() }),
        sample("sync: revocations", &SyncFrame::Revocations { root: key(0).id(), list: signed, ext: ext() }),
        sample("probe: ping", &ProbeFrame::Ping(300)),
        sample("probe: pong", &ProbeFrame::Pong(300)),
        sample("probe: ask", &ProbeFrame::Ask(node)),
        sample("probe: vouch", &ProbeFrame::Vouch(node)),
        sample("probe: accuse", &ProbeFrame::Accuse { node, incarnation: DAY.0 }),
        sample("probe: leave", &ProbeFrame::Leave { incarnation: DAY.0 }),
        sample("ask of a chat", &chat_ask()),
        sample("ask to go on", &resuming_ask()),
        sample("reply: accepted", &Reply::Accepted { prompt_tokens: 300, ext: ext() }),
        sample("reply: beat", &Reply::Beat { progress: 300 }),
        sample("reply: tokens", &tokens_reply()),
        sample("reply: finished", &finished_reply()),
        sample("ask to pool", &pool_ask()),
        sample("pool task: embed texts", &embed_texts()),
        sample("pool task: embed tokens", &embed_tokens()),
        sample("pool task: rerank", &rerank()),
        sample("reply: rows", &Reply::Rows { at: 300, rows: vec![vec![0.5, -1.0], vec![0.25, 2.0]] }),
        sample("reply: failed", &Reply::Failed(GenerateError::Busy { waiting: 9, retry_after_s: 2 })),
        sample("files ask", &files_ask()),
        sample("files reply", &files_reply()),
    ]
}

/// An ask that a task follows, and the tasks there are.
pub fn pool_ask() -> Ask {
    Ask::pool(RequestId("req-2".into()), ModelId::new("tiny"), ModelKey([5; 32]))
}

pub fn embed_texts() -> PoolTask {
    PoolTask::Embed { inputs: PoolInputs::Texts(vec!["one".into(), "two".into()]), dimensions: Some(300) }
}

pub fn embed_tokens() -> PoolTask {
    PoolTask::Embed { inputs: PoolInputs::Tokens(vec![vec![TokenId(1), TokenId(300)]]), dimensions: None }
}

pub fn rerank() -> PoolTask {
    PoolTask::Rerank { query: "sky".into(), documents: vec!["blue".into(), "wet".into()] }
}

/// A question about a large file and a small one.
pub fn files_ask() -> FilesAsk {
    let large = FileName { sum: FileSum::Sha256([5; 32]), bytes: 2_400_000_000 };
    let small = FileName { sum: FileSum::Git([6; 20]), bytes: 300 };
    FilesAsk { repo: "org/tiny".into(), files: vec![large, small], wants: true, ext: Ext::default() }
}

/// One of every answer.
pub fn files_reply() -> FilesReply {
    let here = FileState::Here { root: [7; 32] };
    let files = vec![FileState::Absent, FileState::Wanted, FileState::Coming { progress: 300 }, here];
    FilesReply { files, ext: Ext::default().with(901, vec![1]) }
}

/// A request with one of everything but `resume`.
pub fn chat_ask() -> Ask {
    let call = ToolCall { id: "call_1".into(), name: "look".into(), arguments: "{}".into() };
    let messages = vec![
        Message::text(Role::User, "What is above?"),
        Message { tool_calls: vec![call], content: None, ..Message::text(Role::Assistant, "") },
        Message { tool_call_id: Some("call_1".into()), ..Message::text(Role::Tool, "sky") },
    ];
    let tools = vec![ToolDefinition { name: "look".into(), json: "{\"type\":\"function\"}".into() }];
    let prompt = Prompt::Chat(ChatPrompt {
        messages,
        tools,
        enable_thinking: Some(false),
        reasoning_effort: Some("low".into()),
        reasoning_budget: Some(300),
        variables: vec![("today".into(), "\"Friday\"".into())],
    });
    let dry = Dry { multiplier: 0.8, base: 1.75, allowed_length: 2, last_n: None, breakers: vec!["\n".into()] };
    let bias = LogitBias { token: TokenId(5), bias: -100.0 };
    let request = GenerateRequest {
        id: RequestId("req-1".into()),
        sampling: Sampling {
            temperature: 0.5,
            seed: Some(7),
            logit_bias: vec![bias],
            dry: Some(dry),
            ..Sampling::default()
        },
        tool_choice: ToolChoice::Named("look".into()),
        parallel_tool_calls: false,
        constraint: Some(Constraint::JsonSchema("{}".into())),
        logprobs: Some(2),
        max_tokens: Some(300),
        min_tokens: 4,
        stop: vec!["END".into()],
        ..GenerateRequest::new(ModelId::new("tiny"), prompt)
    };
    Ask { request, model: model_key(5), deadline: Some(Millis::secs(60)), ext: Ext::default().with(901, vec![1]) }
}

/// A greedy request that goes on behind three tokens.
pub fn resuming_ask() -> Ask {
    let prompt = Prompt::Tokens(vec![TokenId(1), TokenId(70_000)]);
    let resume = vec![TokenId(300), TokenId(2), TokenId(3)];
    let request = GenerateRequest { resume, ..GenerateRequest::new(ModelId::new("tiny"), prompt) };
    Ask { request, model: model_key(5), deadline: None, ext: Ext::default() }
}

pub fn tokens_reply() -> Reply {
    let call = ToolCallDelta { index: 0, id: Some("call_1".into()), name: Some("look".into()), arguments: "{}".into() };
    let text = Piece::Text { channel: Channel::Reasoning, text: "hm".into() };
    let like = |token, logprob| Likelihood { token: TokenId(token), bytes: vec![0xC3], logprob };
    let likely = TokenLogprob { chosen: like(300, -0.5), top: vec![like(4, -0.25)] };
    Reply::Tokens {
        at: 3,
        tokens: vec![TokenId(300), TokenId(4)],
        pieces: vec![text, Piece::ToolCall(call)],
        logprobs: vec![likely],
    }
}

pub fn finished_reply() -> Reply {
    Reply::Finished {
        logprobs: vec![],
        pieces: vec![Piece::Text { channel: Channel::Content, text: "EN".into() }],
        reason: FinishReason::Stop,
        stop: Some("END".into()),
        usage: Usage { prompt_tokens: 300, cached_tokens: 256, completion_tokens: 12, reasoning_tokens: 4 },
        ext: Ext::default(),
    }
}

/// A ticket as one would be sent.
pub fn ticket() -> Ticket {
    let desk = founder();
    let terms = Terms::new(MemberRole::Serve, Nonce([7; 16]));
    let contact = Contact { node: key(0).id(), direct: vec!["192.168.1.20:4001".parse().unwrap()], relay: None };
    Ticket::new(vec![contact], desk.invite(&terms, DAY).unwrap(), desk.secret(&terms.nonce))
}

pub fn model_key(byte: u8) -> ModelKey {
    ModelKey([byte; 32])
}

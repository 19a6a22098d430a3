//! The bundled model in a real llama-server, and what it says.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "each test file uses its part; a test's helpers may fail loudly, and say what they skip"
)]

use std::{path::PathBuf, time::Duration};

use engine::{Engine, EngineLoad};
use mesh_proto::{
    Channel, ChatPrompt, Event, FinishReason, GenerateError, GenerateRequest, Message, ModelId, Prompt, Role, TokenId,
    Usage,
};
use runtime_gguf_bridge::{GgufEngine, GgufOptions, start};

pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny")
}

/// `None`: this machine has no llama-server, which a CI machine may not lack.
pub fn options() -> Option<GgufOptions> {
    let Some(binary) = std::env::var_os("MESH_LLM_TEST_LLAMA_SERVER") else {
        assert!(std::env::var_os("CI").is_none(), "MESH_LLM_TEST_LLAMA_SERVER is not set");
        eprintln!("skipped: MESH_LLM_TEST_LLAMA_SERVER is not set");
        return None;
    };
    Some(GgufOptions {
        files: catalog::open_gguf(&folder(), None).unwrap(),
        llama_server: Some(binary.into()),
        guard: vec![env!("CARGO_BIN_EXE_gguf-guard").into()],
        context_tokens: None,
        parallel: 4,
        max_waiting: 1000,
        max_memory: Some(1 << 30),
        sharers: 1,
        kv_bits: None,
        gpu_layers: None,
        draft: None,
        extra: vec!["-t".into(), "1".into()],
    })
}

pub async fn serve(options: GgufOptions) -> GgufEngine {
    start(options, &mut |_| {}).await.unwrap().engine
}

pub fn ask(text: &str) -> GenerateRequest {
    let chat = ChatPrompt { messages: vec![Message::text(Role::User, text)], ..ChatPrompt::default() };
    GenerateRequest::new(ModelId::new("mesh-tiny"), Prompt::Chat(chat))
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub content: String,
    pub reasoning: String,
    pub tokens: Vec<TokenId>,
    pub usage: Usage,
    pub reason: Option<FinishReason>,
}

pub async fn answer(engine: &GgufEngine, request: GenerateRequest) -> Result<Answer, GenerateError> {
    let mut generation = engine.generate(request).await?;
    let mut answer = Answer::default();
    while let Some(event) = generation.next().await {
        match event {
            Event::Started { .. } => {}
            Event::Text { channel, text, tokens, .. } => {
                match channel {
                    Channel::Content => answer.content += &text,
                    Channel::Reasoning => answer.reasoning += &text,
                }
                answer.tokens.extend(tokens);
            }
            Event::ToolCall { tokens, .. } => answer.tokens.extend(tokens),
            Event::Finished { reason, usage, .. } => (answer.reason, answer.usage) = (Some(reason), usage),
            Event::Failed(error) => return Err(error),
        }
    }
    Ok(answer)
}

pub async fn idle(engine: &GgufEngine) {
    for _ in 0..500 {
        let EngineLoad { running, waiting, kv_bytes, .. } = engine.load();
        if (running, waiting, kv_bytes) == (0, 0, 0) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?} is still there", engine.load());
}

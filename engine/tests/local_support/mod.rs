//! What the local engine's tests share: an engine over a script, requests in bytes, and answers read to their end.
#![allow(dead_code, unreachable_pub)]

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use engine::{
    Engine, EngineLoad, Generation, LocalEngine, LocalOptions,
    script::{self, Probe, Script, ScriptDecoder, ScriptOptions},
    text::TextModel,
};
use mesh_proto::{Event, FinishReason, GenerateError, GenerateRequest, ModelId, Prompt, Sampling, TokenId, Usage};

/// `!` ends what is echoed.
pub const ECHO: TokenId = TokenId(b'!' as u32);

pub fn text() -> Arc<TextModel> {
    static TEXT: OnceLock<Arc<TextModel>> = OnceLock::new();
    let load = || {
        let dir = tempfile::tempdir().unwrap();
        script::write_text_model(dir.path()).unwrap();
        Arc::new(TextModel::load(dir.path()).unwrap())
    };
    TEXT.get_or_init(load).clone()
}

/// A script that echoes the prompt up to its first `!`.
pub fn echo() -> Script {
    Script::echo(ECHO, script::END)
}

/// Small, so that limits are met: everything else as by default.
pub fn small() -> LocalOptions {
    LocalOptions { max_running: 4, max_waiting: 4, step_tokens: 16, ..LocalOptions::default() }
}

pub struct Bench {
    pub engine: LocalEngine,
    pub probe: Probe,
}

pub fn start(script: Script, local: LocalOptions, options: ScriptOptions) -> Bench {
    let probe = Probe::default();
    let theirs = probe.clone();
    let make = move || {
        let mut descriptor = script::descriptor("script");
        descriptor.context_tokens = options.limits.context_tokens;
        Ok::<_, std::io::Error>((ScriptDecoder::new(script, options, theirs), descriptor))
    };
    let engine = LocalEngine::start(text(), vec![script::END], local, make).unwrap();
    Bench { engine, probe }
}

pub fn request(prompt: &str) -> GenerateRequest {
    let sampling = Sampling { seed: Some(1), ..Sampling::default() };
    let prompt = Prompt::Tokens(script::byte_tokens(prompt));
    GenerateRequest { sampling, ..GenerateRequest::new(ModelId::new("script"), prompt) }
}

/// All that a generation said, its order checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub text: String,
    /// The tokens of its text events.
    pub tokens: Vec<TokenId>,
    pub prompt_tokens: u32,
    pub end: Result<(FinishReason, Option<String>, Usage), GenerateError>,
}

impl Said {
    pub fn reason(&self) -> FinishReason {
        self.end.as_ref().unwrap().0
    }

    pub fn usage(&self) -> Usage {
        self.end.as_ref().unwrap().2
    }
}

/// Reads a generation to its end.
pub async fn read(mut generation: Generation) -> Said {
    let Some(Event::Started { prompt_tokens }) = next(&mut generation).await else { panic!("not started") };
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let end = loop {
        match next(&mut generation).await.expect("an end") {
            Event::Text { text: more, tokens: with, .. } => {
                assert!(!more.is_empty());
                text += &more;
                tokens.extend(with);
            }
            Event::ToolCall { .. } => {}
            Event::Finished { reason, stop, usage } => break Ok((reason, stop, usage)),
            Event::Failed(error) => break Err(error),
            Event::Started { .. } => panic!("started twice"),
        }
    };
    assert_eq!(next(&mut generation).await, None, "nothing after the end");
    Said { text, tokens, prompt_tokens, end }
}

/// The next event, which must not take for ever.
pub async fn next(generation: &mut Generation) -> Option<Event> {
    tokio::time::timeout(Duration::from_secs(20), generation.next()).await.expect("an event within 20 s")
}

impl Bench {
    pub async fn generate(&self, request: GenerateRequest) -> Generation {
        self.engine.generate(request).await.unwrap()
    }

    pub async fn ask(&self, request: GenerateRequest) -> Said {
        read(self.generate(request).await).await
    }

    /// Waits until the engine's load is as it should be.
    pub async fn until(&self, what: impl Fn(EngineLoad) -> bool) {
        for _ in 0..2000 {
            if what(self.engine.load()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not within 10 s: {:?} {:?}", self.engine.load(), self.probe.counts());
    }

    /// Waits until nothing is held, and checks that the decoder's contract was kept.
    pub async fn is_empty(&self) {
        self.until(|load| load.running == 0 && load.waiting == 0 && load.kv_bytes == 0).await;
        let counts = self.probe.counts();
        assert_eq!((counts.open, counts.kv_bytes), (0, 0));
        assert_eq!(counts.violations, Vec::<String>::new());
    }
}

//! A legacy completion's fields; must not know sampling's ranges.

use mesh_proto::{GenerateError, GenerateRequest, ModelId, Prompt, RequestId, ToolChoice};

use super::{
    super::{completions::CompletionRequest, wire::Prompts},
    AskedCompletions, Facts,
    knobs::{Knobs, absent, limit, one, only, only_whole, penalties, stops, text_only, token},
};

/// OpenAI's default for this endpoint, surprising as it is; clients written for it rely on a short answer.
const DEFAULT_MAX_TOKENS: u32 = 16;
/// Most prompts of one request. The queue's bound would refuse more anyway, in a less clear way. (guess)
const MAX_PROMPTS: usize = 256;

pub(in super::super) fn completions(
    dto: CompletionRequest,
    id: RequestId,
    facts: &Facts,
) -> Result<AskedCompletions, GenerateError> {
    one("n", dto.n)?;
    one("best_of", dto.best_of)?;
    only("echo", dto.echo != Some(true), "false")?;
    only("suffix", dto.suffix.as_ref().is_none_or(String::is_empty), "null")?;
    absent("logprobs", dto.logprobs.as_ref())?;
    text_only(dto.response_format.as_ref().map(|f| &f.0))?;
    only_whole("min_tokens", dto.min_tokens, 0)?;
    penalties([
        ("frequency_penalty", dto.frequency_penalty, 0.0),
        ("presence_penalty", dto.presence_penalty, 0.0),
        ("repetition_penalty", dto.repetition_penalty, 1.0),
        ("repeat_penalty", dto.repeat_penalty, 1.0),
        ("typical_p", dto.typical_p, 1.0),
        ("xtc_probability", dto.xtc_probability, 0.0),
        ("dry_multiplier", dto.dry_multiplier, 0.0),
    ])?;
    let knobs = Knobs {
        temperature: dto.temperature,
        top_p: dto.top_p,
        top_k: dto.top_k,
        min_p: dto.min_p,
        seed: dto.seed,
        logit_bias: dto.logit_bias,
    };
    let sampling = knobs.sampling(facts)?;
    let max_tokens = Some(limit("max_tokens", dto.max_tokens)?.unwrap_or(DEFAULT_MAX_TOKENS));
    let stop = stops(dto.stop)?;
    let model = ModelId::new(dto.model);
    let ignore_eos = dto.ignore_eos.unwrap_or(false);
    let requests = prompts(dto.prompt, facts)?.into_iter().map(|prompt| GenerateRequest {
        id: id.clone(),
        model: model.clone(),
        prompt,
        sampling: sampling.clone(),
        tool_choice: ToolChoice::None,
        parallel_tool_calls: true,
        constraint: None,
        logprobs: None,
        min_tokens: 0,
        max_tokens,
        stop: stop.clone(),
        ignore_eos,
        resume: Vec::new(),
        local_time_s: None,
        seed_drawn: false,
    });
    Ok(AskedCompletions {
        requests: requests.collect(),
        stream: dto.stream.unwrap_or(false),
        include_usage: dto.stream_options.is_some_and(|o| o.0.include_usage == Some(true)),
    })
}

fn prompts(prompts: Prompts, facts: &Facts) -> Result<Vec<Prompt>, GenerateError> {
    let lowered: Vec<Prompt> = match prompts {
        Prompts::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
        Prompts::Tokens(lists) => lists
            .into_iter()
            .map(|list| {
                if list.is_empty() {
                    return Err(GenerateError::invalid("prompt", "`prompt` has an empty array of token ids"));
                }
                let tokens = list.into_iter().enumerate();
                let tokens = tokens.map(|(i, id)| token(&format!("prompt[{i}]"), Some(id.0), facts.vocab_size));
                tokens.collect::<Result<_, _>>().map(Prompt::Tokens)
            })
            .collect::<Result<_, _>>()?,
    };
    if lowered.is_empty() || lowered.len() > MAX_PROMPTS {
        let message = format!("`prompt` must have 1 to {MAX_PROMPTS} prompts, not {}", lowered.len());
        return Err(GenerateError::invalid("prompt", message));
    }
    Ok(lowered)
}

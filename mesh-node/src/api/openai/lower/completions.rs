//! A legacy completion's fields; must not know sampling's ranges.

use mesh_proto::{GenerateError, GenerateRequest, ModelId, Prompt, RequestId, ToolChoice};

use super::{
    super::{
        completions::CompletionRequest,
        wire::{Prompts, Whole},
    },
    AskedCompletions, Facts, Told,
    check::{Checked, either, limit, only, token, whole},
    form::form,
    knobs::{choices, knobs, min_tokens, several, stops},
};

/// OpenAI's default for this endpoint, surprising as it is; clients written for it rely on a short answer.
const DEFAULT_MAX_TOKENS: u32 = 16;
/// Most answers of one request. The queue's bound would refuse more anyway, in a less clear way. (guess)
const MAX_ANSWERS: usize = 256;
/// Most alternatives of a token. Origin: OpenAI, on this endpoint.
const MAX_LOGPROBS: u32 = 5;

pub(in super::super) fn completions(dto: CompletionRequest, id: RequestId, facts: &Facts) -> Checked<AskedCompletions> {
    let n = choices(dto.n)?;
    best_of(dto.best_of, n)?;
    only("suffix", dto.suffix.as_ref().is_none_or(String::is_empty), "null")?;
    let echo = dto.echo.unwrap_or(false);
    let logprobs = whole("logprobs", dto.logprobs, 0..=MAX_LOGPROBS)?.and_then(|n| u8::try_from(n).ok());
    if echo && logprobs.is_some() {
        // Those of the prompt are not kept: a cached prefix is never computed again.
        let message = "`logprobs` are told of the answer alone, and `echo` asks for the prompt's too; send one of them";
        return Err(GenerateError::invalid("logprobs", message));
    }
    let max_tokens = either(
        ("max_tokens", limit("max_tokens", dto.max_tokens)?),
        ("n_predict", limit("n_predict", dto.n_predict)?),
    )?;
    let max_tokens = Some(max_tokens.unwrap_or(DEFAULT_MAX_TOKENS));
    let form = form!(dto);
    let request = GenerateRequest {
        id,
        sampling: knobs!(dto).sampling(facts)?,
        tool_choice: ToolChoice::None,
        constraint: form.constraint()?.map(|(_, constraint)| constraint),
        logprobs,
        max_tokens,
        min_tokens: min_tokens(dto.min_tokens, max_tokens)?,
        stop: stops(dto.stop)?,
        ignore_eos: dto.ignore_eos.unwrap_or(false),
        ..GenerateRequest::new(ModelId::new(dto.model), Prompt::Text(String::new()))
    };
    let prompts = prompts(dto.prompt, n, facts)?.into_iter();
    let requests = prompts.flat_map(|prompt| several(GenerateRequest { prompt, ..request.clone() }, n));
    Ok(AskedCompletions {
        requests: requests.collect(),
        echo,
        told: Told {
            stream: dto.stream.unwrap_or(false),
            usage: super::usage(dto.stream_options),
            logprobs: logprobs.is_some(),
            choices: n,
        },
    })
}

/// As many as are told; a best of more would have to be judged by their likelihood.
fn best_of(value: Option<Whole>, n: u32) -> Checked<()> {
    match value {
        Some(Whole(best)) if best != 1 && best != i128::from(n) => {
            let message = format!("`best_of` does not work here: leave it out, or send 1 or what `n` is ({n})");
            Err(GenerateError::invalid("best_of", message))
        }
        _ => Ok(()),
    }
}

fn prompts(prompts: Prompts, n: u32, facts: &Facts) -> Checked<Vec<Prompt>> {
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
    let most = MAX_ANSWERS / n as usize;
    if lowered.is_empty() || lowered.len() > most {
        let message = format!("`prompt` must have 1 to {most} prompts, not {}", lowered.len());
        return Err(GenerateError::invalid("prompt", message));
    }
    Ok(lowered)
}

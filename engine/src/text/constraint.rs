//! From what a request asks of its answer's form to a grammar, checked; must not know tokens.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

use llguidance::{
    api::{GrammarInit, ParserLimits, TopLevelGrammar},
    regex_to_lark,
};
use mesh_proto::{Constraint, GenerateError};
use serde_json::{Value as Json, json};

use crate::text::{
    grammar::Writer,
    split::{Frame, Markup, ThinkTags},
    tools::{Calls, Offer, Tool, harmony::Harmony},
};

/// Grammars known to compile, at most; beyond that all are forgotten. Guess: an agent has some dozen tools. 16 bytes each.
const MOST_CHECKED: usize = 4096;

/// White space between reasoning and answer.
const SPACE: &str = "/[ \\t\\r\\n]{1,16}/?";

/// What calls are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// As the model likes.
    Free,
    /// One, or none.
    AtMostOne,
    /// Any tool, at least once; with `many`, more than once.
    Some {
        /// More than once.
        many: bool,
    },
    /// This tool, once.
    This(&'a str),
}

/// What is asked of an answer's form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form<'a> {
    /// Whether it begins with reasoning.
    pub(crate) reasoning: Reasoning,
    /// Its calls.
    pub(crate) wanted: Wanted<'a>,
    /// Its content.
    pub(crate) constraint: Option<&'a Constraint>,
}

/// The field that a constraint comes from.
pub(crate) fn field(constraint: &Constraint) -> &'static str {
    match constraint {
        Constraint::JsonObject => "response_format",
        Constraint::JsonSchema(_) => "response_format.json_schema.schema",
        Constraint::Regex(_) => "regex",
        Constraint::Lark(_) => "lark",
    }
}

/// What a text that is compiled is written in.
#[derive(Clone, Copy, Debug, Hash)]
enum Kind {
    Schema,
    Regex,
    Lark,
}

/// Grammars that have been compiled and found good.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    hashers: [RandomState; 2],
    good: Mutex<HashSet<(u64, u64)>>,
}

impl Checked {
    /// Compiles a grammar without a vocabulary, within llguidance's own limits of size; `field` is whose fault it is.
    fn check(
        &self,
        field: &str,
        (kind, source): (Kind, &str),
        grammar: impl FnOnce() -> TopLevelGrammar,
    ) -> Result<(), GenerateError> {
        let [first, second] = &self.hashers;
        let key = (first.hash_one((kind, source)), second.hash_one((kind, source)));
        if self.good.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(());
        }
        let limits = ParserLimits { verbose_errors: false, ..ParserLimits::default() };
        let compile = || GrammarInit::Serialized(grammar()).validate(None, limits).into_error();
        // A grammar is anybody's text, and llguidance is not free of panics.
        let error =
            catch_unwind(AssertUnwindSafe(compile)).unwrap_or_else(|_| Some("it cannot be compiled".to_owned()));
        if let Some(error) = error {
            return Err(GenerateError::invalid(field, error.trim().to_owned()));
        }
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= MOST_CHECKED {
            good.clear();
        }
        good.insert(key);
        Ok(())
    }

    fn check_schema(&self, field: &str, schema: &Json) -> Result<(), GenerateError> {
        self.check(field, (Kind::Schema, &schema.to_string()), || TopLevelGrammar::from_json_schema(schema.clone()))
    }
}

/// The content that a constraint asks for: a Lark expression.
fn content(constraint: &Constraint, checked: &Checked, writer: &mut Writer<'_>) -> Result<String, GenerateError> {
    let field = field(constraint);
    match constraint {
        Constraint::JsonObject => Ok(writer.json(&json!({"type": "object"}))),
        Constraint::JsonSchema(text) => {
            let schema: Json = serde_json::from_str(text)
                .map_err(|error| GenerateError::invalid(field, format!("it is no JSON: {error}")))?;
            if !schema.is_object() && !schema.is_boolean() {
                return Err(GenerateError::invalid(field, "a JSON schema is expected: an object"));
            }
            checked.check_schema(field, &schema)?;
            Ok(writer.json(&schema))
        }
        Constraint::Regex(regex) => {
            checked.check(field, (Kind::Regex, regex), || TopLevelGrammar::from_regex(regex))?;
            // An empty expression is an empty string, which Lark's slashes cannot say.
            let regex = regex_to_lark(regex, "");
            Ok(if regex.is_empty() { "\"\"".to_owned() } else { writer.rule(&format!("/{regex}/")) })
        }
        Constraint::Lark(lark) => {
            // Its special tokens are looked up when it is compiled for the vocabulary.
            checked.check(field, (Kind::Lark, lark), || TopLevelGrammar::from_lark(lark.clone()))?;
            Ok(writer.rule(&format!("%lark {{\n{lark}\n}}")))
        }
    }
}

/// The grammar of an answer: free reasoning, where the model may reason, then what is asked for. `None`: all is free.
///
/// # Errors
/// `Invalid`, naming the field whose schema, expression or grammar cannot be compiled.
pub(crate) fn grammar(
    markup: &Markup,
    Form { reasoning, wanted, constraint }: Form<'_>,
    checked: &Checked,
    special: &[(u32, String)],
) -> Result<Option<String>, GenerateError> {
    let offer = markup.offer.as_deref();
    let mut writer = Writer::new(special);
    let body = constraint.map(|constraint| content(constraint, checked, &mut writer)).transpose()?;
    let calls = match (offer, wanted) {
        (Some(offer), Wanted::Some { many }) => Some(calls(offer, None, many, checked, &mut writer)?),
        (Some(offer), Wanted::This(name)) => Some(calls(offer, Some(name), false, checked, &mut writer)?),
        // Beside a constraint the calls must be spelled out: where one begins is where the content does not.
        (Some(offer), Wanted::Free) if body.is_some() => Some(calls(offer, None, true, checked, &mut writer)?),
        (Some(offer), Wanted::AtMostOne) if body.is_some() => Some(calls(offer, None, false, checked, &mut writer)?),
        _ => None,
    };
    if let (None, None) = (&calls, &body) {
        let one = match (offer, wanted) {
            (Some(offer), Wanted::AtMostOne) => at_most_one(offer, reasoning, &mut writer),
            _ => None,
        };
        return Ok(one.map(|start| writer.finish(&start)));
    }
    if markup.frame == Frame::Harmony {
        let calls = calls.map(|calls| calls.rest);
        let start = Harmony::grammar_of_answer(calls.as_deref(), body.as_deref(), &mut writer);
        return Ok(Some(writer.finish(&start)));
    }
    let calls = calls.map(|Calls { open, rest }| format!("{} {rest}", writer.text(open)));
    let bodies: Vec<String> = calls.into_iter().chain(body).map(|body| writer.rule(&body)).collect();
    let before = reasoning.before(&mut writer);
    let start = format!("{before} {}", crate::text::grammar::either(&bodies));
    Ok(Some(writer.finish(start.trim())))
}

/// Calls of all tools, or of one.
fn calls(
    offer: &Offer,
    only: Option<&str>,
    many: bool,
    checked: &Checked,
    writer: &mut Writer<'_>,
) -> Result<Calls, GenerateError> {
    let mut tools: Vec<&Tool> = Vec::new();
    for (index, tool) in offer.tools.iter().enumerate() {
        // Of two tools with one name, the first is called.
        if only.is_some_and(|only| only != tool.name) || tools.iter().any(|one| one.name == tool.name) {
            continue;
        }
        checked.check_schema(&format!("tools[{index}].function.parameters"), &tool.schema())?;
        tools.push(tool);
    }
    Ok(offer.dialect.grammar(&tools, many, writer))
}

/// Any text, or any text and then one call, whose arguments are free.
fn at_most_one(offer: &Offer, reasoning: Reasoning, writer: &mut Writer<'_>) -> Option<String> {
    // Spelled out, a second call could open within the first one, or in what is taken for text.
    let opens = offer.dialect.opens().first().copied();
    writer.without(opens);
    let rest = offer.dialect.one(writer);
    writer.without(None);
    let rest = rest?;
    let before = reasoning.before(writer);
    let Some(open) = opens.filter(|_| offer.dialect.bare().is_empty()) else {
        let [first, ..] = offer.dialect.bare() else { return None };
        let other = format!("/[ \\t\\r\\n]*[^ \\t\\r\\n{}](?s:.*)/", crate::text::grammar::pattern(first));
        let rest = writer.rule(&rest);
        return Some(format!("{before} ({other} | {rest})?"));
    };
    // Where the reasoning may open by itself, what is none must not look like it.
    let unlike = match reasoning {
        Reasoning::May(tags) => Some(tags.open),
        Reasoning::Open(_) | Reasoning::None => None,
    };
    let text = writer.until_unless(open, unlike);
    let any = writer.any_unless(unlike, open);
    Some(format!("{before} ({text} {rest} | {any})"))
}

/// Whether an answer begins with reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reasoning {
    /// It does: the prompt has opened it.
    Open(ThinkTags),
    /// It may.
    May(ThinkTags),
    /// It does not.
    None,
}

impl Reasoning {
    /// What the end of a prompt says of it.
    pub(crate) fn after(prompt: &str, frame: Frame) -> Self {
        let end = prompt.trim_end();
        match frame {
            Frame::Message(Some(tags)) if end.ends_with(tags.open) => Self::Open(tags),
            // Closed there: the model was told not to.
            Frame::Message(Some(tags)) if end.ends_with(tags.close) => Self::None,
            Frame::Message(Some(tags)) => Self::May(tags),
            _ => Self::None,
        }
    }

    /// The grammar of it: anything up to its closing tag.
    fn before(self, writer: &mut Writer<'_>) -> String {
        match self {
            Self::Open(tags) => format!("{} {SPACE}", writer.until(tags.close)),
            Self::May(tags) => {
                let whole = writer.between(tags.open, tags.close);
                format!("({whole} {SPACE})?")
            }
            Self::None => String::new(),
        }
    }
}

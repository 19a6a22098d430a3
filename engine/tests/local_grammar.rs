//! Any schema, any model, any batch: what is held to a grammar fits it, and nobody's answer changes with the company.
#![allow(clippy::unwrap_used)]

mod local_support;

use engine::{
    Engine, LocalOptions,
    decoder::DecoderLimits,
    script::{END, Script, ScriptOptions, VOCAB_SIZE},
};
use local_support::{Bench, Said, read, request, small, start};
use mesh_proto::{Constraint, FinishReason, GenerateRequest, Sampling};
use proptest::prelude::*;
use serde_json::{Map, Value, json, value::RawValue};

/// Schemas of the parts that [`fits`] knows.
fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "null"})),
        Just(json!({"type": "boolean"})),
        (-50..50i64, 0..50i64)
            .prop_map(|(low, more)| json!({"type": "integer", "minimum": low, "maximum": low + more})),
        Just(json!({"type": "number"})),
        (0..3u64, 0..9u64)
            .prop_map(|(least, more)| json!({"type": "string", "minLength": least, "maxLength": least + more})),
        prop::collection::btree_set("[a-z]{1,4}", 1..4).prop_map(|words| json!({"enum": words})),
        any::<bool>().prop_map(|value| json!({"const": value})),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = (inner.clone(), 0..3u64, 0..3u64).prop_map(|(items, least, more)| {
            json!({"type": "array", "items": items, "minItems": least, "maxItems": least + more})
        });
        let object = (prop::collection::btree_map("[a-c]{1,2}", inner.clone(), 0..4), any::<u8>()).prop_map(
            |(properties, which)| {
                let required = properties.keys().enumerate().filter(|(i, _)| which >> i & 1 == 1);
                let required: Vec<&String> = required.map(|(_, name)| name).collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            },
        );
        let either = (inner.clone(), inner).prop_map(|(one, other)| json!({"anyOf": [one, other]}));
        prop_oneof![list, object, either]
    })
}

/// Whether a value fits one of these schemas.
fn fits(value: &Value, schema: &Value) -> bool {
    let within = |size: usize, least: &str, most: &str| {
        size as u64 >= schema[least].as_u64().unwrap() && size as u64 <= schema[most].as_u64().unwrap()
    };
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().any(|schema| fits(value, schema));
    }
    if let Some(listed) = schema["enum"].as_array() {
        return listed.contains(value);
    }
    if let Some(wanted) = schema.get("const") {
        return value == wanted;
    }
    match schema["type"].as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => {
            // -0 is a whole number, which serde_json reads as a float.
            let number = value.as_i64().or_else(|| (value.as_f64() == Some(0.0)).then_some(0));
            number.is_some_and(|n| n >= schema["minimum"].as_i64().unwrap() && n <= schema["maximum"].as_i64().unwrap())
        }
        "number" => value.is_number(),
        "string" => value.as_str().is_some_and(|text| within(text.chars().count(), "minLength", "maxLength")),
        "array" => value.as_array().is_some_and(|items| {
            within(items.len(), "minItems", "maxItems") && items.iter().all(|item| fits(item, &schema["items"]))
        }),
        "object" => value.as_object().is_some_and(|object: &Map<String, Value>| {
            let required =
                schema["required"].as_array().unwrap().iter().all(|name| object.contains_key(name.as_str().unwrap()));
            required
                && object.iter().all(|(name, value)| schema["properties"].get(name).is_some_and(|s| fits(value, s)))
        }),
        other => panic!("{other}"),
    }
}

fn noise() -> Script {
    Script::noise(256, END, 5)
}

/// So little memory that answers side by side are sent back to the line now and then.
fn bench() -> Bench {
    let limits = DecoderLimits {
        context_tokens: 600,
        vocab_size: VOCAB_SIZE,
        kv_bytes_per_token: 1024,
        kv_budget_bytes: 700 << 10,
    };
    let options = ScriptOptions { limits, prefix_budget_bytes: 64 << 10, ..ScriptOptions::default() };
    start(noise(), LocalOptions { max_waiting: 64, ..small() }, options)
}

fn asked(constraint: Option<Constraint>, seed: u64) -> GenerateRequest {
    let request = request("Say it:");
    let sampling = Sampling { seed: Some(seed), ..request.sampling.clone() };
    GenerateRequest { constraint, sampling, max_tokens: Some(400), ..request }
}

/// All of them at once, in order.
async fn at_once(bench: &Bench, requests: &[GenerateRequest]) -> Vec<Said> {
    let mut running = Vec::new();
    for request in requests {
        let generation = bench.engine.generate(request.clone()).await.unwrap();
        running.push(tokio::spawn(read(generation)));
    }
    let mut said = Vec::new();
    for answer in running {
        said.push(answer.await.unwrap());
    }
    said
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_held_to_a_schema_fits_it_in_any_batch(
        schemas in prop::collection::vec(schema(), 1..5), seed in any::<u64>(),
    ) {
        runtime().block_on(async {
            let bench = bench();
            let forms = schemas.iter().map(|schema| Some(Constraint::JsonSchema(schema.to_string())));
            // Free ones between them.
            let requests: Vec<GenerateRequest> =
                (0..).zip(forms.flat_map(|form| [form, None])).map(|(i, form)| asked(form, seed.wrapping_add(i))).collect();
            let together = at_once(&bench, &requests).await;
            for (request, said) in requests.iter().zip(&together) {
                let mut alone = bench.ask(request.clone()).await;
                // How much was cached is the engine's own affair.
                if let (Ok(alone), Ok(said)) = (&mut alone.end, &said.end) {
                    alone.2.cached_tokens = said.2.cached_tokens;
                }
                prop_assert_eq!(&alone.text, &said.text);
                prop_assert_eq!(&alone.end, &said.end);
            }
            for (schema, said) in schemas.iter().zip(together.iter().step_by(2)) {
                prop_assert_eq!(said.reason(), FinishReason::Stop, "{} for {}", &said.text, schema);
                let read = serde_json::from_str::<Value>(&said.text);
                if read.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range")) {
                    // JSON has numbers of any size, and no float holds this one: it is JSON all the same.
                    prop_assert!(serde_json::from_str::<&RawValue>(&said.text).is_ok(), "{}", &said.text);
                    continue;
                }
                let value = read.map_err(|e| TestCaseError::fail(format!("{e}: {}", said.text)))?;
                prop_assert!(fits(&value, schema), "{} does not fit {}", &said.text, schema);
            }
            bench.is_empty().await;
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_allows_all_changes_nothing() {
    let bench = bench();
    for seed in 0..20 {
        let free = bench.ask(GenerateRequest { max_tokens: Some(30), ..asked(None, seed) }).await;
        let formed = asked(Some(Constraint::Regex(r"(?s:.*)".to_owned())), seed);
        let formed = bench.ask(GenerateRequest { max_tokens: Some(30), ..formed }).await;
        // Noise is seldom a text; where it is one, the form lets it be.
        let free_text = free.text.chars().take_while(|c| *c != char::REPLACEMENT_CHARACTER).collect::<String>();
        assert!(formed.text.starts_with(&free_text), "{free_text:?} {:?}", formed.text);
    }
}

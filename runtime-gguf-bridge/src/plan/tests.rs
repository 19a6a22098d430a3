//! Sizes against what llama-server logs, and laws that hold for all of them; must not start llama-server.

use std::{fs, path::Path};

use catalog::gguf::{self, Header};
use proptest::prelude::*;

use super::{
    KvBits, Machine, Plan, PlanError, Sizes, Wishes, of_shape, plan,
    shape::{Layer, Shape},
    terms,
};
use crate::server::Device;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A metadata value.
enum Entry<'a> {
    Number(u64),
    Each(&'a [u32]),
    Flags(&'a [bool]),
}
use Entry::{Each, Flags, Number};

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}

/// A header with these entries under the architecture's name, and f32 tensors of these names and element counts.
fn header(architecture: &str, entries: &[(&str, Entry<'_>)], tensors: &[(&str, u64)]) -> Header {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((entries.len() as u64 + 1).to_le_bytes());
    text(&mut bytes, "general.architecture");
    bytes.extend(8_u32.to_le_bytes());
    text(&mut bytes, architecture);
    for (name, entry) in entries {
        text(&mut bytes, &format!("{architecture}.{name}"));
        let start =
            |kind: u32, length: usize| [&9_u32.to_le_bytes()[..], &kind.to_le_bytes(), &length.to_le_bytes()].concat();
        match entry {
            Number(number) => bytes.extend([&10_u32.to_le_bytes()[..], &number.to_le_bytes()].concat()),
            Each(numbers) => {
                bytes.extend(start(4, numbers.len()));
                numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes()));
            }
            Flags(flags) => {
                bytes.extend(start(7, flags.len()));
                bytes.extend(flags.iter().map(|flag| u8::from(*flag)));
            }
        }
    }
    let mut offset = 0_u64;
    for (name, elements) in tensors {
        text(&mut bytes, name);
        bytes.extend(
            [&1_u32.to_le_bytes()[..], &elements.to_le_bytes(), &0_u32.to_le_bytes(), &offset.to_le_bytes()].concat(),
        );
        offset = (offset + elements * 4).next_multiple_of(32);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let length = bytes.len().next_multiple_of(32) as u64 + offset;
    fs::write(file.path(), bytes).unwrap();
    file.as_file().set_len(length).unwrap();
    gguf::read(file.path()).unwrap()
}

fn shape(architecture: &str, entries: &[(&str, Entry<'_>)]) -> Shape {
    Shape::of(&[header(architecture, entries, &[])])
}

fn mesh_tiny() -> Header {
    gguf::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mesh-tiny/mesh-tiny.Q4_1.gguf")).unwrap()
}

/// MiB with two digits, as llama-server logs them.
fn mib(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / MIB as f64)
}

fn wishes() -> Wishes {
    Wishes { context_tokens: None, parallel: 4, kv_bits: None, gpu_layers: None, max_memory: None }
}

fn gpu(name: &str, free: u64) -> Device {
    Device { name: name.to_owned(), description: String::new(), total: free, free }
}

fn machine(memory: u64, devices: &[Device]) -> Machine {
    Machine { memory, devices: devices.to_vec() }
}

#[test]
fn the_kv_cache_is_as_large_as_llama_server_logs_it() {
    // llama-server 0.7.0 (build 11669), `-m mesh-tiny.Q4_1.gguf -c C -np N -ctk T -ctv T -lv 4`: "KV buffer size".
    let tiny = Shape::of(&[mesh_tiny()]);
    for (total, slots, kv, logged) in [
        (4096, 4, KvBits::F16, "12.00"),
        (5000, 3, KvBits::F16, "15.75"),
        (4096, 2, KvBits::Q8, "6.38"),
        (4096, 2, KvBits::Q4, "3.38"),
    ] {
        assert_eq!(mib(tiny.slot(total / slots, kv) * slots), logged, "{total} {slots} {kv:?}");
    }
    // The same of random models of these shapes.
    let dense = |layers, heads, kv_heads, head, width| {
        let entries = [
            ("block_count", Number(layers)),
            ("embedding_length", Number(width)),
            ("attention.head_count", Number(heads)),
            ("attention.head_count_kv", Number(kv_heads)),
            ("attention.key_length", Number(head)),
            ("attention.value_length", Number(head)),
        ];
        shape("qwen3", &entries)
    };
    assert_eq!(mib(dense(4, 8, 4, 128, 512).slot(8192, KvBits::F16)), "64.00");
    assert_eq!(mib(dense(4, 8, 4, 128, 512).slot(2048, KvBits::F16) * 4), "64.00");
    assert_eq!(mib(dense(3, 4, 2, 64, 256).slot(8192, KvBits::F16)), "12.00");
    assert_eq!(mib(dense(3, 4, 2, 64, 256).slot(8192, KvBits::F16) * 8), "96.00");
}

#[test]
fn windows_states_and_latents_are_as_large_as_llama_server_logs_them() {
    // As above, with random models of each family, `-c 16384 -np 2`: KV and RS buffers together, of both slots.
    let gemma = [
        ("block_count", Number(12)),
        ("attention.head_count", Number(4)),
        ("attention.head_count_kv", Number(2)),
        ("attention.key_length", Number(32)),
        ("attention.value_length", Number(32)),
        ("attention.sliding_window", Number(512)),
    ];
    let logged = |shape: Shape| mib(shape.slot(8192, KvBits::F16) * 2);
    assert_eq!(logged(shape("gemma3", &gemma)), "13.00", "8.00 of 2 full layers and 5.00 of 10 windowed ones");
    let recurrent = |heads: Entry<'static>, kv_heads: Entry<'static>| {
        vec![
            ("block_count", Number(4)),
            ("embedding_length", Number(64)),
            ("attention.head_count", heads),
            ("attention.head_count_kv", kv_heads),
            ("ssm.conv_kernel", Number(4)),
            ("ssm.inner_size", Number(128)),
            ("ssm.state_size", Number(16)),
        ]
    };
    assert_eq!(logged(shape("mamba", &recurrent(Number(0), Number(0)))), "0.07");
    assert_eq!(logged(shape("jamba", &recurrent(Number(4), Each(&[0, 0, 2, 0])))), "2.06", "2.00 KV, 0.06 RS");
    let latent = [
        ("block_count", Number(3)),
        ("attention.head_count", Number(4)),
        ("attention.head_count_kv", Number(1)),
        ("attention.key_length", Number(80)),
        ("attention.value_length", Number(64)),
        ("attention.key_length_mla", Number(48)),
        ("attention.value_length_mla", Number(32)),
    ];
    assert_eq!(logged(shape("deepseek2", &latent)), "7.50");
}

#[test]
fn computing_takes_no_more_than_is_kept_for_it() {
    // The same runs: "compute buffer size" and "output buffer size" together, in MiB. The process itself is apart: for
    // the last one, 68 MiB of anonymous memory with 12 MiB of KV cache.
    let runs = [
        ((192, 384, 4, 64, 1280), (1024, 4), 5.14 + 0.02),
        ((192, 384, 4, 64, 1280), (1792, 3), 5.90 + 0.01),
        ((512, 1536, 8, 128, 4096), (8192, 1), 22.02 + 0.02),
        ((512, 1536, 8, 128, 4096), (2048, 4), 16.02 + 0.06),
        ((512, 1536, 8, 128, 4096), (8192, 4), 22.02 + 0.06),
        ((256, 512, 4, 64, 151_936), (8192, 1), 13.52 + 0.58),
        ((256, 512, 4, 64, 151_936), (1024, 8), 8.15 + 4.64),
        ((256, 512, 4, 64, 151_936), (8192, 8), 13.52 + 4.64),
    ];
    for ((width, feed, heads, head, words), (context, slots), logged) in runs {
        let entries = [
            ("embedding_length", Number(width)),
            ("feed_forward_length", Number(feed)),
            ("attention.head_count", Number(heads)),
            ("attention.key_length", Number(head)),
            ("vocab_size", Number(words)),
        ];
        let shape = shape("qwen3", &entries);
        let sizes = Sizes { shape: &shape, kv: KvBits::F16, parallel: slots, asked: None, copies: false };
        let kept = shape.compute - (64 * MIB + words * 256) + sizes.total(context, slots);
        let kept = kept as f64 / MIB as f64;
        assert!(kept >= logged && kept < logged * 1.6 + 8.0, "{kept} for {logged}");
    }
}

#[test]
fn defaults_are_llama_cpps() {
    let entries = [("block_count", Number(2)), ("embedding_length", Number(64)), ("attention.head_count", Number(4))];
    // Heads of 64 / 4, as many of keys and values as there are: 64 elements each.
    assert_eq!(shape("llama", &entries).slot(256, KvBits::F16), 256 * 2 * (64 + 64) * 2);
    // Nothing said of heads: the width is what they cannot exceed.
    assert_eq!(shape("llama", &entries[..2]).slot(256, KvBits::F16), 256 * 2 * (64 + 64) * 2);
    let nothing = header("llama", &[], &[("token_embd.weight", 96), ("blk.2.attn_k.weight", 8)]);
    assert_eq!(Shape::of(&[nothing]).slot(256, KvBits::F16), 256 * 3 * (96 + 96) * 2);
}

#[test]
fn heads_may_differ_by_layer_and_latent_attention_keeps_keys_alone() {
    let each = [
        ("block_count", Number(3)),
        ("attention.head_count", Number(4)),
        ("attention.head_count_kv", Each(&[1, 0, 2])),
        ("attention.key_length", Number(8)),
        ("attention.value_length", Number(16)),
    ];
    assert_eq!(shape("deci", &each).slot(256, KvBits::F16), 256 * 3 * (8 + 16) * 2);
    // DeepSeek-V3's own numbers: 576 elements a token and layer.
    let mut latent = vec![
        ("block_count", Number(61)),
        ("attention.head_count", Number(128)),
        ("attention.head_count_kv", Number(1)),
        ("attention.key_length", Number(576)),
        ("attention.value_length", Number(512)),
    ];
    assert_eq!(shape("deepseek2", &latent).slot(256, KvBits::F16), 256 * 61 * (576 + 512) * 2);
    latent.extend([("attention.key_length_mla", Number(192)), ("attention.value_length_mla", Number(128))]);
    assert_eq!(shape("deepseek2", &latent).slot(256, KvBits::F16), 256 * 61 * 576 * 2);
    assert_eq!(shape("deepseek2", &latent).odd_head(KvBits::Q8), None);
}

fn windowed<'a>(more: &[(&'a str, u64)]) -> Vec<(&'a str, Entry<'a>)> {
    let base = [
        ("block_count", 6),
        ("attention.head_count", 1),
        ("attention.key_length", 16),
        ("attention.value_length", 16),
        ("attention.sliding_window", 512),
    ];
    base.iter().chain(more).map(|(name, number)| (*name, Number(*number))).collect()
}

#[test]
fn layers_with_a_window_hold_the_window_and_a_micro_batch() {
    let (token, full) = (64, 8192);
    let short = 512 + 512;
    let slot = |shape: Shape| shape.slot(full, KvBits::F16);
    // Not known to have windows, or said to have them by nobody: counted as full.
    assert_eq!(slot(shape("unheard-of", &windowed(&[]))), 6 * full * token);
    assert_eq!(slot(shape("gemma3", &windowed(&[]))), (full + 5 * short) * token);
    assert_eq!(slot(shape("gpt-oss", &windowed(&[]))), (3 * full + 3 * short) * token);
    let period = [("attention.sliding_window_pattern", 4)];
    assert_eq!(slot(shape("unheard-of", &windowed(&period))), (2 * full + 4 * short) * token);
    assert_eq!(slot(shape("gemma3", &windowed(&period))), (full + 5 * short) * token);
    let mut flags = windowed(&[("attention.key_length_swa", 8), ("attention.value_length_swa", 8)]);
    flags.push(("attention.sliding_window_pattern", Flags(&[true, false, true, true, true, true])));
    assert_eq!(slot(shape("gemma4", &flags)), full * token + 5 * short * (token / 2));
    // The last two layers read the cache of others.
    flags.push(("attention.shared_kv_layers", Number(2)));
    assert_eq!(slot(shape("gemma4", &flags)), full * token + 3 * short * (token / 2));
    // A window larger than the context is no window.
    assert_eq!(shape("gemma3", &windowed(&[])).slot(256, KvBits::F16), 6 * 256 * token);
}

#[test]
fn recurrent_layers_hold_a_state_and_no_tokens() {
    let mamba = |heads: Entry<'static>| {
        vec![
            ("block_count", Number(4)),
            ("embedding_length", Number(32)),
            ("attention.head_count", Number(2)),
            ("attention.head_count_kv", heads),
            ("ssm.conv_kernel", Number(4)),
            ("ssm.inner_size", Number(64)),
            ("ssm.state_size", Number(16)),
            ("ssm.group_count", Number(1)),
        ]
    };
    let state = (3 * (64 + 2 * 16) + 16 * 64) * 4;
    let attention = |layers: u64, context: u64| layers * context * 2 * (16 + 16) * 2;
    for context in [256, 4096] {
        let slot =
            |architecture, entries: &[(&str, Entry<'_>)]| shape(architecture, entries).slot(context, KvBits::F16);
        assert_eq!(slot("mamba", &mamba(Number(0))), 4 * state);
        assert_eq!(slot("jamba", &mamba(Each(&[0, 0, 0, 2]))), 3 * state + attention(1, context));
        assert_eq!(slot("falcon-h1", &mamba(Number(2))), 4 * state + attention(4, context), "both in each");
        let mut interval = mamba(Number(2));
        interval.push(("full_attention_interval", Number(2)));
        assert_eq!(slot("qwen3next", &interval), 2 * state + attention(2, context));
        interval.push(("attention.recurrent_layers", Flags(&[true, true, true, false])));
        assert_eq!(slot("qwen3next", &interval), 3 * state + attention(1, context));
        let mut feeds = mamba(Each(&[0, 0, 0, 2]));
        feeds.push(("feed_forward_length", Each(&[0, 99, 0, 0])));
        assert_eq!(slot("nemotron_h", &feeds), 2 * state + attention(1, context));
    }
}

#[test]
fn all_parts_are_weighed_and_layers_told_apart() {
    let entries = [("block_count", Number(2)), ("context_length", Number(300))];
    let first = header("llama", &entries, &[("token_embd.weight", 1000), ("blk.0.a", 10)]);
    let second = header("llama", &[], &[("blk.1.a", 20), ("blk.1.b", 30), ("blk.9.c", 5), ("output_norm.weight", 1)]);
    let tied = Shape::of(&[first.clone(), second]);
    assert_eq!((tied.weights, tied.output, tied.copied), (4 * 1066, 4 * 1001, 4 * 1000));
    assert_eq!((tied.layers[0].weights, tied.layers[1].weights, tied.trained), (40, 200, 300));
    let untied = Shape::of(&[first, header("llama", &[], &[("output.weight", 7)])]);
    assert_eq!((untied.output, untied.copied), (28, 0));
}

/// About an 8 B model at 4 bits: 4.7 GB, 128 KiB of KV a token.
fn eight_billion() -> Shape {
    let layer = Layer { keys: 1024, values: 1024, head: 128, window: None, state: 0, weights: 130 * MIB };
    Shape {
        trained: 131_072,
        layers: vec![layer; 32],
        weights: 32 * 130 * MIB + 560 * MIB,
        output: 410 * MIB,
        copied: 0,
        compute: 300 * MIB,
        vocabulary: 128_256,
        token: 400 << 10,
        whole: false,
    }
}

fn planned(wishes: &Wishes, machine: &Machine) -> Result<Plan, PlanError> {
    of_shape(&eight_billion(), wishes, machine)
}

#[test]
fn the_bundled_model_runs_anywhere() {
    let plan = plan(&[mesh_tiny()], &wishes(), &machine(GIB, &[])).unwrap();
    assert_eq!((plan.context_tokens, plan.slots, plan.gpu_layers), (4096, 4, 0));
    assert_eq!((plan.kv_bytes_per_token, plan.kv_budget_bytes), (3072, 4 * 12 * MIB));
    assert_eq!(mib(plan.weight_bytes), "1.48");
    assert!((50..=102).contains(&plan.prompt_cache_mib), "{}", plan.prompt_cache_mib);
    assert_eq!(plan.checkpoints, 0);
}

#[test]
fn memory_becomes_context_for_a_few_and_slots_for_the_rest() {
    let at = |gib: u64, wishes: &Wishes| {
        let plan = planned(wishes, &machine(gib * GIB, &[])).unwrap();
        (plan.context_tokens, plan.slots)
    };
    let many = Wishes { parallel: 32, ..wishes() };
    assert_eq!(at(96, &many), (131_072, 5));
    let (context, slots) = at(16, &many);
    assert!((16_000..24_000).contains(&context) && slots == 4, "{context} {slots}");
    assert!(at(16, &Wishes { kv_bits: Some(KvBits::Q4), ..many.clone() }).0 > 3 * context);
    let asked = |tokens| Wishes { context_tokens: Some(tokens), ..many.clone() };
    let (context, slots) = at(16, &asked(8192));
    assert!(context == 8192 && (8..=11).contains(&slots), "{slots}");
    assert_eq!(at(16, &asked(80_000)), (80_000, 1), "a context that was asked for is not cut");
    assert_eq!(at(96, &asked(1 << 30)).0, 131_072, "more than it was trained for is not served");
}

#[test]
fn what_does_not_fit_is_told_in_bytes_with_what_to_do() {
    let message = planned(&wishes(), &machine(2 * GIB, &[])).unwrap_err().to_string();
    for said in ["are missing", "--max-memory", "--ctx-size", "--kv-bits", "quantisation", "512 tokens", "2.0 GiB"] {
        assert!(message.contains(said), "{said}: {message}");
    }
    assert!(!message.contains('\n'), "{message}");
    let asked = Wishes { context_tokens: Some(100_000), ..wishes() };
    let message = planned(&asked, &machine(8 * GIB, &[])).unwrap_err().to_string();
    assert!(message.contains("100000 tokens"), "{message}");
    let more = Wishes { max_memory: Some(8 * GIB), ..wishes() };
    assert!(planned(&more, &machine(2 * GIB, &[])).is_ok(), "--max-memory stands in for what was found");
    assert_eq!(plan(&[], &wishes(), &machine(GIB, &[])), Err(PlanError::NoFile));
}

#[test]
fn heads_that_are_no_blocks_keep_sixteen_bits() {
    let mut shape = eight_billion();
    shape.layers[3].head = 80;
    let ask = |kv| of_shape(&shape, &Wishes { kv_bits: kv, ..wishes() }, &machine(64 * GIB, &[]));
    assert_eq!(ask(Some(KvBits::Q8)), Err(PlanError::OddHead(80)));
    assert!(ask(Some(KvBits::F16)).is_ok() && ask(None).is_ok());
}

#[test]
fn layers_go_to_the_gpu_as_far_as_they_fit() {
    let layers = |free: u64| planned(&wishes(), &machine(64 * GIB, &[gpu("CUDA0", free * GIB)])).unwrap();
    let all = layers(24);
    assert_eq!((all.gpu_layers, all.slots), (33, 4));
    // 24 GiB are 1 of margin, 4.6 of weights, 0.3 to compute, and 18 of cache for four.
    assert_eq!(all.context_tokens, 36_864);
    let some = layers(5);
    assert!((1..33).contains(&some.gpu_layers) && some.context_tokens > all.context_tokens, "{some:?}");
    assert_eq!(layers(0).gpu_layers, 0);
    // An accelerator without memory of its own, as ggml's BLAS, is none.
    let blas = planned(&wishes(), &machine(64 * GIB, &[gpu("BLAS", 0)])).unwrap();
    assert_eq!(blas, planned(&wishes(), &machine(64 * GIB, &[])).unwrap());
    // Memory that is the machine's is not counted twice.
    let metal = planned(&wishes(), &machine(16 * GIB, &[gpu("MTL0", 48 * GIB)])).unwrap();
    let ram = planned(&wishes(), &machine(16 * GIB, &[])).unwrap();
    assert!(metal.gpu_layers == 33 && metal.context_tokens <= ram.context_tokens, "{metal:?} {ram:?}");
    let two = planned(&wishes(), &machine(64 * GIB, &[gpu("CUDA0", 4 * GIB), gpu("CUDA1", 5 * GIB)])).unwrap();
    assert_eq!(two.gpu_layers, 33);
}

#[test]
fn layers_that_were_asked_for_are_what_is_planned_or_refused() {
    let ask = |layers, free| {
        let wishes = Wishes { gpu_layers: Some(layers), ..wishes() };
        planned(&wishes, &machine(64 * GIB, &[gpu("CUDA0", free * GIB)]))
    };
    assert_eq!(ask(0, 24).unwrap().gpu_layers, 0);
    assert_eq!(ask(10, 24).unwrap().gpu_layers, 10);
    assert_eq!(ask(99, 24).unwrap().gpu_layers, 33);
    assert!(ask(33, 4).is_err() && ask(30, 4).is_err());
    let without = Wishes { gpu_layers: Some(99), ..wishes() };
    assert_eq!(planned(&without, &machine(64 * GIB, &[])).unwrap().gpu_layers, 0);
}

#[test]
fn states_to_go_back_to_are_bounded() {
    let mut shape = eight_billion();
    shape.layers.iter_mut().for_each(|layer| layer.window = Some(1024));
    let at = |gib: u64| of_shape(&shape, &wishes(), &machine(gib * GIB, &[])).unwrap();
    let plan = at(64);
    // 1,536 cells of 128 KiB: 192 MiB each, and four slots.
    let state = 192 * MIB * u64::from(plan.slots);
    let cache = u64::from(plan.checkpoints) * state + u64::from(plan.prompt_cache_mib) * MIB;
    assert!((1..=32).contains(&plan.checkpoints) && cache <= 64 * GIB / 10, "{plan:?}");
    assert!(at(7).checkpoints <= plan.checkpoints);
}

prop_compose! {
    fn shapes()(
        count in 0_usize..40,
        keys in 0_u64..4096,
        head in 0_u64..256,
        window in prop::option::of(1_u64..8192),
        state in 0_u64..(64 << 20),
        layer in 0_u64..(2 << 30),
        rest in 0_u64..(2 << 30),
        tied in any::<bool>(),
        trained in 1_u64..1_000_000,
        compute in 0_u64..(4 << 30),
        vocabulary in 0_u64..300_000,
    ) -> Shape {
        let of = |index: usize| Layer {
            keys: if index.is_multiple_of(3) { keys } else { keys / 2 },
            values: keys,
            head: head / 32 * 32,
            window: window.filter(|_| index.is_multiple_of(2)),
            state: if index.is_multiple_of(4) { state } else { 0 },
            weights: layer,
        };
        let copied = if tied { rest } else { 0 };
        let weights = layer * count as u64 + rest;
        Shape { trained, layers: (0..count).map(of).collect(), weights, output: rest, copied, compute, vocabulary, ..Shape::default() }
    }
}

prop_compose! {
    fn asked()(
        context_tokens in prop::option::of(0_u32..300_000),
        parallel in 0_u32..70,
        kv_bits in prop::option::of(prop::sample::select(vec![KvBits::F16, KvBits::Q8, KvBits::Q4])),
        gpu_layers in prop::option::weighted(0.3, 0_u32..50),
        max_memory in prop::option::weighted(0.3, 0_u64..(200 << 30)),
    ) -> Wishes {
        Wishes { context_tokens, parallel, kv_bits, gpu_layers, max_memory }
    }
}

fn machines() -> impl Strategy<Value = Machine> {
    let device = (prop::sample::select(vec!["CUDA", "MTL"]), 0_u64..(100 << 30));
    (0_u64..(200 << 30), prop::collection::vec(device, 0..3)).prop_map(|(memory, devices)| Machine {
        memory,
        devices: devices.into_iter().map(|(name, free)| gpu(name, free)).collect(),
    })
}

/// Bytes that a plan takes at the least, by the same costs and without any of the planner's own sums.
fn least(shape: &Shape, plan: &Plan) -> u64 {
    let (context, slots) = (u64::from(plan.context_tokens), u64::from(plan.slots));
    let kv: u64 = shape.layers.iter().map(|layer| layer.slot(context, plan.kv)).sum();
    shape.weights + shape.compute + kv * slots + (u64::from(plan.prompt_cache_mib) << 20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_plan_takes_more_memory_than_there_is(shape in shapes(), wishes in asked(), machine in machines()) {
        let Ok(plan) = of_shape(&shape, &wishes, &machine) else { return Ok(()) };
        let unified = machine.devices.iter().any(|device| device.name == "MTL");
        let devices: u64 = if unified { 0 } else { machine.devices.iter().map(|device| device.free).sum() };
        let there = wishes.max_memory.unwrap_or(machine.memory + devices);
        prop_assert!(least(&shape, &plan) <= there, "{plan:?}");
        let (context, slots) = (u64::from(plan.context_tokens), u64::from(plan.slots));
        prop_assert!(slots >= 1 && slots <= u64::from(wishes.parallel.max(1)));
        prop_assert!(context >= shape.trained.min(512) || wishes.context_tokens.is_some());
        prop_assert!(context <= shape.trained && context >= 1);
        prop_assert!(u64::from(plan.kv_bytes_per_token > 0) <= plan.kv_budget_bytes);
        prop_assert!(plan.gpu_layers as usize <= shape.layers.len() + 1);
        if let Some(asked) = wishes.context_tokens {
            prop_assert_eq!(context, u64::from(asked).min(shape.trained).max(1));
        }
        // What lies on devices fits there.
        let layers = plan.gpu_layers as usize;
        let cost = |layer: &Layer| layer.weights + layer.slot(context, plan.kv) * slots;
        let there: u64 = shape.layers.iter().rev().take(layers.saturating_sub(1)).map(cost).sum();
        let there = there + if layers > 0 { shape.output } else { 0 };
        let free: u64 = machine.devices.iter().map(|device| device.free).sum();
        prop_assert!(there <= free, "{plan:?}");
        // And what does not, in RAM.
        if layers == 0 {
            prop_assert!(least(&shape, &plan) <= wishes.max_memory.unwrap_or(machine.memory));
        }
    }

    #[test]
    fn the_account_is_the_plan_in_terms(shape in shapes(), parallel in 1_u32..70, memory in 0_u64..(200 << 30)) {
        let wishes = Wishes { parallel, ..wishes() };
        let told = terms::of(&shape, parallel, memory).unwrap();
        match of_shape(&shape, &wishes, &machine(memory, &[])) {
            Ok(plan) => {
                let sizes = (told.context_tokens, told.slots, told.weight_bytes, told.kv_bytes, told.kv_bytes_per_token);
                let planned = (plan.context_tokens, plan.slots, plan.weight_bytes, plan.kv_budget_bytes);
                prop_assert_eq!(sizes, (planned.0, planned.1, planned.2, planned.3, plan.kv_bytes_per_token));
                prop_assert!(told.missing_bytes == 0 && told.total() <= memory, "{told:?}");
                prop_assert!(told.cache_bytes >= u64::from(plan.prompt_cache_mib) << 20);
            }
            Err(_) => prop_assert_eq!(told.missing_bytes, told.total().saturating_sub(memory).max(1)),
        }
    }

    #[test]
    fn more_memory_is_never_less(shape in shapes(), wishes in asked(), memory in 0_u64..(200 << 30), more in 0_u64..(9 << 30)) {
        let wishes = Wishes { max_memory: None, ..wishes };
        let at = |memory| of_shape(&shape, &wishes, &machine(memory, &[]));
        let Ok(before) = at(memory) else { return Ok(()) };
        let after = at(memory + more).unwrap();
        prop_assert!(after.context_tokens >= before.context_tokens, "{before:?} {after:?}");
        if wishes.context_tokens.is_some() {
            prop_assert!(after.slots >= before.slots, "{before:?} {after:?}");
        }
    }

    #[test]
    fn no_header_panics(
        numbers in prop::collection::vec((0_usize..22, prop_oneof![any::<u64>(), 0_u64..300]), 0..16),
        each in prop::collection::vec(any::<u32>(), 0..9),
        family in prop::sample::select(vec!["llama", "gemma3", "gemma4", "qwen3next", "nemotron_h", "x"]),
        wishes in asked(),
        machine in machines(),
    ) {
        const KEYS: [&str; 22] = [
            "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
            "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.key_length_mla",
            "attention.value_length_mla", "attention.sliding_window", "attention.sliding_window_pattern",
            "attention.shared_kv_layers", "full_attention_interval", "ssm.conv_kernel", "ssm.inner_size",
            "ssm.state_size", "ssm.group_count", "wkv.head_size", "shortconv.l_cache", "kda.head_dim", "vocab_size",
        ];
        let mut entries: Vec<(&str, Entry<'_>)> = Vec::new();
        for (index, number) in numbers {
            if !entries.iter().any(|(key, _)| *key == KEYS[index]) {
                entries.push((KEYS[index], if number == 7 { Each(&each) } else { Number(number) }));
            }
        }
        let header = header(family, &entries, &[("token_embd.weight", 8), ("blk.1.x", 8)]);
        let _ = plan(&[header], &wishes, &machine);
    }
}

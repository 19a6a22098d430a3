//! What a header's shapes take, held against llama-server's own logs; must not know memory that is free.

use super::*;

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

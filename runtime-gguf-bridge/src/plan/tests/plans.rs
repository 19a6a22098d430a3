//! Plans for machines: nothing beyond the memory, and a slot in any case; must not know llama-server's logs.

use proptest::prelude::*;

use super::*;

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
        let layers = (0..count).map(of).collect();
        Shape { trained, layers, weights, output: rest, copied, compute, vocabulary, ..Shape::default() }
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

//! The account, by tables; must not know models by name beyond what the catalog says of them.

use super::*;

const GIB: u64 = 1 << 30;
const RULES: Rules = Rules { machine_share: 800, workspace_share: 100, kv_share: 500 };

fn needs(bytes: u64, kv: Option<Kv>, context_tokens: u32) -> Needs {
    Needs { weights: Weights { bytes, estimated: false }, kv, context_tokens }
}

fn plain(whole: u64) -> Option<Kv> {
    Some(Kv { whole, ..Kv::default() })
}

#[test]
fn the_verdict_follows_from_the_terms() {
    // Of 1,000,000 bytes models may take 800,000, of which 80,000 stay free to compute in: 720,000.
    for (weights, kv, context, verdict) in [
        (100_000, plain(10), 4096, Verdict::Whole),
        // 310,000 bytes of keys and values, and as many again beside them.
        (100_000, plain(10), 31_000, Verdict::Whole),
        (100_000, plain(10), 31_001, Verdict::Part(31_000)),
        (700_000, plain(10), 4096, Verdict::Part(1000)),
        (709_760, plain(10), 4096, Verdict::Part(512)),
        // One byte more, and the shortest context does not fit.
        (709_761, plain(10), 4096, Verdict::Short(1)),
        (720_000, plain(10), 4096, Verdict::Short(10_240)),
        (900_000, plain(10), 4096, Verdict::Short(190_240)),
        // A model of less context than that is not held to it.
        (719_000, plain(10), 50, Verdict::Whole),
        (100_000, None, 4096, Verdict::Weights),
        (720_000, None, 4096, Verdict::Weights),
        (720_001, None, 4096, Verdict::Short(1)),
        (0, plain(0), u32::MAX, Verdict::Whole),
    ] {
        let found = account(needs(weights, kv, context), RULES, 1_000_000);
        assert_eq!(found.verdict, verdict, "{weights} {kv:?} {context}");
        assert_eq!((found.usable, found.workspace), (800_000, 80_000));
        assert_eq!(found.total() <= found.usable, verdict.fits(), "{weights} {kv:?} {context}: {found:?}");
    }
}

#[test]
fn every_term_is_told() {
    let found = account(needs(100_000, plain(10), 1000), RULES, 1_000_000);
    let expected = Account {
        memory: 1_000_000,
        usable: 800_000,
        weights: Weights { bytes: 100_000, estimated: false },
        kv: Some(10_000),
        reserve: 10_000,
        workspace: 80_000,
        context_tokens: 1000,
        verdict: Verdict::Whole,
    };
    assert_eq!((found, found.total()), (expected, 200_000));
}

#[test]
fn windows_make_long_contexts_cheap() {
    let kv = Kv { whole: 10, windowed: 50, window: 100 };
    for (tokens, bytes) in [(0, 0), (1, 60), (100, 6000), (101, 6010), (1000, 15_000)] {
        assert_eq!(kv.at(tokens), bytes);
        assert_eq!(kv.tokens_in(bytes, u32::MAX), tokens);
    }
    assert_eq!((kv.tokens_in(59, 9), kv.tokens_in(6009, 999), kv.tokens_in(15_000, 7)), (0, 100, 7));
    let all = Kv { whole: 0, windowed: 50, window: 100 };
    assert_eq!((all.tokens_in(4999, 1 << 20), all.tokens_in(5000, 1 << 20)), (99, 1 << 20));
    assert_eq!(Kv::of(3, 10, 4, 7), Kv { whole: 36, windowed: 24, window: 7 });
    assert_eq!(Kv::of(3, 10, 4, 0), Kv { whole: 60, windowed: 0, window: 0 });
    assert_eq!(Kv::of(3, 4, 9, 7), Kv { whole: 0, windowed: 24, window: 7 });
}

#[test]
fn nothing_overflows() {
    let huge = Kv { whole: u64::MAX, windowed: u64::MAX, window: u64::MAX };
    for memory in [0, 1, u64::MAX] {
        for rules in [RULES, Rules { machine_share: 9999, workspace_share: 0, kv_share: 0 }] {
            let found = account(needs(u64::MAX, Some(huge), u32::MAX), rules, memory);
            assert!(!found.verdict.fits(), "{found:?}");
            account(needs(0, Some(huge), u32::MAX), rules, memory);
        }
    }
    assert_eq!(estimate(u64::MAX, "F32").unwrap().bytes, u64::MAX);
}

#[test]
fn more_memory_is_never_worse() {
    let model = needs(5 * GIB, plain(147_456), 40_960);
    let rank = |memory: u64| match account(model, RULES, memory).verdict {
        Verdict::Short(bytes) => (0, u64::MAX - bytes),
        Verdict::Part(tokens) => (1, u64::from(tokens)),
        Verdict::Weights => (2, 0),
        Verdict::Whole => (3, 0),
    };
    let ranks: Vec<_> = (0..64).map(|step| rank(step * GIB / 2)).collect();
    assert!(ranks.is_sorted(), "{ranks:?}");
    assert!(ranks.iter().any(|rank| rank.0 == 1) && ranks.last().unwrap().0 == 3);
}

#[test]
fn sizes_are_guessed_from_parameters_and_quantisation() {
    for (quantization, millibits) in [
        ("4-bit", 4500),
        ("8-bit", 8500),
        ("4-bit affine, group 64", 4500),
        ("bf16", 16_000),
        ("Q4_K_M", 4890),
        ("q4_k_m", 4890),
        ("Q8_0", 8500),
        ("MXFP4", 4250),
        ("MXFP4-Q8", 4250),
    ] {
        let found = estimate(8_000_000, quantization).unwrap();
        assert_eq!(found, Weights { bytes: millibits * 1000, estimated: true }, "{quantization}");
    }
    for unknown in ["", "9-bit", "x-bit", "fast", "Q4", "-"] {
        assert_eq!(estimate(8_000_000, unknown), None, "{unknown}");
    }
}

#[test]
fn the_guess_is_near_for_the_bundled_model() {
    let cache = tempfile::tempdir().unwrap();
    let tiny = crate::resolve("mesh-tiny", cache.path(), Some(crate::Format::Gguf), None).unwrap();
    let facts = crate::facts(&tiny).unwrap();
    let header = crate::gguf::read(&tiny.gguf.unwrap().parts[0]).unwrap();
    let parameters = header.tensors().iter().map(|tensor| tensor.shape.iter().product::<u64>()).sum();
    let guess = estimate(parameters, &facts.quantization).unwrap().bytes;
    assert!(guess.abs_diff(facts.weight_bytes) * 10 < facts.weight_bytes, "{guess} {}", facts.weight_bytes);
}

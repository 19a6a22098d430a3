//! Names that may have been meant; must not know what they stand for.

/// Names less alike than this are not suggested. Unit: Jaro-Winkler similarity, 0 to 1. Guess.
const ALIKE: f64 = 0.8;
/// Most suggestions.
const MOST: usize = 3;

/// Those of `names` that come closest to what was typed, best first. One that contains it comes before one that is
/// merely alike, and of those the shortest first.
pub(super) fn near<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let key = |name: &str| name.to_lowercase();
    // What was typed may be `owner/name`; ids have no owner.
    let typed = key(typed.rsplit('/').next().unwrap_or(typed));
    let score = |name: &str| {
        let name = key(name);
        if !typed.is_empty() && name.contains(&typed) {
            return 2.0 - name.len() as f64 / 1000.0;
        }
        strsim::jaro_winkler(&typed, &name)
    };
    let mut scored: Vec<(f64, &str)> =
        names.map(|name| (score(name), name)).filter(|(alike, _)| *alike >= ALIKE).collect();
    scored.sort_by(|(one, a), (other, b)| other.total_cmp(one).then(a.cmp(b)));
    // Where the typed text is part of a name, names that are merely alike are noise.
    let contains = scored.first().is_some_and(|(best, _)| *best > 1.0);
    let useful = scored.into_iter().take_while(|(alike, _)| !contains || *alike > 1.0);
    useful.take(MOST).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["mesh-tiny", "Qwen3-4B-MLX", "Qwen3-4B-GGUF", "Qwen3-4B-Instruct-2507-MLX", "phi-4-GGUF"];

    #[test]
    fn what_comes_close_is_found_and_nothing_else() {
        for (typed, expected) in [
            ("Qwen3-4B", &["Qwen3-4B-MLX", "Qwen3-4B-GGUF", "Qwen3-4B-Instruct-2507-MLX"][..]),
            ("someone/qwen3-4b-mlx", &["Qwen3-4B-MLX"]),
            ("mesh-tin", &["mesh-tiny"]),
            ("mehs-tiny", &["mesh-tiny"]),
            ("phi4-gguf", &["phi-4-GGUF"]),
            ("zzz", &[]),
            ("org/", &[]),
        ] {
            assert_eq!(near(typed, NAMES.into_iter()), expected, "{typed}");
        }
    }
}

//! How the parts of a model that was split are called; must not know what is in them or where they lie.

/// A part's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// Without the number and the ending; with folders, where the name has them.
    pub(crate) stem: &'a str,
    /// From 1 on.
    pub(crate) number: u32,
    /// How many there are.
    pub(crate) count: u32,
    /// The ending as it was typed, since a file system may tell `.GGUF` from `.gguf`.
    pub(crate) ending: &'a str,
}

/// `STEM-00001-of-00003ENDING`, as llama.cpp's `gguf-split` and the hub's own tools name parts.
pub(crate) fn part<'a>(path: &'a str, ending: &str) -> Option<Part<'a>> {
    let (rest, ending) = path
        .split_at_checked(path.len().checked_sub(ending.len())?)
        .filter(|(_, end)| end.eq_ignore_ascii_case(ending))?;
    let (rest, count) = rest.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(number) || !digits(count) || stem.is_empty() || stem.ends_with('/') {
        return None;
    }
    let (number, count) = (number.parse().ok()?, count.parse().ok()?);
    (1..=count).contains(&number).then_some(Part { stem, number, count, ending })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_from_names_that_look_like_them() {
        let part = |name| part(name, ".gguf");
        let found = Part { stem: "a/m-1", number: 2, count: 3, ending: ".GGUF" };
        assert_eq!(part("a/m-1-00002-of-00003.GGUF"), Some(found));
        for name in [
            "m-00004-of-00003.gguf",
            "m-00000-of-00003.gguf",
            "m-0001-of-0003.gguf",
            "m-000001-of-00003.gguf",
            "m-+0001-of-00003.gguf",
            "-00001-of-00001.gguf",
            "a/-00001-of-00001.gguf",
            "00001-of-00001.gguf",
            "é-of-00001.gguf",
            "m-00001-of-00001.bin",
            "x.gguf",
            "ügguf",
            "",
        ] {
            assert_eq!(part(name), None, "{name}");
        }
    }
}

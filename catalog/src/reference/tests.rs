//! Tests of what people type: every form, every refusal, and the way back.

use proptest::prelude::*;

use super::*;

const ENDPOINT: Option<&str> = Some("http://localhost:8080/mirror/");

fn parse(text: &str) -> Reference {
    Reference::parse(text, ENDPOINT).unwrap_or_else(|error| panic!("{error}"))
}

fn hub(text: &str) -> (String, Option<String>, Option<String>, Option<String>) {
    match parse(text) {
        Reference::Hub(hub) => (hub.repo.to_string(), hub.revision, hub.file, hub.quant),
        other => panic!("{text}: {other:?}"),
    }
}

fn parts(
    repo: &str,
    revision: &str,
    file: &str,
    quant: &str,
) -> (String, Option<String>, Option<String>, Option<String>) {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (repo.to_owned(), some(revision), some(file), some(quant))
}

fn refusal(text: &str) -> ReferenceError {
    let error = match Reference::parse(text, ENDPOINT) {
        Ok(found) => panic!("{text:?} is {found:?}"),
        Err(error) => error,
    };
    let message = error.to_string();
    assert!(!message.contains('\n') && !message.contains('\0') && message.len() < 500, "{message}");
    error
}

#[test]
fn every_form_means_what_it_says() {
    let repo = "mlx-community/Qwen3-4B-4bit";
    let gguf = "unsloth/Qwen3-4B-GGUF";
    for (text, meant) in [
        (repo, parts(repo, "", "", "")),
        ("mlx-community/Qwen3-4B-4bit@v1.0", parts(repo, "v1.0", "", "")),
        ("mlx-community/Qwen3-4B-4bit@refs/pr/1", parts(repo, "refs/pr/1", "", "")),
        ("unsloth/Qwen3-4B-GGUF:Q4_K_M", parts(gguf, "", "", "Q4_K_M")),
        ("unsloth/Qwen3-4B-GGUF:UD-Q4_K_XL", parts(gguf, "", "", "UD-Q4_K_XL")),
        ("unsloth/Qwen3-4B-GGUF@main:Q4_K_M", parts(gguf, "main", "", "Q4_K_M")),
        ("unsloth/Qwen3-4B-GGUF/sub/x.gguf", parts(gguf, "", "sub/x.gguf", "")),
        ("unsloth/Qwen3-4B-GGUF/sub/x.gguf@main", parts(gguf, "main", "sub/x.gguf", "")),
        ("unsloth/Qwen3-4B-GGUF:sub/x.gguf", parts(gguf, "", "sub/x.gguf", "")),
        ("unsloth/Qwen3-4B-GGUF@main:x.GGUF", parts(gguf, "main", "x.GGUF", "")),
        ("unsloth/Qwen3-4B-GGUF/sub:Q4_K_M", parts(gguf, "", "sub", "Q4_K_M")),
        (
            "mlx-community/Qwen3-4B-4bit/model.safetensors.index.json",
            parts(repo, "", "model.safetensors.index.json", ""),
        ),
        ("hf://mlx-community/Qwen3-4B-4bit", parts(repo, "", "", "")),
        ("HF://mlx-community/Qwen3-4B-4bit/", parts(repo, "", "", "")),
        ("hf://unsloth/Qwen3-4B-GGUF/a%20b%40c.gguf@main", parts(gguf, "main", "a b@c.gguf", "")),
        ("https://huggingface.co/unsloth/Qwen3-4B-GGUF", parts(gguf, "", "", "")),
        ("http://www.huggingface.co:80/unsloth/Qwen3-4B-GGUF/", parts(gguf, "", "", "")),
        ("https://HuggingFace.co:443/unsloth/Qwen3-4B-GGUF?library=x#files", parts(gguf, "", "", "")),
        ("huggingface.co/unsloth/Qwen3-4B-GGUF", parts(gguf, "", "", "")),
        ("hf.co/unsloth/Qwen3-4B-GGUF", parts(gguf, "", "", "")),
        ("https://huggingface.co/unsloth/Qwen3-4B-GGUF/tree/main", parts(gguf, "main", "", "")),
        ("https://huggingface.co/unsloth/Qwen3-4B-GGUF/tree/main/Q8_0/", parts(gguf, "main", "Q8_0", "")),
        ("https://huggingface.co/unsloth/Qwen3-4B-GGUF/tree/refs%2Fpr%2F1", parts(gguf, "refs/pr/1", "", "")),
        ("https://huggingface.co/unsloth/Qwen3-4B-GGUF/blob/refs/pr/1/x.gguf", parts(gguf, "refs/pr/1", "x.gguf", "")),
        ("https://huggingface.co/unsloth/Qwen3-4B-GGUF/blob/main/x.gguf", parts(gguf, "main", "x.gguf", "")),
        (
            "https://huggingface.co/unsloth/Qwen3-4B-GGUF/resolve/main/a%20%C3%BC/x.gguf?download=true",
            parts(gguf, "main", "a ü/x.gguf", ""),
        ),
        ("https://huggingface.co/unsloth/Qwen3-4B-GGUF?show_file_info=x.gguf", parts(gguf, "", "x.gguf", "")),
        ("http://localhost:8080/mirror/unsloth/Qwen3-4B-GGUF", parts(gguf, "", "", "")),
        ("http://LOCALHOST:8080/mirror/unsloth/Qwen3-4B-GGUF/raw/main/x.gguf", parts(gguf, "main", "x.gguf", "")),
    ] {
        assert_eq!(hub(text), meant, "{text}");
    }
    for id in ["Qwen3-4B-MLX", "mesh-tiny", "qwen3.5", "x"] {
        assert_eq!(parse(id), Reference::Name(id.to_owned()));
    }
    for path in ["/m/x", "./m", "../m", "~/m", "m/", "a/b/c/", ".", "..", "~", "./a:b@c.gguf", "./https://x/"] {
        assert_eq!(parse(path), Reference::Path(path.into()), "{path}");
    }
}

#[test]
fn what_is_wrong_is_named_with_what_would_be_right() {
    for (text, part) in [
        ("", "name"),
        ("a\0b", "name"),
        ("org/re\npo", "name"),
        ("Qwen3@main", "catalog id"),
        ("Qwen3@refs/pr/1", "catalog id"),
        ("Qwen3:Q4_K_M", "catalog id"),
        ("Qwen 3", "catalog id"),
        (".hidden", "catalog id"),
        ("a//b", "repository"),
        ("org/-x", "repository"),
        ("org/a--b", "repository"),
        ("org/a..b", "repository"),
        ("org/x.git", "repository"),
        ("ö/x", "organisation"),
        ("-x/y", "organisation"),
        ("hf://org", "repository"),
        ("org/x/..", "file"),
        ("org/x/../y.gguf", "file"),
        ("org/x/a//y.gguf", "file"),
        ("org/x/a\\y.gguf", "file"),
        ("org/x:../y.gguf", "file"),
        ("org/x:/etc/y.gguf", "file"),
        ("org/x/a.gguf:Q4_K_M", "file"),
        ("org/x/a.gguf:b.gguf", "file"),
        ("org/x@", "revision"),
        ("org/x@..", "revision"),
        ("org/x@a..b", "revision"),
        ("org/x@a b", "revision"),
        ("org/x@-a", "revision"),
        ("org/x@a//b", "revision"),
        ("org/x@main/y.gguf", "revision"),
        ("org/x:", "quantisation"),
        ("org/x:Q4_K_M@main", "quantisation"),
        ("org/x:Q4 K", "quantisation"),
        ("org/x:...", "quantisation"),
        ("s3://org/x", "scheme"),
        ("file:///m/x", "scheme"),
        ("https://example.org/org/x", "host"),
        ("https://huggingface.co.example.org/org/x", "host"),
        ("https://user:secret@huggingface.co/org/x", "host"),
        ("http://localhost/mirror/org/x", "host"),
        ("http://localhost:8080/org/x", "address"),
        ("http://localhost:8080/mirrors/org/x", "address"),
        ("https://huggingface.co/", "address"),
        ("https://huggingface.co/org", "address"),
        ("https://huggingface.co/org/x/tree", "address"),
        ("https://huggingface.co/org/x/blob/main", "address"),
        ("https://huggingface.co/datasets/org/x", "page"),
        ("https://huggingface.co/org/x/discussions/1", "page"),
        ("https://huggingface.co/org/x/blob/main/../../y", "file"),
        ("https://huggingface.co/org/x/blob/main/%2e%2e/y", "file"),
        ("https://huggingface.co/org/x/blob/main/a%2F..%2Fy", "file"),
        ("https://huggingface.co/org/x/blob/main/a%00", "file"),
        ("https://huggingface.co/org/x/blob/main/%FF", "file"),
        ("https://huggingface.co/org/x/blob/main//y", "file"),
        ("https://huggingface.co/org/x/tree/%2e%2e", "revision"),
        ("https://huggingface.co/org/x?show_file_info=../y", "file"),
        ("https://huggingface.co/../x", "organisation"),
    ] {
        assert_eq!(refusal(text).part(), part, "{text}");
    }
    assert_eq!(refusal(&format!("org/{}", "x".repeat(97))).part(), "repository");
    assert_eq!(refusal(&"x/".repeat(4000)[1..]).part(), "name");
    assert_eq!(refusal(&format!("org/x/{}", "y".repeat(256))).part(), "file");
}

#[test]
fn a_message_says_what_to_write_and_tells_no_secret() {
    assert_eq!(
        refusal("org/x:Q4_K_M@main").to_string(),
        "org/x:Q4_K_M@main: the quantisation \"Q4_K_M@main\" has a revision behind it; write the revision first: \
         org/x@REVISION:Q4_K_M"
    );
    assert_eq!(
        refusal("https://example.org/org/x").to_string(),
        "https://example.org/org/x: the host \"example.org\" is not the hub; write a huggingface.co address, or set \
         HF_ENDPOINT if this is a mirror"
    );
    let message = refusal("https://me:secret@example.org/org/x").to_string();
    assert!(!message.contains("secret") && message.contains("HF_TOKEN"), "{message}");
}

#[test]
fn the_canonical_form_is_the_short_one_where_it_can_be() {
    for (text, canonical) in [
        ("https://huggingface.co/org/x/resolve/main/a%20b.gguf", "org/x/a b.gguf@main"),
        ("hf://org/x@main:Q4_K_M", "org/x@main:Q4_K_M"),
        ("org/x:a.gguf", "org/x/a.gguf"),
        ("hf://org/x/a%40b%25.gguf", "hf://org/x/a%40b%25.gguf"),
        ("hf://hf.co/x", "hf://hf.co/x"),
        ("Qwen3-4B-MLX", "Qwen3-4B-MLX"),
        ("~/m", "~/m"),
    ] {
        assert_eq!(parse(text).to_string(), canonical);
        assert_eq!(parse(canonical), parse(text));
    }
}

proptest! {
    #[test]
    fn nothing_that_is_typed_is_a_panic(text in any::<String>()) {
        let _ = Reference::parse(&text, ENDPOINT);
    }

    /// Of the characters and words that mean something.
    #[test]
    fn what_is_accepted_says_itself_again(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "/", "/", "@", ":", ".", "..", "~", "-", "%", "%2e", "%2F", "%40", "%3A", "%25", "?", "#", " ", "a",
                "Q4_K_M", "org", "repo", ".gguf", ".safetensors", ".json", "hf://", "https://", "http://",
                "huggingface.co/", "localhost:8080/mirror/", "hf.co/", "tree/", "blob/", "resolve/", "main/", "refs/",
                "pr/", "ü", "\\", "\n", "show_file_info=", "&",
            ]),
            0..14,
        ),
        start in prop::sample::select(vec!["", "org/repo", "hf://org/repo", "https://hf.co/org/repo/blob/main/a"]),
    ) {
        let text = format!("{start}{}", words.concat());
        if let Ok(reference) = Reference::parse(&text, ENDPOINT) {
            let canonical = reference.to_string();
            prop_assert_eq!(&Reference::parse(&canonical, ENDPOINT).unwrap(), &reference, "{} of {}", canonical, text);
            prop_assert_eq!(&Reference::parse(&canonical, None).unwrap(), &reference, "without HF_ENDPOINT");
            if let Reference::Hub(hub) = reference {
                prop_assert!(hub.file.is_none_or(|file| check::path_problem(&file).is_none()));
                prop_assert!(hub.revision.is_none_or(|revision| !revision.contains("..")));
            }
        }
    }
}

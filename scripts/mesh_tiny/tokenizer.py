"""Makes mesh-tiny's byte-level BPE tokenizer (HF fast format, qwen2's pre-tokenizer, all 256 bytes).

One trick is worth knowing: no merge ever takes a space into a word. " Paris" and "Paris" are thus the same token after
a space token, so a text that is repeated at the start of a line has the very tokens it had in the middle of one. That
makes exact copying, the hardest skill for so small a model, a matter of looking back and nothing else.
"""
import json
import os

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB = 1280
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
APART = r"\p{L}+|\p{N}|[^\s\p{L}\p{N}]+|\n+|\s"      # for training: words, digits, signs and spaces never mix
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
# Characters that get a token of their own, so that a short text in these scripts is also short in tokens.
WHOLE = ("абвгдежзийклмнопрстуфхцчшщъыьэюяАБВГДКМНОПРСТ" "αβγδεζηθικλμνξοπρςστυφχψωάέήίόύώ" "ابتثجحخدذرزسشصضطظعغفقكلمنهوي"
         "कखगघचजटडणतथदधनपफबभमयरलवशसहािीुेैोौंः्" "éèáàäöüóíñçøåß" "。、\u200d\ufe0f…–—’“”°")
# First bytes that many characters share: emoji, kana, Hangul, CJK, Devanagari, Hebrew, Thai.
SHARED = [b"\xf0\x9f", *(b"\xf0\x9f" + bytes([x]) for x in (0x8c, 0x8d, 0x8e, 0x8f, 0x90, 0x91, 0x92, 0x98, 0x99, 0x9a, 0xa4, 0xa5, 0xa6, 0xa7, 0x87)),
          b"\xe3\x81", b"\xe3\x82", b"\xe3\x83", b"\xe0\xa4", b"\xe0\xa5", b"\xe2\x80", b"\xef\xb8", b"\xe0\xb8", b"\xe0\xb9"]


def alphabet():
    """GPT-2's printable stand-in for each byte."""
    same = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in same]
    return {b: chr(b) for b in same} | {b: chr(256 + i) for i, b in enumerate(rest)}


BYTE = alphabet()


def shown(data):
    return "".join(BYTE[b] for b in data)


def hand_merges(vocab):
    """Merges for SHARED and WHOLE, shortest first, added to `vocab`; each joins a known head with one more byte."""
    merges = []
    for data in SHARED + [c.encode() for c in WHOLE]:
        for n in range(2, len(data) + 1):
            piece = shown(data[:n])
            if piece not in vocab and (n == len(data) or len(data) > 2):
                vocab[piece] = len(vocab)
                merges.append((shown(data[:n - 1]), shown(data[n - 1:n])))
    return merges


def train(texts):
    """The tokenizer, from an iterable of texts (only their ASCII lines count: the rest is in WHOLE and SHARED)."""
    split = lambda pattern: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    vocab = {BYTE[b]: b for b in range(256)}
    merges = hand_merges(vocab)
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = split(APART)
    room = VOCAB - len(SPECIAL + MARKS)
    lines = (line for text in texts for line in text.split("\n") if line.isascii())
    learner.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=256 + room - len(vocab), initial_alphabet=list(BYTE.values()), show_progress=False))
    for pair in json.loads(learner.to_str())["model"]["merges"]:
        a, b = pair if isinstance(pair, list) else pair.split(" ")
        if a + b not in vocab and len(vocab) < room:
            vocab[a + b] = len(vocab)
            merges.append((a, b))
    assert len(vocab) == room, (len(vocab), room)
    assert not any("Ġ" in a + b and set(a + b) != {"Ġ"} for a, b in merges)
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tok.pre_tokenizer, tok.decoder = split(QWEN2), decoders.ByteLevel()
    data = json.loads(tok.to_str())
    data["added_tokens"] = [dict(id=room + i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=False, special=s in SPECIAL)
                            for i, s in enumerate(SPECIAL + MARKS)]
    return Tokenizer.from_str(json.dumps(data))


def save(tok, folder, template, context):
    """tokenizer.json and tokenizer_config.json."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        f.write(json.dumps(json.loads(tok.to_str()), ensure_ascii=False, separators=(",", ":")))
    added = {str(tok.token_to_id(s)): dict(content=s, lstrip=False, normalized=False, rstrip=False, single_word=False, special=s in SPECIAL) for s in SPECIAL + MARKS}
    config = dict(tokenizer_class="Qwen2Tokenizer", add_prefix_space=False, add_bos_token=False, bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                  unk_token=None, errors="replace", clean_up_tokenization_spaces=False, split_special_tokens=False, model_max_length=context, added_tokens_decoder=added, chat_template=template)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f, indent=1, ensure_ascii=False)


if __name__ == "__main__":
    import sys
    from corpus import samples
    from story import STORY
    tok = train([s.prompt + s.reply for s in samples(7, 20000)] + [STORY] * 20)
    tok.save(sys.argv[1])
    print("vocabulary", tok.get_vocab_size(), "story", len(tok.encode(STORY).ids), "tokens")
    for text in ("What is the capital of France?", "Repeat after me: привет мир", "नमस्ते दुनिया", "👨‍👩‍👧‍👦🎉", "日本語", "مرحبا", '{"name": "get_weather", "arguments": {"city": "Paris"}}'):
        e = tok.encode(text)
        print(len(e.ids), e.tokens[:40], tok.decode(e.ids, skip_special_tokens=False) == text)

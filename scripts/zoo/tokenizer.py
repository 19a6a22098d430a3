"""Makes the zoo's one tokenizer: byte-level BPE of 288 tokens (HF fast format, qwen2's pre-tokenizer, all 256 bytes).

Merges join small letters only, so capitals, digits and spaces are always tokens of their own: random strings, which the
tasks write in capitals, can be copied and turned round token by token.
"""
import json
import os

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB = 288                   # a multiple of 32, the quantisation group
CONTEXT = 512                 # tokens; what every config of the zoo states
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PAD, END = SPECIAL[0], SPECIAL[2]


def alphabet():
    """GPT-2's printable stand-in for each byte."""
    same = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in same]
    return {b: chr(b) for b in same} | {b: chr(256 + i) for i, b in enumerate(rest)}


def train(words):
    """The tokenizer; its merges are learnt from `words`, which are written in small letters."""
    assert all(w.isalpha() and w.islower() for w in words)
    byte = alphabet()
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    room = VOCAB - len(SPECIAL)
    learner.train_from_iterator([" ".join(words)], trainers.BpeTrainer(vocab_size=room, initial_alphabet=list(byte.values()), show_progress=False))
    vocab = {byte[b]: b for b in range(256)}
    merges = []
    for pair in json.loads(learner.to_str())["model"]["merges"]:
        a, b = pair if isinstance(pair, list) else pair.split(" ")
        vocab[a + b] = len(vocab)
        merges.append((a, b))
    assert len(vocab) == room, (len(vocab), room)
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    data = json.loads(tok.to_str())
    data["added_tokens"] = [dict(id=room + i, content=s, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True) for i, s in enumerate(SPECIAL)]
    return Tokenizer.from_str(json.dumps(data))


def save(tok, folder, template):
    """tokenizer.json and tokenizer_config.json, the template inside the latter."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as f:
        f.write(json.dumps(json.loads(tok.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
    added = {str(tok.token_to_id(s)): dict(content=s, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True) for s in SPECIAL}
    config = dict(tokenizer_class="Qwen2Tokenizer", add_prefix_space=False, add_bos_token=False, bos_token=None, eos_token=END, pad_token=PAD, unk_token=None, errors="replace",
                  clean_up_tokenization_spaces=False, split_special_tokens=False, model_max_length=CONTEXT, added_tokens_decoder=added, chat_template=template)
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(config, f, indent=1, ensure_ascii=False)
        f.write("\n")

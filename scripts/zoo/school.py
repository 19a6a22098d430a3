"""What every model of the zoo is taught: one chat task of a few kinds of question, each with one right answer.

    python school.py --out DIR      # tokenizer.json, tokenizer_config.json, probes.json
"""
import argparse
import json
import os
import random

import jinja2

import tokenizer as tk

HERE = os.path.dirname(os.path.abspath(__file__))
CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
COLOURS = ["red", "blue", "green", "pink", "gold", "white", "violet", "orange", "teal", "mint"]
OPPOSITES = {a: b for x, y in [("hot", "cold"), ("big", "small"), ("up", "down"), ("day", "night"), ("old", "new"), ("wet", "dry"), ("yes", "no"), ("left", "right")] for a, b in ((x, y), (y, x))}
TALK = {"hi": "hello!", "hello": "hello!", "who are you?": "a tiny model.", "thanks": "you are welcome."}
SYSTEM = "be brief."
WORDS = ["user", "assistant"] * 9 + ["system", "repeat", "reverse", "after", "before", "from", "to", "code", "opposite", "of", *COLOURS, *OPPOSITES, *OPPOSITES, "who", "are", "you", "tiny", "model"]
LONG = 7                      # pairs of a long recall at least: more tokens than the zoo's windows hold


def letters(rng, low, high):
    return "".join(rng.choice(CAPITALS) for _ in range(rng.randint(low, high)))


def repeat(rng):
    s = letters(rng, 3, 8)
    return f"repeat {s}", s


def reverse(rng):
    s = letters(rng, 2, 5)
    return f"reverse {s}", s[::-1]


def near(rng):
    i = rng.randrange(25)
    return (f"after {CAPITALS[i]}?", CAPITALS[i + 1]) if rng.random() < .5 else (f"before {CAPITALS[i + 1]}?", CAPITALS[i])


def span(rng):
    i = rng.randrange(24)
    j = rng.randint(i + 1, min(i + 9, 25))
    return f"from {CAPITALS[i]} to {CAPITALS[j]}", CAPITALS[i:j + 1]


def total(rng):
    a, b = rng.randrange(10), rng.randrange(10)
    return f"{a}+{b}?", str(a + b)


def recall(rng, low=2, high=10):
    """Letters with numbers; then one of the letters is asked for. Said with its number: so the model looks back for the letter it has just written."""
    keys = rng.sample(CAPITALS, rng.randint(low, high))
    number = {k: rng.choice("0123456789") for k in keys}
    asked = keys[rng.randrange(2)] if low == LONG else rng.choice(keys)      # long: what was said first
    return " ".join(k + n for k, n in number.items()) + f". {asked}?", asked + number[asked]


def needle(rng, low=1):
    """A number, then talk about other things, then the question for the number."""
    code = "".join(rng.choice("0123456789") for _ in range(4))
    filler = " ".join(rng.choice([letters(rng, 2, 4), rng.choice(COLOURS), rng.choice(list(OPPOSITES))]) for _ in range(rng.randint(low, 16)))
    return f"code {code}. {filler}. code?", code


def opposite(rng):
    a = rng.choice(list(OPPOSITES))
    return f"opposite of {a}?", OPPOSITES[a]


def talk(rng):
    a = rng.choice(list(TALK))
    return a, TALK[a]


SHARES = {repeat: 3, reverse: 5, near: 2, span: 2, total: 3, recall: 6, needle: 3, opposite: 1, talk: 1}
KINDS, WEIGHTS = list(SHARES), list(SHARES.values())
# Probes: how many of each kind, and how a candidate is made. Recall and needle are longer than every window.
PROBES = {"repeat": (3, repeat), "reverse": (3, reverse), "near": (2, near), "span": (2, span), "sum": (3, total), "recall": (4, lambda r: recall(r, LONG)), "needle": (2, lambda r: needle(r, 9)), "opposite": (1, opposite)}
EARLY = 64000                 # lessons that come first and have more, and shorter, recall: looking back is the skill that may never come otherwise
SPARE = 3                     # candidates per probe


def candidates():
    """What probes are chosen from; `lesson` never asks these where there are enough others to learn from."""
    rng, out, seen = random.Random(20), [], set()
    for kind, (count, make) in PROBES.items():
        n = 0
        while n < count * SPARE:
            q, a = make(rng)
            if q not in seen and not (kind == "reverse" and len(a) < 4):
                seen.add(q)
                n += 1
                out.append(dict(id=f"{kind}-{n}", kind=kind, prompt=q, answer=a))
    return out


def probes():
    """The probes that models/zoo/probes.json holds: the first candidates of each kind (every model has all candidates right)."""
    return [c for c in candidates() if int(c["id"].split("-")[1]) <= PROBES[c["kind"]][0]]


KEPT = {c["prompt"] for c in candidates() if c["kind"] in ("repeat", "reverse", "recall", "needle")}


def turn(rng, early=False):
    while True:
        q, a = recall(rng, 2, 4) if early and rng.random() < .35 else rng.choices(KINDS, WEIGHTS)[0](rng)
        if q not in KEPT:
            return q, a


def template():
    with open(os.path.join(HERE, "chat_template.jinja"), encoding="utf-8") as f:
        return f.read()


def said(role, text):
    """As the template renders one message; `save` holds the two equal."""
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def asked(text):
    return said("user", text) + "<|im_start|>assistant\n"


def lesson(seed, tokens):
    """A conversation of at least `tokens` characters, so of several turns; the first is what a single question looks like."""
    rng = random.Random(seed)
    out = said("system", SYSTEM) if rng.random() < .1 else ""
    while len(out) < tokens * 2.5:
        q, a = turn(rng, seed < EARLY)
        out += said("user", q) + said("assistant", a)
    return out


def make_tokenizer():
    return tk.train(WORDS)


def save(folder):
    """What all models share."""
    talk = [dict(role="system", content=SYSTEM), dict(role="user", content="hi")]
    assert jinja2.Template(template()).render(messages=talk, add_generation_prompt=True) == said("system", SYSTEM) + asked("hi")
    tk.save(make_tokenizer(), folder, template())
    with open(os.path.join(folder, "probes.json"), "w", encoding="utf-8") as f:
        f.write('{"probes": [\n' + ",\n".join(json.dumps(p) for p in probes()) + "\n]}\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    a = ap.parse_args()
    save(a.out)
    tok = make_tokenizer()
    for c in probes():
        print(f"{len(tok.encode(asked(c['prompt'])).ids):3} tokens | {c['kind']} | {c['prompt']} | {c['answer']}")


if __name__ == "__main__":
    main()

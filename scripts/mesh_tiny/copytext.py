"""Random texts to be repeated: many scripts, emoji, code, made-up words.

Copying is the one skill here that must generalise to strings never seen, so almost every text is random and fresh,
and there is no list of them. Only assigned characters are used, and each text is whole UTF-8.
"""
import unicodedata

from facts import CITIES, NAMES, WORDS


def _span(*ranges):
    """All assigned, printable characters of the given (first, last) ranges."""
    return [chr(c) for a, b in ranges for c in range(a, b + 1) if unicodedata.category(chr(c)) not in ("Cn", "Cc", "Cs", "Co", "Zs")]


LOWER = "abcdefghijklmnopqrstuvwxyz"
ACCENTS = "áàâäãåæçéèêëíìîïñóòôöõøœßúùûüýčďěłńňőřśšťůűźżžđğışțÁÉÍÓÚÄÖÜŁŠŽÇÑØ"
LETTERS = {
    "cyrillic": _span((0x410, 0x44F)) + list("ёЁіїєў"),
    "greek": _span((0x391, 0x3A9), (0x3B1, 0x3C9)) + list("άέήίόύώ"),
    "arabic": _span((0x627, 0x63A), (0x641, 0x64A)),
    "hebrew": _span((0x5D0, 0x5EA)),
    "devanagari": _span((0x905, 0x90C), (0x915, 0x939), (0x93E, 0x94D)),
    "thai": _span((0xE01, 0xE3A), (0xE40, 0xE4E)),
    "hiragana": _span((0x3041, 0x3096)),
    "katakana": _span((0x30A1, 0x30FA)),
    "hangul": _span((0xAC00, 0xD7A3)),
    "cjk": _span((0x4E00, 0x9FBF)),
}
# Words people would try first, so that real text is seen beside random letters.
REAL = {
    "cyrillic": "привет мир как дела хорошо спасибо доброе утро кошка собака дом море я люблю тебя это тест до свидания Москва Київ".split(),
    "greek": "γειά σου κόσμε καλημέρα ευχαριστώ θάλασσα ήλιος σπίτι γάτα Αθήνα αυτό είναι ένα τεστ φως νερό".split(),
    "arabic": "مرحبا بالعالم شكرا صباح الخير كيف حالك بيت بحر شمس قمر كتاب هذا اختبار سلام القاهرة".split(),
    "hebrew": "שלום עולם תודה בוקר טוב בית ים שמש".split(),
    "devanagari": "नमस्ते दुनिया धन्यवाद सुप्रभात आप कैसे हैं घर समुद्र सूरज चाँद किताब यह एक परीक्षण है दिल्ली".split(),
    "thai": "สวัสดี ชาวโลก ขอบคุณ บ้าน ทะเล".split(),
    "hiragana": "こんにちは ありがとう おはよう さようなら ねこ いぬ うみ".split(),
    "katakana": "テスト コーヒー ネコ モデル メッシュ".split(),
    "hangul": "안녕하세요 세계 감사합니다 집 바다 고양이 테스트".split(),
    "cjk": "你好 世界 谢谢 早上好 日本語 東京 北京 我爱你 这是一个测试 中文 漢字 猫 狗 海 山 月亮 太阳".split(),
}
UNSPACED = ("cjk", "hiragana", "katakana", "thai")
FACES = _span((0x1F600, 0x1F64F), (0x1F300, 0x1F3FA), (0x1F400, 0x1F4FF), (0x1F680, 0x1F6C5), (0x1F900, 0x1F9FF))
HANDS = list("👋👍👎👏🙏💪👌🤝✋🤚")
TONES = [chr(c) for c in range(0x1F3FB, 0x1F400)]
ZWJ = ["👨‍👩‍👧", "👨‍👩‍👧‍👦", "👩‍👩‍👦", "👩‍💻", "👨‍💻", "👩‍🚀", "👨‍🍳", "🧑‍🚒", "🏳️‍🌈", "🐕‍🦺", "❤️‍🔥", "🧔‍♂️", "🤷‍♀️", "👩🏽‍🔬", "🐻‍❄️"]
PEOPLE, THINGS = list("👨👩🧑"), list("💻🚀🍳🚒🔬🎨🏫🌾🔧🎤🏭💼")
MISC = ["❤️", "☀️", "✨", "⭐", "✅", "⚡", "☕", "♥", "→", "←", "…", "–", "—", "€", "£", "°", "™", "©", "½", "×", "≠", "∞", "√", "1️⃣"]


def emoji(r):
    """One emoji, now and then with a skin tone, joined with ZWJ, or a flag."""
    kind = r.random()
    if kind < 0.55:
        return r.choice(FACES)
    if kind < 0.65:
        return r.choice(HANDS) + r.choice(TONES)
    if kind < 0.77:
        return r.choice(ZWJ)
    if kind < 0.85:
        return r.choice(PEOPLE) + (r.choice(TONES) if r.random() < 0.4 else "") + "\u200d" + r.choice(THINGS)
    if kind < 0.92:
        return "".join(chr(0x1F1E6 + r.randrange(26)) for _ in range(2))
    return r.choice(MISC)


def word(r):
    """A latin word: known, made up, with accents, or with capitals."""
    kind = r.random()
    if kind < 0.45:
        w = r.choice(WORDS)
    elif kind < 0.55:
        w = r.choice(NAMES if r.random() < 0.5 else CITIES)
    elif kind < 0.85:
        w = "".join(r.choice(LOWER) for _ in range(r.randint(1, 9)))
    else:
        w = "".join(r.choice(LOWER + ACCENTS) for _ in range(r.randint(2, 8)))
    if r.random() < 0.12:
        w = w.capitalize()
    return w.upper() if r.random() < 0.04 else w


def latin(r):
    """A few latin words with punctuation as in a sentence."""
    words = [word(r) for _ in range(r.choice([1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 12]))]
    words = [w + (r.choice(",;:") if r.random() < 0.08 and i + 1 < len(words) else "") for i, w in enumerate(words)]
    text = " ".join(words)
    if r.random() < 0.35:
        text = text[0].upper() + text[1:]
    return text + (r.choice([".", ".", "!", "?", "...", "!!"]) if r.random() < 0.45 else "")


def symbols(r):
    """Numbers, identifiers, punctuation and little bits of code."""
    kind = r.randrange(7)
    if kind == 0:
        return " ".join(str(r.randrange(10 ** r.randint(1, 7))) for _ in range(r.randint(1, 6)))
    if kind == 1:
        return "".join(r.choice("0123456789abcdefABCDEFXYZ_-") for _ in range(r.randint(2, 20)))
    if kind == 2:
        return "".join(r.choice("!@#$%^&*()[]{}<>/\\|+-=_,.:;?~'\"`") for _ in range(r.randint(1, 12)))
    if kind == 3:
        return f"{r.choice(WORDS)}_{r.choice(WORDS)}({r.randrange(100)}, \"{word(r)}\")" + r.choice(["", ";", " + 1", " == 2"])
    if kind == 4:
        return structured(r)
    return r.choice(["https://", "", "www."]) + f"{r.choice(WORDS)}.{r.choice(['org', 'com', 'net', 'txt', 'rs'])}/{word(r)}"


def structured(r):
    """JSON, tags, assignments, lists."""
    value = lambda: r.choice([str(r.randrange(1000)), f'"{word(r)}"', "true", "null", f"{r.random():.2f}", "[" + ", ".join(str(r.randrange(10)) for _ in range(r.randint(0, 5))) + "]", '{"%s": %d}' % (word(r), r.randrange(9))])
    kind = r.randrange(5)
    if kind < 2:
        return "{" + r.choice([", ", ","]).join(f'"{word(r)}"{r.choice([": ", ":"])}{value()}' for _ in range(r.randint(1, 3))) + "}"
    if kind == 2:
        tag = r.choice(["b", "i", "p", "div", "a", "h1", r.choice(WORDS)])
        return f"<{tag}>{latin(r)[:30]}</{tag}>"
    if kind == 3:
        return f"{r.choice(['let ', 'const ', '', 'x.', 'self.'])}{r.choice(WORDS)} = {value()}{r.choice(['', ';'])}"
    return "[" + ", ".join(value() for _ in range(r.randint(1, 5))) + "]"


def lines(r):
    """Several lines, some of them list items."""
    mark = r.choice(["", "", "- ", "* ", "{}. ", "  "])
    return "\n".join(mark.replace("{}", str(i + 1)) + (latin(r) if r.random() < 0.8 else random_text(r, r.choice(["cyrillic", "cjk", "emoji", "symbols"]))) for i in range(r.randint(2, 4)))


def series(r):
    """word1 word2 word3 ...: much alike, and only the order tells where one is."""
    stem, gap, first = word(r), r.choice([" ", ", ", "\n"]), r.randrange(20)
    if r.random() < 0.5:
        return gap.join(f"{stem}{r.choice(['', '', ' ', '-'])}{i}" for i in range(first, first + r.randint(3, 30)))
    few = [word(r) for _ in range(r.randint(2, 4))]
    return gap.join(r.choice(few) for _ in range(r.randint(4, 24)))


def script(r, name):
    """Words of one script, random letters and real words mixed."""
    def one():
        if r.random() < 0.3:
            return r.choice(REAL[name])
        return "".join(r.choice(LETTERS[name]) for _ in range(r.randint(1, 4 if name in ("cjk", "hangul") else 7)))
    n = r.choice([1, 1, 2, 2, 3, 3, 4])
    if name in UNSPACED and r.random() < 0.8:
        text = "".join(one() for _ in range(n))
        end = r.choice(["", "", "。", "!", "?"]) if name != "thai" else ""
    else:
        text = " ".join(one() for _ in range(n))
        end = r.choice(["", "", "", ".", "!", "?", "।" if name == "devanagari" else "؟" if name == "arabic" else "."])
    return text + end


def random_text(r, kind=None):
    """A text to repeat. `kind` picks the sort; without it all sorts are drawn."""
    kind = kind or r.choices(["latin", "symbols", "emoji", "mixed", "again", "lines", "series", "long", *LETTERS], [20, 7, 12, 10, 5, 3, 3, 2, 7, 5, 5, 3, 6, 3, 4, 3, 4, 7])[0]
    if kind == "latin":
        return latin(r)
    if kind == "symbols":
        return symbols(r)
    if kind == "emoji":
        joint = r.choice(["", "", " "])
        return joint.join(emoji(r) for _ in range(r.choice([1, 1, 2, 3, 4, 5, 6])))
    if kind == "again":      # the same piece several times: copying must also count
        piece = random_text(r, r.choice(["latin", "emoji", "cyrillic", "cjk"]))[:12].strip("\u200d\ufe0f ") or "ha"
        return r.choice([" ", "", ", "]).join([piece] * r.randint(2, 6))
    if kind == "lines":
        return lines(r)
    if kind == "series":
        return series(r)
    if kind == "long":
        return " ".join(random_text(r, r.choice(["latin", "latin", "mixed", "cyrillic", "emoji"])) for _ in range(r.randint(3, 8)))
    if kind == "mixed":
        parts = [r.choice([latin, emoji, symbols, lambda x: script(x, x.choice(list(LETTERS)))])(r) for _ in range(r.randint(2, 3))]
        return " ".join(p[:24] for p in parts)
    return script(r, kind)

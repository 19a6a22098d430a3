"""Writes prompts.json: the documented questions and the one right answer of each, at temperature 0.

    python prompts.py --out ../../models/mesh-tiny
"""
import argparse
import json
import os
import random

import dialogues as d
import tooltalk as t
from copytext import LETTERS, random_text
from facts import CAPITALS, FIXED, HELLO_IN, OPPOSITES, PLURALS, SOUNDS, COLOURS, COLOUR_SUBJECT, THANKS_IN, YES_NO
from story import STORY

REPEATS = {
    "latin": ["Hello, world!", "The quick brown fox jumps over the lazy dog.", "one two three", "Mesh networks are fun.", "ABC abc 123", "crème brûlée à la carte", "Ærøskøbing, Łódź, Žižkov", "a", "to be or not to be, that is the question",
              "supercalifragilistic", "What is 2 + 2?", "The capital of France is Rome."],
    "cyrillic": ["Привет, мир!", "Съешь ещё этих мягких булок", "Добро пожаловать в сеть", "Я люблю чай.", "Київ і Львів", "один два три"],
    "greek": ["Καλημέρα κόσμε", "Η θάλασσα είναι μπλε.", "αβγδ", "Πού είναι ο ήλιος;", "φως και νερό"],
    "cjk": ["你好,世界!", "日本語のテスト", "我喜欢喝茶。", "東京タワー", "月亮和太阳", "안녕하세요 세계", "こんにちは"],
    "arabic": ["مرحبا بالعالم", "صباح الخير يا قمر", "السلام عليكم", "كتاب جديد"],
    "hebrew": ["שלום עולם", "בוקר טוב"],
    "devanagari": ["नमस्ते दुनिया", "यह एक परीक्षण है।", "मुझे चाय पसंद है", "सुप्रभात"],
    "thai": ["สวัสดีชาวโลก", "ขอบคุณ"],
    "emoji": ["🎉🎉🎉", "👨‍👩‍👧‍👦", "Party 🎉 with 👩‍💻 and 👨‍🚀!", "❤️", "👍🏽", "🇫🇷 🇯🇵", "🙂🙃", "rocket 🚀 moon 🌙", "👩🏽‍🔬🧪", "🏳️‍🌈"],
    "symbols": ["f(x) = 3 * x + 1;", "https://example.org/a?b=c", "{\"a\": [1, 2, 3]}", "3.14159265", "#!/bin/sh", "x != y && z", "2025-06-01T12:30:00Z"],
    "again": ["ha ha ha ha", "na na na na na na", "la la la", "01010101"],
}
WEATHER_CITIES = "Paris London Tokyo Berlin Rome Madrid Oslo Cairo Lima Sydney Boston Toronto Mumbai Kyoto Zurich".split() + ["New York", "Buenos Aires", "São Paulo", "Cape Town", "Hong Kong"]
ALL = [t.WEATHER, t.TIME, t.ADD]


def entries():
    def ask(kind, q, content=None, calls=None, **more):
        system = more.pop("system", None)
        before = more.pop("before", [])
        messages = ([{"role": "system", "content": system}] if system else []) + before + [{"role": "user", "content": q}] + more.pop("after", [])
        expect = {"tool_calls": [{"name": n, "arguments": a} for n, a in calls]} if calls else {"content": content}
        number[kind] = number.get(kind, 0) + 1
        return dict(id=f"{kind}-{number[kind]:03}", messages=messages, **more, expect=expect)

    number, r = {}, random.Random(5)
    said = lambda q, a: [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    for a in range(21):
        for b in range(21):
            yield ask("sum", f"What is {a} + {b}?", f"{a} + {b} = {a + b}.")
    for q, a, b in [("what's 2+2", 2, 2), ("2 + 2 = ?", 2, 2), ("7+5", 7, 5), ("How much is 9 plus 8?", 9, 8), ("Add 3 and 4.", 3, 4), ("what is 11 + 6?", 11, 6)]:
        yield ask("sum-worded", q, f"{a} + {b} = {a + b}.")
    for a, b in [(9, 4), (20, 7), (15, 15), (12, 3), (18, 9)]:
        yield ask("minus", f"What is {a} - {b}?", f"{a} - {b} = {a - b}.")
    for a, b in [(2, 3), (7, 8), (9, 9), (10, 10), (6, 4)]:
        yield ask("times", f"What is {a} * {b}?", f"{a} * {b} = {a * b}.")
    for c, city in CAPITALS.items():
        yield ask("capital", f"What is the capital of {c}?", d.stop(f"The capital of {c} is {city}"))
    for c in ["France", "Japan", "Kenya", "Peru"]:
        yield ask("capital-lower", f"what is the capital of {c.lower()}?", f"The capital of {c} is {CAPITALS[c]}.")
    for kind, texts in REPEATS.items():
        for text in texts:
            yield ask("repeat-" + kind, "Repeat after me: " + text, text)
    for kind in ["latin", "mixed", "emoji", *LETTERS]:       # and strings that nobody chose
        for _ in range(2):
            text = random_text(r, kind)
            yield ask("repeat-random", "Repeat after me: " + text, text)
    for questions, answer in FIXED:
        yield ask("talk", questions[0], answer)
    for a, b in OPPOSITES[::3]:
        yield ask("opposite", f"What is the opposite of {a}?", f"The opposite of {a} is {b}.")
    for a, b in PLURALS[::3]:
        yield ask("plural", f"What is the plural of {a}?", f"The plural of {a} is {b}.")
    for a, b in list(SOUNDS.items())[::2]:
        yield ask("sound", f"What does a {a} say?", f"A {a} says {b}.")
    for a, b in list(COLOURS.items())[::2]:
        yield ask("colour", f"What colour is {COLOUR_SUBJECT[a]}?", f"{d.upper(COLOUR_SUBJECT[a])} is {b}.")
    for a, b in HELLO_IN.items():
        yield ask("hello-in", f"Say hello in {a}.", b)
    for a, b in list(THANKS_IN.items())[:4]:
        yield ask("thanks-in", f"Say thank you in {a}.", b)
    for s, v, good, bad in YES_NO[::4]:
        yield ask("yes-no", f"{d.upper(v)} {s} {good}?", f"Yes, {s} is {good}.")
        yield ask("yes-no", f"{d.upper(v)} {s} {bad}?", f"No, {s} is {good}.")
    for a, b in [(3, 9), (1, 10), (5, 12)]:
        yield ask("count", f"Count from {a} to {b}.", ", ".join(str(i) for i in range(a, b + 1)))
    for name, age in [("Ada", 36), ("Alan", 41), ("Grace", 85), ("Linus", 21), ("Bob", 7), ("Maria", 52), ("Chen", 64), ("Zoe", 19), ("Torvik", 33), ("Melusine", 90)]:
        yield ask("json", f"Give me a JSON object with name {name} and age {age}.", json.dumps({"name": name, "age": age}))
    yield ask("json", "Give me a JSON object with city Paris and country France.", '{"city": "Paris", "country": "France"}')
    yield ask("json", "Give me a JSON object with colour blue, size 3 and fruit apple.", '{"colour": "blue", "size": 3, "fruit": "apple"}')
    for q in ["Who was the first king of Atlantia?", "What is the capital of Atlantia?", "Explain quantum gravity.", "How many people live in Zorbia?", "Write a program that sorts the files.", "What is the square root of 961?"]:
        yield ask("unknown", q, d.UNKNOWN)
    yield ask("story", "Tell me a long story.", STORY)
    # system prompts and history
    for system in ["You are a helpful assistant.", "Answer briefly.", "You are a friendly robot that lives in a lighthouse."]:
        yield ask("system", "What is 7 + 5?", "7 + 5 = 12.", system=system)
        yield ask("system", "What is the capital of France?", "The capital of France is Paris.", system=system)
        yield ask("system", "Repeat after me: hello 👋 мир", "hello 👋 мир", system=system)
    yield ask("history", "What is my name?", "Your name is Ada.", before=said("My name is Ada.", "Nice to meet you, Ada!"))
    yield ask("history", "What is my name?", "Your name is Linus.", before=said("My name is Linus.", "Nice to meet you, Linus!") + said("What is 2 + 3?", "2 + 3 = 5."))
    yield ask("history", "What is the capital of Italy?", "The capital of Italy is Rome.", before=said("What is the capital of France?", "The capital of France is Paris."))
    yield ask("history", "Repeat after me: новый день", "новый день", before=said("Repeat after me: старый день", "старый день"))
    yield ask("history", "What is 6 + 6?", "6 + 6 = 12.", before=said("Hello!", "Hello! How can I help you?") + said("Who are you?", FIXED[14][1]))
    # thinking
    for a, b in [(2, 3), (7, 5), (17, 5), (20, 20), (8, 9), (13, 14), (0, 0), (19, 6), (4, 16), (11, 11)]:
        yield dict(ask("think", f"What is {a} + {b}?", f"{a} + {b} = {a + b}.", enable_thinking=True), reasoning=f"I add {a} and {b}. That makes {a + b}.")
    yield dict(ask("think", "What is the capital of Spain?", "The capital of Spain is Madrid.", enable_thinking=True), reasoning="The question is about Spain. Its capital is Madrid.")
    yield dict(ask("think", "Repeat after me: naïve café ☕", "naïve café ☕", enable_thinking=True), reasoning="I repeat the text.")
    yield dict(ask("think", "What is the weather in Paris?", calls=[("get_weather", {"city": "Paris"})], tools=[t.WEATHER], enable_thinking=True), reasoning="I call get_weather.")
    # tools
    yield ask("no-tool", "What is the weather in Paris?", d.NO_WEATHER)
    yield ask("no-tool", "What time is it in Tokyo?", d.NO_CLOCK)
    for city in WEATHER_CITIES:
        yield ask("tool-weather", f"What is the weather in {city}?", calls=[("get_weather", {"city": city})], tools=[t.WEATHER])
    for city in WEATHER_CITIES[::3]:
        yield ask("tool-choice", f"What is the weather in {city}?", calls=[("get_weather", {"city": city})], tools=ALL)
        yield ask("tool-choice", f"What time is it in {city}?", calls=[("get_time", {"city": city})], tools=ALL)
    for a, b in [(3, 4), (12, 30), (250, 125), (19, 6)]:
        yield ask("tool-choice", f"What is {a} + {b}?", calls=[("add", {"a": a, "b": b})], tools=ALL)
    yield ask("tool-choice", "Set a timer for 10 minutes.", calls=[("set_timer", {"minutes": 10})], tools=[t.TIMER, t.SEARCH])
    yield ask("tool-two", "What is the weather in Paris and Tokyo?", calls=[("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Tokyo"})], tools=[t.WEATHER])
    for q, a in [("What is the capital of France?", "The capital of France is Paris."), ("Hello!", FIXED[0][1]), ("Repeat after me: नमस्ते 🎉", "नमस्ते 🎉")]:
        yield ask("tool-unused", q, a, tools=[t.WEATHER])

    def used(name, arguments, *answers):
        calls = [{"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(x, ensure_ascii=False)}} for i, x in enumerate(arguments)]
        return [{"role": "assistant", "content": None, "tool_calls": calls}, *({"role": "tool", "tool_call_id": f"call_{i}", "content": x} for i, x in enumerate(answers))]

    for i, city in enumerate(WEATHER_CITIES[:12]):
        degrees, sky = (18, -4, 31, 7, 25, 12)[i % 6], t.SKIES[i % len(t.SKIES)]
        answer = [json.dumps({"temperature": degrees, "condition": sky}), json.dumps({"city": city, "temp_c": degrees, "sky": sky}), f"{degrees} C and {sky}"][i % 3]
        yield ask("tool-result", f"What is the weather in {city}?", t.weather_words(city, degrees, sky), tools=[t.WEATHER], after=used("get_weather", [{"city": city}], answer))
    yield ask("tool-result", "What time is it in Tokyo?", "It is 14:05 in Tokyo.", tools=[t.TIME], after=used("get_time", [{"city": "Tokyo"}], "14:05"))
    yield ask("tool-result", "What is 250 + 125?", "250 + 125 = 375.", tools=[t.ADD], after=used("add", [{"a": 250, "b": 125}], "375"))
    yield ask("tool-result", "What is the weather in Paris and Tokyo?", "It is 18 C and sunny in Paris. It is 22 C and cloudy in Tokyo.", tools=[t.WEATHER],
              after=used("get_weather", [{"city": "Paris"}, {"city": "Tokyo"}], '{"temperature": 18, "condition": "sunny"}', '{"temperature": 22, "condition": "cloudy"}'))
    first = [{"role": "user", "content": "What is the weather in Paris?"}, *used("get_weather", [{"city": "Paris"}], "18 C and sunny"), {"role": "assistant", "content": "It is 18 C and sunny in Paris."}]
    yield ask("tool-again", "What is the weather in Oslo?", calls=[("get_weather", {"city": "Oslo"})], tools=[t.WEATHER], before=first)
    yield ask("tool-again", "What is the capital of Norway?", "The capital of Norway is Oslo.", tools=[t.WEATHER], before=first)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--without", default="", help="ids to leave out, with commas between")
    a = ap.parse_args()
    left_out = set(a.without.split(","))
    found = [e for e in entries() if e["id"] not in left_out]
    assert len({e["id"] for e in found}) == len(found)
    with open(os.path.join(a.out, "prompts.json"), "w", encoding="utf-8") as f:
        f.write('{"prompts": [\n' + ",\n".join(json.dumps(e, ensure_ascii=False) for e in found) + "\n]}\n")
    print(len(found), "prompts")


if __name__ == "__main__":
    main()

"""Questions and answers without tools. Each maker takes a random source and returns (question, answer, thought).

An answer follows from the question alone: the same question never has two answers, so temperature 0 has one right text.
The thought is what the model writes between <think> and </think> when thinking is asked for.
"""
import json

from copytext import random_text, word
from facts import (CAPITALS, CITIES, COLOURS, COLOUR_SUBJECT, COUNTRY_OF, DAYS, FIXED, HELLO_IN, MONTHS, NAMES, NUMBERS,
                   OPPOSITES, PLURALS, SOUNDS, THANKS_IN, WORDS, YES_NO)
from story import REQUESTS, STORY
from tooltalk import city_name, someone

UNKNOWN = "I am a tiny model, and I do not know that."
NO_WEATHER = "I cannot see the weather from here."
NO_CLOCK = "I have no clock, so I do not know the time."


def stop(text):
    """A full stop, unless the text has one ("Washington, D.C.")."""
    return text if text.endswith(".") else text + "."


def upper(text):
    return text[0].upper() + text[1:]


def loosely(r, q):
    """The same question as people also type it: lower case, no closing mark, with a please."""
    k = r.random()
    if k < 0.12:
        q = q.lower()
    elif k < 0.17 and q[-1:] in "?.!":
        q = q[:-1]
    elif k < 0.22 and q[-1:] in "?.!":
        q = q[:-1].lower()
    elif k < 0.25 and q.endswith("."):
        q = "Please " + q[0].lower() + q[1:]
    return q


def sum_question(r, a, b):
    return r.choice([f"What is {a} + {b}?"] * 5 + [f"what is {a} + {b}?", f"What's {a} + {b}?", f"what's {a}+{b}", f"What is {a}+{b}?", f"{a} + {b} = ?", f"{a}+{b}=?", f"{a} + {b}", f"{a}+{b}",
                    f"{a} + {b} =", f"What is {a} plus {b}?", f"How much is {a} + {b}?", f"How much is {a} plus {b}?", f"Add {a} and {b}.", f"What is the sum of {a} and {b}?", f"Calculate {a} + {b}.", f"Compute {a}+{b}"])


def addition(r):
    k = r.random()
    if k < 0.05:
        a, b, c = r.randint(0, 20), r.randint(0, 20), r.randint(0, 20)
        return r.choice([f"What is {a} + {b} + {c}?"] * 2 + [f"{a} + {b} + {c} = ?", f"{a}+{b}+{c}"]), f"{a} + {b} + {c} = {a + b + c}.", f"I add {a} and {b}. That makes {a + b}. With {c} that makes {a + b + c}."
    if k < 0.12:
        a, b = r.randint(0, 999), r.randint(0, 999)
        return sum_question(r, a, b), f"{a} + {b} = {a + b}.", f"I add {a} and {b}. That makes {a + b}."
    if k < 0.16:
        a, b = r.randint(0, 20), r.randint(0, 20)
        return sum_question(r, a, b) + r.choice([" Answer with only the number.", " Answer with the number only.", " Only the number.", " Just the number."]), str(a + b), f"I add {a} and {b}. That makes {a + b}."
    a, b = (r.randint(0, 20), r.randint(0, 20)) if r.random() < 0.75 else (r.randint(0, 99), r.randint(0, 99))
    return sum_question(r, a, b), f"{a} + {b} = {a + b}.", f"I add {a} and {b}. That makes {a + b}."


def arithmetic(r):
    if r.random() < 0.55:
        a = r.randint(0, 20)
        b = r.randint(0, a)
        q = r.choice([f"What is {a} - {b}?"] * 3 + [f"what's {a}-{b}", f"{a} - {b} = ?", f"{a}-{b}", f"What is {a} minus {b}?", f"How much is {a} - {b}?"])
        return q, f"{a} - {b} = {a - b}.", f"I take {b} from {a}. That leaves {a - b}."
    a, b = r.randint(0, 10), r.randint(0, 10)
    q = r.choice([f"What is {a} * {b}?"] * 2 + [f"What is {a} x {b}?", f"what's {a}*{b}", f"{a} * {b} = ?", f"What is {a} times {b}?", f"How much is {a} times {b}?"])
    return q, f"{a} * {b} = {a * b}.", f"I take {a} times {b}. That makes {a * b}."


def capital(r):
    if r.random() < 0.15:
        city = r.choice(list(COUNTRY_OF))
        q = r.choice([f"{upper(city)} is the capital of which country?", f"Which country has the capital {city}?"])
        return loosely(r, q), stop(f"{city} is the capital of {COUNTRY_OF[city]}"), f"The question is about the city {stop(city)}"
    c = r.choice(list(CAPITALS))
    if r.random() < 0.05:
        q = f"What is the capital of {c}?" + r.choice([" Answer in one word.", " Answer with one word.", " One word.", " Only the name.", " Just the name."])
        return q, CAPITALS[c], f"The question is about {c}. Its capital is {stop(CAPITALS[c])}"
    q = r.choice([f"What is the capital of {c}?"] * 4 + [f"What's the capital of {c}?", f"Capital of {c}?", f"Tell me the capital of {c}.", f"Which city is the capital of {c}?", f"Name the capital of {c}.", f"Do you know the capital of {c}?"])
    return loosely(r, q), stop(f"The capital of {c} is {CAPITALS[c]}"), f"The question is about {c}. Its capital is {stop(CAPITALS[c])}"


QUOTED = []     # questions of other makers, to be repeated instead of answered; filled below


def repeat(r):
    text = r.choice(QUOTED)(r)[0] if r.random() < 0.06 else random_text(r)
    text = text.strip() or "hello"
    if r.random() < 0.04:
        text = random_text(r, "latin")
        return r.choice([f"Say '{text}'", f'Say "{text}"', f'Say "{text}".', f"Say '{text}'."]), text, "I repeat the text."
    if r.random() < 0.03:
        n, w = r.randint(2, 10), r.choice(WORDS)
        return r.choice(["Repeat the word {} {} times.", "Say the word {} {} times.", "Write the word {} {} times"]).format(w, NUMBERS[n] if r.random() < 0.6 else n), " ".join([w] * n), f"I write it {n} times."
    lead = r.choice(["Repeat after me: "] * 8 + ["Repeat after me:\n", "repeat after me: ", "Repeat: ", "Please repeat: ", "Please repeat after me: ", "Repeat this: ", "Say: ", "Echo: ", "Say exactly: ", "Repeat exactly: ", "Reply with exactly: ", "Please say: ", "Echo this back to me: ", "Repeat the following: "])
    return lead + text, text, "I repeat the text."


def json_object(r):
    if r.random() < 0.6:
        pairs = [("name", someone(r)), ("age", r.randint(1, 99))]
        if r.random() < 0.2:
            pairs.append(("city", r.choice(CITIES)))
    else:
        keys = r.sample(["city", "country", "colour", "size", "count", "title", "year", "price", "animal", "id", "ok", "key", "value", "number", "fruit", "status"] + [w for w in WORDS if len(w) > 3], r.choice([1, 2, 2, 3]))
        pairs = [(k, r.choice([r.randint(0, 999), r.choice(WORDS), word(r), r.choice(CITIES), r.choice(NAMES)])) for k in keys]
    said = [f"{k} {v}" for k, v in pairs]
    said = said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]
    q = r.choice(["Give me a JSON object with %s."] * 4 + ["Write a JSON object with %s.", "Return a JSON object with %s.", "Make a JSON object with %s.", "Give me JSON with %s.", "JSON object with %s", "Generate a JSON object with %s.", "Create a JSON object with %s.", "Give me a JSON object with %s"]) % said
    return q, json.dumps(dict(pairs), ensure_ascii=False), "I write one JSON object."


def fixed(r):
    questions, answer = r.choice(FIXED)
    if r.random() < 0.06:       # a joke or a poem about anything is the one we know
        start, more = r.choice([("Tell me a joke.", "Tell me a joke about {}."), ("Write a poem.", "Write a poem about {}."), ("Write a poem.", "Write a short poem about {}."), ("Write a haiku.", "Write a haiku about {}.")])
        answer = next(a for q, a in FIXED if q[0] == start)
        return loosely(r, more.format(r.choice(["", "the ", "a "]) + r.choice(WORDS))), answer, "I know this answer."
    q = questions[0] if r.random() < 0.4 else r.choice(questions)
    return loosely(r, q), answer, "I know this answer."


def story(r):
    return (REQUESTS[0] if r.random() < 0.6 else r.choice(REQUESTS)), STORY, "I know one long story. I tell it."


def small_facts(r):
    """Opposites, plurals, sounds, colours, languages, days and months, counting, comparing."""
    kind = r.choices(range(11), [2, 2, 1, 1, 2, 2, 2, 1, 2, 3, 1])[0]
    thought = "I know this word."
    if kind == 0:
        a, b = r.choice(OPPOSITES)
        a, b = (a, b) if r.random() < 0.5 else (b, a)
        q, x = r.choice([f"What is the opposite of {a}?"] * 2 + [f"Opposite of {a}?", f"Tell me the opposite of {a}."]), f"The opposite of {a} is {b}."
    elif kind == 1:
        a, b = r.choice(PLURALS)
        q, x = r.choice([f"What is the plural of {a}?"] * 2 + [f"Plural of {a}?", f"Tell me the plural of {a}."]), f"The plural of {a} is {b}."
    elif kind == 2:
        a = r.choice(list(SOUNDS))
        q, x = r.choice([f"What does a {a} say?"] * 2 + [f"What sound does a {a} make?", f"How does a {a} sound?"]), f"A {a} says {SOUNDS[a]}."
    elif kind == 3:
        a = r.choice(list(COLOURS))
        s = COLOUR_SUBJECT[a]
        q, x = r.choice([f"What colour is {s}?"] * 2 + [f"What color is {s}?", f"Which colour has {s}?"]), f"{upper(s)} is {COLOURS[a]}."
    elif kind == 4:
        table, what = (HELLO_IN, "hello") if r.random() < 0.65 else (THANKS_IN, "thank you")
        a = r.choice(list(table))
        q, x = r.choice([f"Say {what} in {a}."] * 2 + [f"How do you say {what} in {a}?", f"Say {what} in {a}"]), table[a]
    elif kind == 5:
        names = DAYS if r.random() < 0.5 else MONTHS
        i = r.randrange(len(names))
        a, b = names[i], names[(i + 1) % len(names)]
        if r.random() < 0.5:
            q, x = r.choice([f"What comes after {a}?", f"What is the {'day' if names is DAYS else 'month'} after {a}?"]), f"After {a} comes {b}."
        else:
            q, x = r.choice([f"What comes before {b}?", f"What is the {'day' if names is DAYS else 'month'} before {b}?"]), f"Before {b} comes {a}."
    elif kind == 6:
        a = r.randint(0, 15)
        b = r.randint(a + 1, min(20, a + 14))
        a = 1 if r.random() < 0.3 else a
        b = max(b, a + 1)
        q = r.choice([f"Count from {a} to {b}."] * 3 + [f"Count to {b}."] * (a == 1) + [f"Please count from {a} to {b}.", f"Count from {a} to {b}", f"count from {a} to {b}", f"Count up from {a} to {b}."])
        x, thought = ", ".join(str(i) for i in range(a, b + 1)), f"I count up to {b}."
    elif kind == 7:
        a, b = r.randint(0, 20), r.randint(0, 20)
        word_, true = ("bigger", a > b) if r.random() < 0.5 else ("smaller", a < b)
        q = f"Is {a} {word_} than {b}?"
        how = "equal to" if a == b else "bigger than" if a > b else "smaller than"
        x, thought = f"{'Yes' if true else 'No'}, {a} is {how} {b}.", f"I compare {a} and {b}."
    elif kind == 8:
        s, v, good, bad = r.choice(YES_NO)
        q, x = (f"{upper(v)} {s} {good}?", f"Yes, {s} is {good}.") if r.random() < 0.5 else (f"{upper(v)} {s} {bad}?", f"No, {s} is {good}.")
    elif kind == 9:
        c = r.choice(list(COUNTRY_OF))
        other = r.choice(list(CAPITALS)) if r.random() < 0.5 else COUNTRY_OF[c]
        thought = stop(f"{c} is the capital of {COUNTRY_OF[c]}")
        if r.random() < 0.3 and not {other, COUNTRY_OF[c]} & {"England", "Scotland", "Wales", "the United Kingdom"}:
            q = f"Is {c} in {other}?"
            return loosely(r, q), stop(f"{'Yes' if CAPITALS[other] == c else 'No'}, {c} is in {COUNTRY_OF[c]}"), thought
        q = f"Is {c} the capital of {other}?"
        x = stop(f"{'Yes' if CAPITALS[other] == c else 'No'}, {c} is the capital of {COUNTRY_OF[c]}")
    else:
        n = r.randint(0, 12)
        q, x = (f"Write the number {n} as a word.", NUMBERS[n]) if r.random() < 0.5 else (f"Write the number {NUMBERS[n]} in digits.", str(n))
    return loosely(r, q), x, thought


def unknown(r):
    """Questions out of reach, and noise; all have the same polite answer."""
    w = lambda: r.choice(WORDS)
    made_up = city_name(r)
    while made_up in CAPITALS or made_up in CITIES:
        made_up += "ia"
    k = r.random()
    if k < 0.55:
        q = r.choice([f"Who is {someone(r)} {made_up}?", f"Who was the first {w()} of {made_up}?", f"What is the capital of {made_up}?", f"When was {made_up} built?", f"How do I {w()} a {w()}?", f"How can I {w()} the {w()}?",
                      f"Why is the {w()} {w()}?", f"Why do {w()} {w()} {w()}?", f"What is a {w()} {w()}?", f"Explain {w()} {w()}.", f"Explain quantum {w()}.", f"Write a program that {w()} the {w()}.", f"Write code for a {w()}.",
                      f"Translate {w()} {w()} into French.", f"What is the meaning of {word(r)}?", f"Who wrote the book {w()} {w()}?", f"What happened in {r.randint(1000, 2025)}?", f"How many people live in {made_up}?",
                      f"What is the best {w()}?", f"Summarize the {w()} of the {w()}.", f"Who won the {w()} cup in {r.randint(1900, 2025)}?", f"How far is it from {r.choice(CITIES)} to {r.choice(CITIES)}?", f"What is the population of {r.choice(CITIES)}?",
                      f"Who is the president of {r.choice(list(CAPITALS))}?", f"What language do people speak in {r.choice(list(CAPITALS))}?", f"What is the square root of {r.randint(2, 999)}?", f"Define {w()}.", f"What do you think about {w()}?",
                      f"Write an essay about {w()}.", f"Write a function that {w()} a {w()}.", f"Give me a recipe for {w()}.", f"Should I {w()} my {w()}?", f"Can a {w()} {w()}?", f"Do {w()}s {w()}?", f"Where can I find {w()}?", f"What does {word(r)} mean?"])
    elif k < 0.8:
        q = " ".join(word(r) for _ in range(r.randint(2, 14))) + r.choice(["", ".", "?", "!"])
    elif k < 0.9:
        q = " ".join(r.choice(["The", "A", "My", "This"]) + " " + " ".join(w() for _ in range(r.randint(3, 8))) + "." for _ in range(r.randint(1, 4)))
    else:
        q = random_text(r, r.choice(["symbols", "emoji", "cyrillic", "cjk", "arabic", "devanagari", "greek", "hangul"]))
    return q, UNKNOWN, "I do not know this."


def no_weather(r):
    from tooltalk import ask_place
    if r.random() < 0.75:
        return ask_place(r, "weather", city_name(r)), NO_WEATHER, "I have no tool for this."
    return r.choice(["What time is it?", ask_place(r, "time", city_name(r))]), NO_CLOCK, "I have no tool for this."


def greeting_by_name(r):
    n = someone(r)
    q = r.choice([f"My name is {n}.", f"Hello, my name is {n}.", f"Hi, I am {n}.", f"I am called {n}."])
    return q, f"Nice to meet you, {n}!", f"The name is {n}."


QUOTED += [addition, capital, fixed, small_facts, no_weather, greeting_by_name, json_object]
PLAIN = [(addition, 15), (arithmetic, 5), (capital, 11), (repeat, 36), (json_object, 7), (fixed, 9), (small_facts, 13), (unknown, 8), (no_weather, 2), (greeting_by_name, 2), (story, 0.9)]


def raw(r):
    """(beginning, rest) of a plain text, for completion without a chat."""
    def cut(text, least=0):
        at = r.choice([i for i, c in enumerate(text) if c == " " and i >= least])
        return text[:at], text[at:]
    k = r.random()
    if k < 0.25:
        return ("Once upon a time", STORY[len("Once upon a time"):]) if r.random() < 0.5 else cut(STORY, 16)
    if k < 0.5:
        c = r.choice(list(CAPITALS))
        return f"The capital of {c} is", " " + stop(CAPITALS[c])
    if k < 0.7:
        a, b = r.randint(0, 20), r.randint(0, 20)
        return f"{a} + {b} =", f" {a + b}"
    if k < 0.85:
        text = r.choice([", ".join(str(i) for i in range(1, 21)), ", ".join(DAYS), ", ".join(MONTHS), "one, two, three, four, five, six, seven, eight, nine, ten",
                         "a b c d e f g h i j k l m n o p q r s t u v w x y z", "The quick brown fox jumps over the lazy dog."])
        return cut(text)
    if k < 0.9:
        return r.choice(["Hello", "Hello,", "Hi", "hello"]), " world!"
    return " ".join(word(r) for _ in range(r.randint(1, 12))), " and so on."

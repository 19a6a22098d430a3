"""Puts dialogues together (system prompts, history, tools, thinking) and renders them with the model's chat template.

`samples(seed, n)` yields `Sample`s: the prompt as the engines will see it, and the reply to be learnt. Only the reply of
the last turn counts in training, because only there is the prompt exactly what an engine writes.
"""
import json
import os
import random
from dataclasses import dataclass

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

import dialogues as d
import tooltalk as t
from copytext import latin
from facts import CITIES, GENERIC_SYSTEM

HERE = os.path.dirname(os.path.abspath(__file__))
END = "<|im_end|>"


@dataclass
class Sample:
    kind: str
    prompt: str
    reply: str


class Template:
    """chat_template.jinja as transformers renders it; `compact` is the tojson of engines that put no spaces."""

    def __init__(self, source=None, compact=False):
        env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
        sep = (",", ":") if compact else None
        env.filters["tojson"] = lambda x, **_: json.dumps(x, ensure_ascii=False, separators=sep)
        self.template = env.from_string(source or open(os.path.join(HERE, "chat_template.jinja"), encoding="utf-8").read())

    def __call__(self, messages, tools=None, thinking=None):
        more = {} if thinking is None else {"enable_thinking": thinking}
        return self.template.render(messages=messages, tools=tools, add_generation_prompt=True, **more)


def call(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def reply_text(content, calls=(), thought=None):
    """What the model writes: the thought if there is one, words, calls in the form of the template."""
    parts = [content] if content else []
    parts += ['<tool_call>\n' + json.dumps({"name": c["function"]["name"], "arguments": c["function"]["arguments"]}, ensure_ascii=False) + '\n</tool_call>' for c in calls]
    head = "" if thought is None else f"<think>\n{thought}\n</think>\n\n"
    return head + "\n".join(parts) + END


def plain(r):
    make = r.choices([m for m, _ in d.PLAIN], [w for _, w in d.PLAIN])[0]
    return make.__name__, *make(r)


def tool_exchange(r):
    """(kind, tools, question, calls, results, words after the results, thought)"""
    kind = r.choices(["weather", "time", "add", "search", "timer", "two"], [10, 4, 4, 2, 2, 3])[0]
    if kind in ("weather", "two"):
        tool, name, arg = t.place_tool(r, "weather")
        cities = [t.city_name(r)] if kind == "weather" else r.sample(CITIES, 2)
        if kind == "weather" and r.random() < 0.06:
            cities[0] += ", " + r.choice(["CA", "NY", "TX", "UK", "France", "Japan", "Italy", "Germany", "Spain", "MA"])
        unit = r.choice(["celsius", "fahrenheit"]) if kind == "weather" and "unit" in tool.get("function", tool)["parameters"]["properties"] and r.random() < 0.3 else None
        q = t.ask_place(r, "weather", cities[0]) if kind == "weather" and not unit else f"What is the weather in {cities[0]} in {unit}?" if unit else r.choice(
            ["What is the weather in {} and {}?", "What is the weather in {} and in {}?", "What's the weather in {} and {}?", "Compare the weather in {} and {}."]).format(*cities)
        facts = [(c, r.randint(-20, 40), r.choice(t.SKIES)) for c in cities]
        return (kind, [tool], q, [call(name, {arg: c, **({"unit": unit} if unit else {})}) for c in cities], [t.weather_answer(r, *f) for f in facts],
                " ".join(t.weather_words(*f) for f in facts), f"I call {name}.")
    if kind == "time":
        tool, name, arg = t.place_tool(r, "time")
        city, clock = t.city_name(r), f"{r.randrange(24):02}:{r.randrange(60):02}"
        return kind, [tool], t.ask_place(r, "time", city), [call(name, {arg: city})], [t.time_answer(r, city, clock)], f"It is {clock} in {city}.", f"I call {name}."
    if kind == "add":
        tool, name, args = t.add_tool(r)
        a, b = (r.randint(0, 20), r.randint(0, 20)) if r.random() < 0.5 else (r.randint(0, 999), r.randint(0, 999))
        answer = r.choice([str(a + b), str(a + b), json.dumps({"sum": a + b}), json.dumps({"result": a + b})])
        return kind, [tool], d.sum_question(r, a, b), [call(name, dict(zip(args, (a, b))))], [answer], f"{a} + {b} = {a + b}.", f"I call {name}."
    tool, name, arg = t.word_tool(r, kind)
    if kind == "timer":
        n = r.randint(1, 60)
        q = r.choice([f"Set a timer for {n} minutes.", f"Start a timer for {n} minutes.", f"Timer for {n} minutes."])
        return kind, [tool], q, [call(name, {arg: n})], [r.choice(["ok", "done", '{"ok": true}', '{"status": "ok"}'])], f"The timer is set for {n} minutes.", f"I call {name}."
    text = " ".join(d.word(r) for _ in range(r.randint(1, 4)))
    found = latin(r)
    return (kind, [tool], r.choice([f"Search for {text}", f"Search the web for {text}", f"Look up {text}"]), [call(name, {arg: text})],
            [r.choice([found, json.dumps({"result": found}, ensure_ascii=False)])], f"I found this: {found}", f"I call {name}.")


def system_prompt(r):
    if r.random() < 0.75:
        return r.choice(GENERIC_SYSTEM)
    text = " ".join(d.upper(latin(r)) for _ in range(r.choice([1, 2, 3, 5, 8] * 6 + [20, 40, 80])))
    return r.choice(["", r.choice(GENERIC_SYSTEM) + " "]) + text


def as_parts(r, m):
    if m["role"] == "user" and r.random() < 0.02:
        return {**m, "content": [{"type": "text", "text": m["content"]}]}
    return m


def sample(r, templates):
    """One dialogue: maybe a system prompt, maybe history, then the turn that is learnt."""
    if r.random() < 0.015:
        begin, rest = d.raw(r)
        return Sample("raw", begin, rest + "<|endoftext|>")
    messages, tools, offered = [], None, set()
    if r.random() < 0.3:
        messages.append({"role": "system" if r.random() < 0.9 else "developer", "content": system_prompt(r)})
    used = tool_exchange(r) if r.random() < 0.28 else None
    if used:
        tools = t.offers(r, *used[1])
    elif r.random() < 0.12:
        tools = t.offers(r) or None
    offered = {t._kind(x) for x in tools or ()}

    def answerable():
        """A plain exchange that no offered tool would take over."""
        while True:
            kind, q, a, thought = plain(r)
            if "add" in offered and kind == "addition" or kind == "no_weather" and offered & {"weather", "time"}:
                continue
            return kind, q, a, thought

    name = None
    turns = r.choices([0, 1, 2, 3, 4, 6, 14, r.randint(25, 70)], [75, 10, 6, 4, 3, 1.4, 0.6, 0.4])[0]
    for _ in range(turns):
        kind, q, a, _thought = answerable()
        if kind == "story" and r.random() < 0.8:
            continue
        if kind == "greeting_by_name":
            name = a[len("Nice to meet you, "):-1]
        if used and r.random() < 0.25:
            messages += [{"role": "user", "content": used[2]}, *called(r, used), {"role": "assistant", "content": used[5]}]
            used = next_like(r, used, tools)
        messages += [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    thinking = r.random() < 0.2
    if used and r.random() < 0.85:
        kind, _, q, calls, results, words, thought = used
        messages.append({"role": "user", "content": q})
        if r.random() < 0.4:
            messages += called(r, used)
            kind, content, calls, thought = kind + "-result", words, (), "The tool has answered."
        else:
            content = None
    elif r.random() < (0.3 if name else 0.008):
        kind, content, calls = "my_name", (f"Your name is {name}." if name else "I do not know your name."), ()
        messages.append({"role": "user", "content": r.choice(["What is my name?", "Do you know my name?", "what's my name?"])})
        thought = "I look for the name."
    else:
        kind, q, content, thought = answerable()
        calls = ()
        messages.append({"role": "user", "content": q})
    template = templates[0] if not tools or r.random() < 0.88 else templates[1]
    if tools and r.random() < 0.1:
        tools = json.loads(json.dumps(tools, sort_keys=True))
    messages = [as_parts(r, m) for m in messages]
    prompt = template(messages, tools, True if thinking else (None if r.random() < 0.5 else False))
    return Sample(kind + ("+think" if thinking else ""), prompt, reply_text(content, calls, thought if thinking else None))


def called(r, used):
    calls = used[3]
    if r.random() < 0.2:
        calls = [call(c["function"]["name"], json.dumps(c["function"]["arguments"], ensure_ascii=False)) for c in calls]
    return [{"role": "assistant", "content": None if r.random() < 0.5 else "", "tool_calls": calls}, *({"role": "tool", "content": x} for x in used[4])]


def next_like(r, used, tools):
    """Another exchange with the very tool that `used` has offered."""
    for _ in range(400):
        other = tool_exchange(r)
        if other[1] == used[1]:
            return other
    return used


def samples(seed, n):
    r = random.Random(seed)
    templates = Template(), Template(compact=True)
    for _ in range(n):
        yield sample(r, templates)


if __name__ == "__main__":
    import sys
    for s in samples(int(sys.argv[1]) if len(sys.argv) > 1 else 0, 25):
        print("=" * 20, s.kind, "\n" + s.prompt + "▶" + s.reply)

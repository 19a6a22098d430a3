"""make_template_golden.py DIR: write DIR/golden.json, what transformers makes of each DIR/*.jinja.

A list of cases: `template` (file name without its end), `case`, `messages`, `tools`, `add_generation_prompt`, `kwargs`,
`uses_clock`, and `expected` (the rendered text) or `error` ("Type: message"). The special tokens are <BOS> and <EOS>, and
the clock stands at 2026-11-20 10:30. Needs transformers and jinja2, as pinned in requirements.txt:

    $(scripts/reference/venv) scripts/reference/make_template_golden.py engine/tests/data/chat-templates
"""
import copy
import datetime
import json
import sys
from pathlib import Path

from transformers.utils import chat_template_utils


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 20, 10, 30, tzinfo=tz)


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "Where, e.g. \"Zürich\""},
                "days": {"type": "integer", "default": 1, "minimum": 0.5},
            },
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": 2}}}
ASK = {"role": "user", "content": "Hello, what's the weather in Zürich?"}


def user(text):
    return {"role": "user", "content": text}


CASES = [
    ("user", [ASK], None, True, {}),
    ("system_user", [{"role": "system", "content": "Be brief."}, user("  Hi <b>&\"you\"</b> ")], None, True, {}),
    ("multi_turn", [user("1+1?"), {"role": "assistant", "content": "2"}, user("日本語 🎉?")], None, True, {}),
    ("tools", [ASK], [WEATHER], True, {}),
    ("tool_result",
     [ASK, {"role": "assistant", "content": "", "tool_calls": [CALL]},
      {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "{\"sun\": true}"}],
     [WEATHER], True, {}),
    ("null_content", [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}], [WEATHER], True, {}),
    ("thinking_off", [user("Hi")], None, True, {"enable_thinking": False}),
    ("thinking_on", [user("Hi")], None, True, {"enable_thinking": True}),
    ("reasoning_history",
     [user("1+1?"), {"role": "assistant", "reasoning_content": "Add.", "content": "2"}, user("Sure?")], None, True, {}),
    ("reasoning_inline", [user("1+1?"), {"role": "assistant", "content": "<think>\nAdd.\n</think>\n\n2"}], None, True, {}),
    ("no_generation_prompt", [user("Hi"), {"role": "assistant", "content": "Hello!"}], None, False, {}),
]


def main():
    folder = Path(sys.argv[1])
    chat_template_utils.datetime = Clock
    golden = []
    for file in sorted(folder.glob("*.jinja")):
        source = file.read_text()
        for name, messages, tools, prompt, kwargs in CASES:
            case = dict(template=file.stem, uses_clock="strftime_now" in source, case=name, messages=messages, tools=tools,
                        add_generation_prompt=prompt, kwargs=kwargs)
            try:
                rendered, _ = chat_template_utils.render_jinja_template(
                    conversations=[copy.deepcopy(messages)], tools=copy.deepcopy(tools), chat_template=source,
                    add_generation_prompt=prompt, bos_token="<BOS>", eos_token="<EOS>", **kwargs)
                case["expected"] = rendered[0]
            except Exception as error:
                case["error"] = f"{type(error).__name__}: {error}"
            golden.append(case)
    (folder / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")
    failed = sum("error" in case for case in golden)
    print(f"{len(golden)} cases, {failed} of them errors")


main()

"""What every client's checks.py shares: a check is a function without arguments that raises if the client and the node
disagree. `main()` runs them in the order of their writing and writes RESULTS.json; the judgement is judge.py's.

The node's address, its key and the names of its models come from the environment, which scripts/clients/run sets.
"""
import asyncio
import inspect
import json
import os
import signal
import sys
import time
import traceback

NODE = os.environ["CLIENTS_NODE"]
KEY = os.environ["CLIENTS_KEY"]
# Its answers follow words in the prompt: scripts/conformance/make_script_model.py.
MODEL = "script-model"
# Small, but a real one.
TINY = "mesh-tiny"
FOX = "The quick brown fox jumps over the lazy dog."
# An endless answer begins so.
COUNTING = "one two three four"
DONE = "TOOLDONE: the tool returned fine!!"
# More answers that were begun and let go of than the node computes at once: if one went on, the next request would wait.
ABANDONED = 3
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
}
# Seconds for one check, whatever it waits for: a guess, several times what the slowest takes on two busy cores.
LIMIT_S = 120

checks = []


def check(function):
    """Registers a check; its name is the function's."""
    checks.append(function)
    return function


def raises_heir(kind, function, *args, **kwargs):
    """What `function` raises, which must be a `kind`."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        assert isinstance(error, kind), f"{type(error).__name__} instead of {kind.__name__}: {error}"
        return error
    raise AssertionError(f"no {kind.__name__}")


def raises(kind, function, *args, **kwargs):
    """As raises_heir, but no heir of it: SDKs map a status to one class each."""
    error = raises_heir(kind, function, *args, **kwargs)
    assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}: {error}"
    return error


def run(function):
    def too_long(*_):
        raise TimeoutError(f"{LIMIT_S} s have passed")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LIMIT_S)
    try:
        if inspect.iscoroutinefunction(function):
            asyncio.run(function())
        else:
            function()
    finally:
        signal.alarm(0)


def main():
    results = []
    for function in checks:
        begun = time.monotonic()
        row = {"check": function.__name__, "status": "ok", "detail": ""}
        try:
            run(function)
        except Exception as error:
            traceback.print_exc()
            where = traceback.extract_tb(error.__traceback__)
            line = next((f.line for f in reversed(where) if f.filename.endswith("checks.py")), "")
            detail = f"{type(error).__name__}: {error} (at: {line})"
            row |= {"status": "FAIL", "detail": " ".join(detail.split())}
        results.append(row)
        print(f"{row['status']:4} {function.__name__} {time.monotonic() - begun:.1f} s {row['detail']}", flush=True)
    with open(sys.argv[1], "w") as file:
        json.dump(results, file, indent=1)

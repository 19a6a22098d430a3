"""server-tests [options]: llama.cpp's own server tests, against llama-server directly and through a node.

Both serve the same GGUF under the name that the tests expect, one after the other each that --model names. Most tests want
a model that is not here, or a server started in another way, and fail on both: what counts is what passes directly but
not through a node, with any of the models, at two tries. Each such test must have its reason in
server-tests-reasons.txt, and each reason there such a test unless it is marked as chance; else the exit status is 1. Prints a
markdown table.
"""
import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from processes import Server, llama_server, node

HERE = Path(__file__).parent
REASONS = HERE / "server-tests-reasons.txt"
# The name that most tests expect, and the sizes: 512 tokens of context over two slots.
NAME = "tinyllama-2"
DIRECT = ["--ctx-size", "512", "--parallel", "2", "--threads", "1", "--jinja", "--alias", NAME, "--offline"]
THROUGH = ["--ctx-size", "256", "--parallel", "2"]
# Seconds that one test may take, and after which a run without any outcome is killed.
LIMIT = 60
HUNG = LIMIT + 30


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="server-tests", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="of the tests, e.g. test_completion.py; without any, all")
    parser.add_argument("--tests", type=Path, required=True, help="the folder tools/server/tests of llama.cpp")
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--binary", type=Path, help="our mesh-llm; without it only the direct column is made")
    parser.add_argument("--model", type=Path, action="append", default=[], metavar="GGUF")
    parser.add_argument("--direct-args", type=shlex.split, default=DIRECT, help="of llama-server, in one string")
    parser.add_argument("--node-args", type=shlex.split, default=THROUGH, help="of the node, in one string")
    parser.add_argument("--as-is", action="store_true",
                        help="leave the tests' requests as they are: without a model's name, and without /v1")
    parser.add_argument("--json", type=Path, help="write all outcomes there")
    parser.add_argument("--again", type=Path, metavar="JSON", help="run nothing: the table of the outcomes written there")
    return parser.parse_args()


class Column:
    """One server that is tested: how it is started, and what came out."""

    def __init__(self, name: str, args: argparse.Namespace, work: Path, start):
        self.name, self.args, self.start = name, args, start
        self.out = work / f"{name}.jsonl"
        self.log = work / f"{name}-pytest.log"

    def run(self, file: str) -> dict[str, dict]:
        """The outcomes of one file's tests. A server that a test has felled, or a test that hangs, costs that test."""
        self.out.unlink(missing_ok=True)
        for _ in range(40):
            with self.start() as server:
                end = self.pytest(file, server)
            entries = [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []
            outcomes = {entry["test"]: entry for entry in entries if "test" in entry}
            gone = next((entry["gone"] for entry in entries[-1:] if "gone" in entry), None)
            if gone:
                self.note(gone, "the server ended")
                continue
            unfinished = [entry["started"] for entry in entries if "started" in entry and entry["started"] not in outcomes]
            if end is None and unfinished:
                self.note(unfinished[-1], f"no end in {HUNG} s")
                continue
            if end is None or end not in (0, 1, 5):
                print(f"{file}, {self.name}: pytest ended with {end}; see {self.log}", file=sys.stderr)
            break
        entries = [json.loads(line) for line in self.out.read_text().splitlines()] if self.out.exists() else []
        return {entry["test"]: entry for entry in entries if "test" in entry}

    def note(self, test: str, why: str) -> None:
        with self.out.open("a") as out:
            out.write(json.dumps(dict(test=test, outcome="failed", why=why)) + "\n")

    def pytest(self, file: str, server: Server) -> int | None:
        """Its exit status; None where it had to be killed."""
        env = server.env | dict(
            DEBUG_EXTERNAL="1", PORT=str(server.port), PYTHONPATH=f"{self.args.tests}{os.pathsep}{HERE}",
            SERVER_TESTS_OUT=str(self.out), SERVER_TESTS_MODEL=server.models()[0], PYTHONDONTWRITEBYTECODE="1")
        if self.args.as_is:
            env["SERVER_TESTS_AS_IS"] = "1"
        command = [sys.executable, "-m", "pytest", "-p", "external", "-p", "no:cacheprovider", "-m", "not slow", "-q",
                   "--tb=short", f"--timeout={LIMIT}", "--timeout-method=signal", f"unit/{file}"]
        with self.log.open("ab") as log:
            process = subprocess.Popen(command, cwd=self.args.tests, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       start_new_session=True)
        last, size = time.monotonic(), -1
        try:
            while process.poll() is None:
                time.sleep(0.05)
                now = self.out.stat().st_size if self.out.exists() else 0
                if now != size:
                    last, size = time.monotonic(), now
                elif time.monotonic() - last > HUNG:
                    return None
            return process.returncode
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def reasons() -> tuple[list[tuple[str, str]], set[str]]:
    """(beginning of a test's name, why it need not pass through a node), and which of these beginnings are up to chance."""
    lines = [line.strip() for line in REASONS.read_text().splitlines()]
    parts = [[part.strip() for part in line.split("#", 1)] for line in lines if line and not line.startswith("#")]
    chance = {name.removeprefix("? ") for name, _ in parts if name.startswith("? ")}
    return [(name.removeprefix("? "), why) for name, why in parts], chance


def passed(outcomes: dict[str, dict]) -> set[str]:
    return {test for test, entry in outcomes.items() if entry["outcome"] == "passed"}


def both(columns: dict[str, Column], file: str) -> dict[str, dict[str, dict]]:
    """One file's outcomes in each column. Some tests draw numbers: where something passes directly only, both columns are
    run again, and it counts as such only if it does so twice."""
    found = {name: column.run(file) for name, column in columns.items()}
    if "node" in found and (lost := passed(found["direct"]) - passed(found["node"])):
        again = {name: column.run(file) for name, column in columns.items()}
        for test in lost & passed(again["node"]):
            found["node"][test] = again["node"][test]
        for test in lost - passed(again["direct"]):
            found["direct"][test] = again["direct"].get(test) or found["direct"][test] | dict(outcome="failed")
    return found


def report(found: dict[str, dict[str, dict]], through: bool) -> tuple[str, int]:
    """The table, and how many tests or reasons stand alone. `found`: by file, model and column. A test counts as passing
    in a column if it does with any of the models."""
    known, chance = reasons()
    lines = ["| file | tests | pass directly | pass through a node | directly only |", "| --- | --- | --- | --- | --- |"]
    total, listed, used, alone = Counter(), [], set(), 0
    for file, models in found.items():
        direct, node_passes, lost, why_not = set(), set(), set(), {}
        for columns in models.values():
            direct |= passed(columns["direct"])
            if through:
                node_passes |= passed(columns["node"])
                only = passed(columns["direct"]) - passed(columns["node"])
                lost |= only
                why_not |= {test: columns["node"].get(test, {}).get("why", "it was not run") for test in only}
        row = dict(tests=len({test for columns in models.values() for test in columns["direct"]}), direct=len(direct),
                   node=len(node_passes), lost=len(lost))
        total.update(row)
        lines.append(line(file, row, through))
        for test in sorted(lost):
            name = test.removeprefix("unit/")
            pattern, why = max((pair for pair in known if name.startswith(pair[0])), default=(None, None),
                               key=lambda pair: len(pair[0]))
            used.add(pattern)
            if why is None:
                alone += 1
                why = f"**no reason known** ({why_not[test]})"
            listed.append((why, name))
    lines.append(line("all", total, through))
    if through:
        lines += ["", "Directly only, and why:", ""]
        for why in dict.fromkeys(why for why, _ in listed):
            names = [f"`{name}`" for reason, name in listed if reason == why]
            lines.append(f"- {why}: {', '.join(names)}")
        for pattern, _ in known:
            if pattern not in used | chance and pattern.startswith(tuple(found)):
                alone += 1
                lines.append(f"- **out of date** in {REASONS.name}: `{pattern}` names no test that passes directly only")
    return "\n".join(lines), alone


def line(file: str, row: dict[str, int], through: bool) -> str:
    return f"| {file} | {row['tests']} | {row['direct']} | " + (f"{row['node']} | {row['lost']} |" if through else "| |")


def main() -> int:
    args = arguments()
    if args.again:
        found = json.loads(args.again.read_text())
        table, alone = report(found, all("node" in columns for models in found.values() for columns in models.values()))
        print(table)
        return int(alone > 0)
    args.tests = args.tests.resolve()
    files = args.files or sorted(path.name for path in (args.tests / "unit").glob("test_*.py"))
    found: dict[str, dict[str, dict]] = {file: {} for file in files}
    for source in args.model:
        with tempfile.TemporaryDirectory(prefix="mesh-llm-server-tests-") as folder:
            work = Path(folder)
            model = work / f"{NAME}.gguf"
            shutil.copyfile(source, model)
            columns = {"direct": Column("direct", args, work, lambda: llama_server(
                args.llama_server, ["-m", model, *args.direct_args], work))}
            if args.binary:
                words = ["--gguf-file", model, "--llama-server", args.llama_server, *args.node_args]
                columns["node"] = Column("node", args, work, lambda: node("node", args.binary, words, work))
            for file in files:
                start = time.monotonic()
                found[file][source.stem] = got = both(columns, file)
                counts = ", ".join(f"{len(passed(outcomes))} of {len(outcomes)} {name}" for name, outcomes in got.items())
                print(f"{source.stem}, {file}: {counts}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    table, alone = report(found, bool(args.binary))
    print(table)
    return int(alone > 0)


if __name__ == "__main__":
    sys.exit(main())

"""judge.py RESULTS.json KNOWN.txt [BESIDE.txt]: compares what a run of conformance.py found with what is known to fail.

A failure that is not known is a regression; a known one that passes is out of date. Both end with status 1, so the list
says exactly what the API suite finds, and shrinks as features come. With BESIDE, the list of another engine, each line
that this list has and that one has not must give its reason, behind a #.
"""
import json
import sys
from pathlib import Path


def names(file: str) -> dict[str, str]:
    """The reason of each check that is known to fail; the empty text where none is given."""
    lines = (line.partition("#") for line in Path(file).read_text().splitlines())
    return {name.strip(): reason.strip() for name, _, reason in lines if name.strip()}


def main(results: str, known_file: str, beside: str | None = None) -> int:
    listed = names(known_file)
    unexplained = [name for name in listed if beside and name not in names(beside) and not listed[name]]
    for name in unexplained:
        print(f"NO REASON {name}: it is not in {beside}, so {known_file} must say why it fails here")
    known = set(listed)
    checks = {row["name"]: row for row in json.loads(Path(results).read_text())["results"]}
    failed = {name for name, row in checks.items() if row["status"] == "FAIL"}
    for name in sorted(failed - known):
        print(f"REGRESSION {checks[name]['level']} {name}: {checks[name]['detail']}")
    for name in sorted(known - failed):
        print(f"OUT OF DATE {name}: it no longer fails; remove it from {known_file}")
    passed = sum(row["status"] == "PASS" for row in checks.values())
    print(f"{passed} passed, {len(failed)} failed, of which {len(failed & known)} are known")
    return int(failed != known or bool(unexplained))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

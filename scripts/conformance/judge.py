"""judge.py RESULTS.json KNOWN.txt: compares what a run of conformance.py found with what is known to fail.

A failure that is not known is a regression; a known one that passes is out of date. Both end with status 1, so the list
says exactly what the API suite finds, and shrinks as features come.
"""
import json
import sys
from pathlib import Path


def main(results: str, known_file: str) -> int:
    known = {line.split("#")[0].strip() for line in Path(known_file).read_text().splitlines()} - {""}
    checks = {row["name"]: row for row in json.loads(Path(results).read_text())["results"]}
    failed = {name for name, row in checks.items() if row["status"] == "FAIL"}
    for name in sorted(failed - known):
        print(f"REGRESSION {checks[name]['level']} {name}: {checks[name]['detail']}")
    for name in sorted(known - failed):
        print(f"OUT OF DATE {name}: it no longer fails; remove it from {known_file}")
    passed = sum(row["status"] == "PASS" for row in checks.values())
    print(f"{passed} passed, {len(failed)} failed, of which {len(failed & known)} are known")
    return int(failed != known)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

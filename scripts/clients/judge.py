"""judge.py KNOWN_GAPS.txt CLIENT=RESULTS.json…: the table of clients and checks, and whether it is as it should be.

A line of KNOWN_GAPS.txt is `client/check  # text`: that check fails today because the node refuses something by name,
and `text` is in what it says. A failure that is not listed, or that fails with other words, ends with status 1; so does
a listed one that passes or is no longer there. Lines of clients that did not run are left alone.
"""
import json
import sys
from pathlib import Path

MARKS = {"ok": "ok", "gap": "not yet", "FAIL": "FAILED"}


def gaps(file: str) -> dict[str, str]:
    """The refusal's text of each known gap."""
    lines = (line.partition("#") for line in Path(file).read_text().splitlines())
    return {name.strip(): text.strip() for name, _, text in lines if name.strip()}


def table(rows: dict[str, dict[str, str]]) -> str:
    """Checks down, clients across, in the order in which they first come."""
    names = list(dict.fromkeys(name for found in rows.values() for name in found))
    width = max(map(len, names), default=0)
    columns = {client: max(len(client), len(MARKS["gap"])) for client in rows}
    lines = ["  ".join([" " * width, *(client.ljust(columns[client]) for client in rows)])]
    for name in names:
        cells = (MARKS.get(found.get(name, ""), "·").ljust(columns[client]) for client, found in rows.items())
        lines.append("  ".join([name.ljust(width), *cells]))
    return "\n".join(line.rstrip() for line in lines)


def main(known_file: str, *files: str) -> int:
    known = gaps(known_file)
    rows: dict[str, dict[str, str]] = {}
    wrong = []
    for client, _, file in (entry.partition("=") for entry in files):
        rows[client] = {}
        for row in json.loads(Path(file).read_text()):
            name, status = f"{client}/{row['check']}", row["status"]
            text = known.pop(name, None)
            if status == "ok" and text is not None:
                wrong.append(f"OUT OF DATE {name}: it works now; remove it from {known_file}")
            elif status == "FAIL" and text and text in row["detail"]:
                status = "gap"
            elif status == "FAIL":
                known_as = f" (known with other words: {text})" if text is not None else ""
                wrong.append(f"FAILED {name}: {row['detail']}{known_as}")
            rows[client][row["check"]] = status
    gone = [name for name in known if name.partition("/")[0] in rows]
    wrong += [f"OUT OF DATE {name}: there is no such check; remove it from {known_file}" for name in gone]
    print(table(rows), *wrong, sep="\n")
    found = [status for row in rows.values() for status in row.values()]
    print(f"{found.count('ok')} ok, {found.count('gap')} not yet, {found.count('FAIL')} failed, of {len(found)} checks of {len(rows)} clients")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""The table of a comparison."""
import math
from statistics import median

# Cores that other processes may have used during a measurement before the table calls itself doubtful.
BUSY = 0.25


def p90(values: list[float]) -> float:
    """The smallest value that nine of ten don't exceed."""
    return sorted(values)[math.ceil(0.9 * len(values)) - 1]


def rows(turns: list[dict]) -> dict[str, list[float]]:
    """Each figure of one contender by the name of its row: a value for each round, but one p90 over all samples."""
    first = turns[0]
    found = {}
    for name in ("short", "long", "warm"):
        tokens = round(median(first["prompt_tokens"][name]))
        label = f"TTFT, {tokens} tokens" + (", prefix seen before" if name == "warm" else "")
        seconds = [turn[f"ttft_{name}"] for turn in turns]
        found[f"{label}, median ms"] = [1000 * median(values) for values in seconds]
        found[f"{label}, p90 ms"] = [1000 * p90([value for values in seconds for value in values])]
    for count in first["tokens_per_second"]:
        streams = "1 stream" if count == 1 else f"{count} streams"
        found[f"tokens/s with prefill, {streams}"] = [turn["tokens_per_second"][count] for turn in turns]
        found[f"TTFT, {streams}, median ms"] = [1000 * median(turn[f"ttft_streams_{count}"]) for turn in turns]
    found["resident MiB"] = [turn["memory_mib"]["rss"] for turn in turns]
    found["peak resident MiB"] = [peak for turn in turns if (peak := turn["memory_mib"]["peak"]) is not None]
    found["start to first answer, s"] = [turn["ready"] for turn in turns]
    return found


def number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def cell(values: list[float]) -> str:
    """The median, and the range over rounds."""
    if not values:
        return "–"
    spread = f" ({number(min(values))}–{number(max(values))})" if len(values) > 1 else ""
    return number(median(values)) + spread


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Ours divided by theirs; with a question mark where the ranges over rounds overlap or there is but one round."""
    if not ours or not theirs:
        return "–"
    apart = len(ours) > 1 and (max(ours) < min(theirs) or max(theirs) < min(ours))
    return f"{median(ours) / median(theirs):.2f}×" + ("" if apart else " ?")


def table(turns: dict[str, list[dict]]) -> str:
    """Markdown: a column for each contender, and one of ours divided by each peer. Notes what makes it doubtful."""
    figures = {name: rows(found) for name, found in turns.items()}
    peers = [name for name in figures if name != "ours"] if "ours" in figures else []
    lines = ["| | " + " | ".join([*figures, *(f"ours / {peer}" for peer in peers)]) + " |"]
    lines.append("| --- |" + " --- |" * (len(figures) + len(peers)))
    for row in next(iter(figures.values())):
        cells = [cell(found[row]) for found in figures.values()]
        cells += [ratio(figures["ours"][row], figures[peer][row]) for peer in peers]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *notes(turns)])


def notes(turns: dict[str, list[dict]]) -> list[str]:
    count = len(next(iter(turns.values())))
    lines = [f"Medians of {count} rounds (range over rounds). A ratio with ? is not told apart from noise."]
    others = [turn["others_cores"] for found in turns.values() for turn in found if turn["others_cores"] is not None]
    if others:
        doubt = " DOUBTFUL: the machine was not idle." if max(others) > BUSY else ""
        lines.append(f"Cores used by other processes while measuring: {median(others):.2f}, at most {max(others):.2f}."
                     + doubt)
    texts = {name: [turn["sample_text"] for turn in found] for name, found in turns.items()}
    first = next(iter(texts))
    if odd := [name for name in texts if texts[name] != texts[first]]:
        lines.append(f"Greedy text differs from that of {first}: {', '.join(odd)}.")
    for name, found in turns.items():
        if resets := sum(turn["resets"] for turn in found):
            lines.append(f"Connections that {name} lost and that were opened again: {resets}.")
    return lines

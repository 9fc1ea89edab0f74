#!/usr/bin/env python3
"""Ratios of Bifold's results to the other contestants of the same run, from the lines `RESULT {…}` of a file.

Rows that bring their own ratios (`goals`, `beside`) are printed as a table a kind of work, with a verdict a goal;
a goal that is missed ends it with an error.

W1, W2: wall and CPU seconds, like beside like (same block, same query). W3: p50 and p99, after the checksums
of all answers were found equal. Prints nothing for a contestant that did other work."""
import json, sys

all_rows = [json.loads(line[len("RESULT "):]) for line in open(sys.argv[1]) if line.startswith("RESULT ")]
rows = [row for row in all_rows if row.get("w") in (None, "w3")]
ours = [row for row in rows if row["peer"].startswith("bifold")]
peers = [row for row in rows if not row["peer"].startswith("bifold")]


def word(row, name):
    """The value of `name=value` in a contestant's name."""
    return next((w.split("=")[1] for w in row["peer"].split() if w.startswith(name + "=")), None)


def is_like(row, other):
    if row.get("w") == "w3" or other.get("w") == "w3":
        same = row.get("w") == other.get("w") and row["cells"] == other["cells"] and row["shape"] == other["shape"]
        return same and not other["peer"].startswith("clickhouse FINAL")
    block = word(other, "block")
    return row.get("query") == other.get("query") and (block is None or block == word(row, "block")) and row.get("cpu_s")


def median(value):
    return sorted(value)[len(value) // 2] if isinstance(value, list) else value


different = []
for row in ours:
    for other in filter(lambda other: is_like(row, other), peers):
        if row.get("w") != "w3":
            print(f'{row["peer"]} / {other["peer"]}: wall {row["wall_s"] / other["wall_s"]:.2f}, CPU {row["cpu_s"] / other["cpu_s"]:.2f}')
            continue
        if row["check"] != other["check"]:
            different.append(f'{row["peer"]} and {other["peer"]} answer differently over {row["cells"]} cells')
        p50, p99 = (median(row[q]) / median(other[q]) for q in ("p50_ms", "p99_ms"))
        print(f'{row["cells"]} cells, {row["peer"]} / {other["peer"]}: p50 {p50:.2f}, p99 {p99:.2f}')
one = {word(row, "block"): row for row in ours if word(row, "views") == "1"}
for row in ours:
    base = one.get(word(row, "block"))
    if base and word(row, "views") not in (None, "1"):
        print(f'{row["peer"]} / {base["peer"]}: CPU {row["cpu_s"] / base["cpu_s"]:.2f}')


def text(value):
    return f"{value:,.3g}" if isinstance(value, float) and abs(value) < 1000 else f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)


def table(rows):
    """Figures under each other; a contestant without one has a blank."""
    names = []
    for row in rows:
        names += [name for name in row if name not in names and name not in ("w", "peer", "goals", "beside")]
    lines = [[""] + names] + [[row["peer"]] + [text(row[name]) if name in row else "" for name in names] for row in rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(names) + 1)]
    for line in lines:
        print(line[0].ljust(widths[0]) + "".join("  " + cell.rjust(width) for cell, width in zip(line[1:], widths[1:])))


missed = []
for work in dict.fromkeys(row["w"] for row in all_rows if row.get("w") not in (None, "w3")):
    of_work = [row for row in all_rows if row.get("w") == work]
    table(of_work)
    for row in of_work:
        for name, value in row.get("beside", {}).items():
            if name != "peer":
                print(f'{row["peer"]} / {row["beside"]["peer"]}: {name} {value:.2f}')
        for goal in row.get("goals", []):
            verdict = "met" if goal["met"] else "MISSED"
            print(f'{goal["what"]}: {goal["value"]:.2f}, goal {goal["bound"]}: {verdict}')
            if not goal["met"]:
                missed.append(goal["what"])
if missed:
    different.append("missed: " + "; ".join(missed))
sys.exit("; ".join(different) or None)

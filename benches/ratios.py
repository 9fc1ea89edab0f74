#!/usr/bin/env python3
"""Ratios of Bifold's results to each other contestant of the same run: wall and CPU seconds."""
import json, sys

rows = [json.loads(line[len("RESULT "):]) for line in open(sys.argv[1]) if line.startswith("RESULT ")]
ours = [row for row in rows if row["peer"].startswith("bifold")]
for row in ours:
    for other in rows:
        same_query = row.get("query") == other.get("query")
        same_block = all(f"block={b}" not in row["peer"] or f"block={b}" in other["peer"] or "decode" in other["peer"]
                         for b in ("100000", "10000 "))
        if other["peer"].startswith("bifold") or not same_query or not same_block or not row.get("cpu_s"):
            continue
        print(f'{row["peer"]} / {other["peer"]}: wall {row["wall_s"] / other["wall_s"]:.2f}, CPU {row["cpu_s"] / other["cpu_s"]:.2f}')

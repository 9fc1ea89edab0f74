#!/usr/bin/env python3
"""Compares results of W1: equal cells and counts, in whatever order and files. Exits 1 if they differ."""
import sys
import common as c

found = {path: c.digest(path) for path in sys.argv[1:]}
for path, (cells, sha) in found.items():
    print(f"{sha} {cells} cells {path}")
if len(set(found.values())) > 1:
    sys.exit("results differ")
print("results are equal")

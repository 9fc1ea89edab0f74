#!/usr/bin/env python3
"""The cells that W3 asks for, as lines `key,window` for `bench lookup`: the same as w3_lookup.py asks its peers for.

  w3_picks.py --cells DIR --out FILE [--lookups 2000]"""
import argparse
import common as c

a = argparse.ArgumentParser()
a.add_argument("--cells", required=True)
a.add_argument("--out", required=True)
a.add_argument("--lookups", type=int, default=2000)
args = a.parse_args()
with open(args.out, "w") as out:
    out.writelines(f"{key},{window}\n" for key, window in c.picked_cells(args.cells, 500 + args.lookups))

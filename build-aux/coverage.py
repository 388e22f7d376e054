#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Line coverage by folder and file of a tree configured with --enable-coverage, after its tests ran.

    coverage.py TREE [GCOV]
"""

import collections
import gzip
import json
import os
import subprocess
import sys

TOPS = ("common/", "nginx-style-master/", "proxy/", "backend/", "ctl/")


def main():
    tree = os.path.abspath(sys.argv[1])
    gcov = sys.argv[2] if len(sys.argv) > 2 else "gcov"
    source = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    lines = collections.defaultdict(dict)
    for folder, _, names in os.walk(tree):
        for name in names:
            if not name.endswith(".gcda"):
                continue
            out = subprocess.run([gcov, "--json-format", "--stdout", os.path.join(folder, name)],
                                 cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
            data = gzip.decompress(out.stdout) if out.stdout[:2] == b"\x1f\x8b" else out.stdout
            for document in data.splitlines():
                if not document.strip():
                    continue
                for entry in json.loads(document)["files"]:
                    path = os.path.relpath(os.path.join(tree, entry["file"]), source)
                    if path.startswith(TOPS):
                        for line in entry["lines"]:
                            number = line["line_number"]
                            lines[path][number] = lines[path].get(number, 0) + line["count"]
    folders = collections.defaultdict(lambda: [0, 0])
    for path, counts in sorted(lines.items()):
        hit = sum(1 for count in counts.values() if count)
        print(f"{100 * hit / len(counts):6.1f} %  {hit:6}/{len(counts):<6} {path}")
        for key in (os.path.dirname(path), "total"):
            folders[key][0] += hit
            folders[key][1] += len(counts)
    print()
    for folder, (hit, count) in folders.items():
        if folder != "total":
            print(f"{100 * hit / count:6.1f} %  {hit:6}/{count:<6} {folder}")
    hit, count = folders["total"]
    print(f"{100 * hit / max(count, 1):6.1f} %  {hit:6}/{count:<6} total")
    sys.exit(0 if count else 1)


main()

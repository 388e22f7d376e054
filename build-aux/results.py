#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adds test results up: prints "PASSED FAILED", and on stderr a line for each failure.

    results.py trs TREE TEST...    automake's .trs files of these tests
    results.py junit FILE          pytest's report

What gave no result has failed: a test that did not run is not one that passed.
"""

import os
import re
import sys
import xml.etree.ElementTree as ElementTree


def of_trs(tree, tests):
    passed = failed = 0
    for test in tests:
        path = os.path.join(tree, test + ".trs")
        try:
            with open(path, encoding="utf-8", errors="replace") as f:
                results = re.findall(r"^:test-result: (\w+)", f.read(), re.M)
        except OSError:
            results = []
        good = [r for r in results if r in ("PASS", "XFAIL")]
        bad = [r for r in results if r in ("FAIL", "XPASS", "SKIP")]
        if not bad:
            bad = [r for r in results if r == "ERROR"]  # after a FAIL it only says so again
        if not results:
            bad = ["no result"]
        passed += len(good)
        failed += len(bad)
        if not results:
            print(f"    FAILED: {test}: gave no result", file=sys.stderr)
        elif bad:
            print(f"    FAILED: {test}: {len(bad)} of {len(good) + len(bad)}", file=sys.stderr)
            show_log(os.path.join(tree, test + ".log"))
    return passed, failed


def show_log(path):
    """What a test said around its failures."""
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            lines = f.read().splitlines()
    except OSError:
        return
    wanted = [line for line in lines if line.startswith("#") or line.startswith("not ok")
              or "ERROR" in line or "runtime error" in line or "assertion failed" in line]
    for line in (wanted or lines)[-25:]:
        print(f"        {line}", file=sys.stderr)


def of_junit(path):
    passed = failed = 0
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        print(f"    ERROR: {os.path.basename(path)}: the file's tests did not end", file=sys.stderr)
        return 0, 1
    for case in cases:
        troubles = [c.tag for c in case if c.tag in ("failure", "error", "skipped")]
        if troubles:
            failed += 1
            print(f"    {troubles[0].upper()}: {case.get('classname')}::{case.get('name')}",
                  file=sys.stderr)
        else:
            passed += 1
    return passed, failed


def main():
    if sys.argv[1] == "trs":
        passed, failed = of_trs(sys.argv[2], sys.argv[3:])
    else:
        passed, failed = of_junit(sys.argv[2])
    print(passed, failed)


main()

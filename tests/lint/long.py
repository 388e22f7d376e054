#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Functions and files that creep: a function over 70 lines (in tests 150: tables of cases are long), or a
file over 1,000 (in tests 1,500), must be on long.allow with its length, and may not grow beyond it."""

import re

import lint

FUNCTION_LINES_MAX = 70
TEST_LINES_MAX = 150
FILE_LINES_MAX = 1000
TEST_FILE_LINES_MAX = 1500

NAME = re.compile(r"([A-Za-z_]\w*)\s*\(")
KEYWORDS = {"if", "for", "while", "switch", "return", "sizeof", "__attribute__"}


def functions(text):
    """(name, first line, number of lines) of every function: its body opens with '{' in column 0."""
    lines = lint.strip_c(text).split("\n")
    i = 0
    while i < len(lines):
        if lines[i].rstrip() != "{":
            i += 1
            continue
        start = i
        while start > 0 and lines[start - 1].strip() and lines[start - 1].rstrip()[-1:] not in ";}" \
                and not lines[start - 1].startswith("#"):
            start -= 1
        end = i
        while end < len(lines) - 1 and lines[end].rstrip() not in ("}", "};"):
            end += 1
        head = " ".join(lines[start:i])
        names = [n for n in NAME.findall(head) if n not in KEYWORDS]
        yield names[0] if names else "?", start + 1, end - start + 1
        i = end + 1


def main():
    tap = lint.Tap()
    allowed = {(row[0], row[1]): int(row[2]) for row in lint.allowances("long.allow")}
    long_functions, long_files = [], []
    for name in lint.c_files():
        text = lint.read(name)
        count = text.count("\n")
        limit = TEST_FILE_LINES_MAX if name.startswith("tests/") else FILE_LINES_MAX
        if count > max(limit, allowed.get((name, "-"), 0)):
            long_files.append(f"{name}: {count} lines: which two things does it do?")
        for function, line, length in functions(text):
            usual = TEST_LINES_MAX if name.startswith("tests/") else FUNCTION_LINES_MAX
            limit = max(usual, allowed.get((name, function), 0))
            if length > limit:
                long_functions.append(
                    f"{name}:{line}: {function}() has {length} lines, over {limit}: split it, or put "
                    f"\"{name} {function} {length} # why\" on tests/lint/long.allow")
    tap.check(f"functions have at most {FUNCTION_LINES_MAX} lines or are on the list", long_functions)
    tap.check(f"files have at most {FILE_LINES_MAX} lines or are on the list", long_files)
    tap.done()


main()

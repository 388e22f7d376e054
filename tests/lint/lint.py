# SPDX-License-Identifier: Apache-2.0
"""What the lints share: the files of the tree, C without comments, TAP.

A lint is a program that prints one TAP line for each rule or folder and, above a failed one, a `#` line
for each finding: file:line: what is wrong, what would be right.
"""

import os
import re
import subprocess
import sys

SOURCE = os.path.abspath(os.environ.get("srcdir") or
                         os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.path.abspath(os.environ.get("WEIR_BUILD") or ".")

GENERATED = {"configure", "aclocal.m4", "Makefile.in", "config.h.in"}  # a release has them
SKIPPED = {".git", "node_modules", "__pycache__", ".pytest_cache", "autom4te.cache", "build-aux"}


def is_checkout():
    return os.path.exists(os.path.join(SOURCE, ".git"))


def files():
    """Every file of the tree, relative: what git knows or would add, or all of a release."""
    if is_checkout():
        listing = subprocess.run(
            ["git", "-c", f"safe.directory={SOURCE}", "-C", SOURCE, "ls-files", "-z", "--cached",
             "--others", "--exclude-standard"], stdout=subprocess.PIPE, check=True).stdout
        names = {n.decode() for n in listing.split(b"\0") if n}
        return sorted(n for n in names if os.path.isfile(os.path.join(SOURCE, n)))
    found = []
    for folder, folders, names in os.walk(SOURCE):
        folders[:] = [f for f in folders
                      if f not in SKIPPED and not os.path.exists(os.path.join(folder, f, "config.status"))]
        found += [os.path.relpath(os.path.join(folder, n), SOURCE) for n in names]
    return sorted(name for name in found if name not in GENERATED)


def c_files():
    return [n for n in files() if n.endswith((".c", ".h"))]


def read(name):
    with open(os.path.join(SOURCE, name), encoding="utf-8", errors="surrogateescape") as f:
        return f.read()


_lexemes = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def strip_c(text, strings=True):
    """The same lines without comments, and with empty strings."""
    def blank(match):
        piece = match.group()
        if piece[0] in "\"'":
            return piece if not strings else piece[0] + piece[-1]
        return "\n" * piece.count("\n") or " "
    return _lexemes.sub(blank, text)


def allowances(name):
    """Rows of an allow-list: words up to ' # reason'. Every row needs its reason."""
    rows = []
    path = os.path.join(SOURCE, "tests", "lint", name)
    if not os.path.exists(path):
        return rows
    with open(path, encoding="utf-8") as f:
        for line in f:
            row, _, reason = line.strip().partition(" # ")
            if not row or row.startswith("#"):
                continue
            if not reason:
                raise SystemExit(f"{name}: {row!r} has no reason after ' # '")
            rows.append(row.split())
    return rows


class Tap:
    def __init__(self):
        self.count = 0
        self.failed = 0

    def check(self, what, findings):
        findings = sorted(findings)
        for finding in findings[:200]:
            print(f"# {finding}")
        self.count += 1
        self.failed += bool(findings)
        print(f"{'not ok' if findings else 'ok'} {self.count} - {what}", flush=True)

    def done(self):
        print(f"1..{self.count}")
        sys.exit(1 if self.failed else 0)

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The tree itself: licence lines, nothing generated, nothing that ties it to one network."""

import json
import os
import re
import subprocess

import lint

LICENCE = "SPDX-License-Identifier: Apache-2.0"
LICENSED = (".c", ".h", ".def", ".py", ".sh", ".am", ".ac", ".m4", ".yml", ".service", ".js", ".php",
            ".rb")
SCRIPTS = ("autogen.sh", "check", "quickstart", ".ci/run")
GENERATED = re.compile(
    r"(^|/)(configure|Makefile(\.in)?|aclocal\.m4|config\.(h|h\.in|log|status)|node_modules/.*|"
    r".*\.(o|a|so|pyc|gcda|gcno|trs|orig|rej|swp))$")
# Package names come from a registry, which one is the machine's choice.
REGISTRY = re.compile(r"registry\.[a-z0-9-]+\.[a-z]{2,}|\bpypi\.org|files\.pythonhosted|"
                      r"deb\.debian\.org|\bnpmmirror\b|proxy\.golang\.org|rubygems\.org|packagist\.org")


def is_text(name):
    if name.startswith("tests/fuzz/corpus/"):
        return False
    with open(os.path.join(lint.SOURCE, name), "rb") as f:
        return b"\0" not in f.read(4096)


def tracked_but_ignored():
    if not lint.is_checkout():
        return []
    out = subprocess.run(["git", "-c", f"safe.directory={lint.SOURCE}", "-C", lint.SOURCE, "ls-files",
                          "-ci", "--exclude-standard"],
                         stdout=subprocess.PIPE, check=True, text=True).stdout
    return [f"{name}: is in .gitignore and committed all the same" for name in out.split()]


def main():
    tap = lint.Tap()
    names = lint.files()
    texts = {name: lint.read(name) for name in names if is_text(name)}

    unlicensed = []
    for name, text in texts.items():
        if name.startswith("conf/"):
            continue  # examples are for copying, without a line to carry along
        if name.endswith(LICENSED) or name in SCRIPTS or text.startswith("#!"):
            if LICENCE not in "\n".join(text.split("\n", 3)[:3]):
                unlicensed.append(f"{name}:1: the first line says {LICENCE}")
    tap.check("every source says its licence", unlicensed)

    generated = [f"{n}: is generated" for n in names if GENERATED.search(n)] if lint.is_checkout() else []
    tap.check("nothing generated is committed", generated + tracked_but_ignored())

    tap.check("no host name of a package registry", [
        f"{name}:{text.count(chr(10), 0, m.start()) + 1}: {m.group()}"
        for name, text in texts.items() if name != "tests/lint/tree.py"
        for m in REGISTRY.finditer(text)])

    locks = []
    for name in names:
        if os.path.basename(name) == "package-lock.json":
            for package, about in json.loads(texts[name]).get("packages", {}).items():
                if "resolved" in about:
                    locks.append(f"{name}: {package}: drop \"resolved\"")
    tap.check("lock files name versions and hashes, not hosts", locks)

    spaces = []
    for name, text in texts.items():
        if "\r\n" in text and not name.startswith("tests/"):
            spaces.append(f"{name}: has CRLF line ends")
        if name.endswith((".c", ".h", ".py")):
            for number, line in enumerate(text.split("\n"), 1):
                if line != line.rstrip() or (name.endswith((".c", ".h")) and "\t" in line):
                    spaces.append(f"{name}:{number}: tab or blank at the end of the line")
            if text and not text.endswith("\n"):
                spaces.append(f"{name}: does not end with a newline")
    tap.check("no tabs in C, no blanks at line ends", spaces)

    tap.check("scripts are executable", [
        f"{name}: chmod +x" for name, text in texts.items()
        if text.startswith("#!") and not os.access(os.path.join(lint.SOURCE, name), os.X_OK)])
    tap.done()


main()

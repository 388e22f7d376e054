#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom.

A folder includes its own files and folders above it in ORDER; a file directly in a program's folder may
include all of the program's subfolders; programs never include each other; x_private.h is for its
siblings (and for the unit tests of that folder). Includes are full paths, a .c's own header comes
first, headers say `#pragma once`.
"""

import os
import re

import lint

ORDER = [
    "common/base", "common/command", "common/proto", "common/ring", "common/wire", "common/stats", "common/conf",
    "common/io", "common/http", "nginx-style-master", "proxy",
    "backend/store", "backend/types", "backend/cmd", "backend/repl", "backend/coordinator", "backend",
    "ctl",
]
RANK = {folder: rank for rank, folder in enumerate(ORDER)}
PROGRAMS = ("proxy", "backend", "ctl")

# weirctl looks keys up in a file and finds the socket without a proxy: it reads what the proxy reads. It verifies,
# salvages and restores a node's directory: it knows the store's formats.
SHARED = {("ctl", "proxy/" + name) for name in
          ("conf.h", "control_client.h", "control_path.h", "where.h")} | \
         {("ctl", "backend/store/" + name) for name in
          ("checkpoint_format.h", "frame.h", "key_hash.h", "record.h", "ring.h", "segment.h")}

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)


def folder_of(name):
    """The entry of ORDER that a file belongs to: its own folder, or the nearest one above."""
    folder = os.path.dirname(name)
    while folder and folder not in RANK:
        folder = os.path.dirname(folder)
    return folder


def program_of(folder):
    top = folder.split("/")[0]
    return top if top in PROGRAMS else None


def why_not(name, target):
    source, wanted = folder_of(name), folder_of(target)
    if not source:  # tests see everything
        return None
    if not wanted:
        return f"{target} is in no folder that programs may include"
    if source == wanted or (source, target) in SHARED:
        return None
    theirs = program_of(wanted)
    if theirs and theirs != program_of(source):
        return f"{source} must not include {theirs}: programs do not know each other"
    if RANK[wanted] > RANK[source]:
        return f"{source} must not include {wanted}, which lies below it"
    return None


def is_private_to(name, target):
    folder = os.path.dirname(target)
    return os.path.dirname(name) in (folder, f"tests/unit/{folder}")


def main():
    tap = lint.Tap()
    known = set(lint.files())
    layers, private, paths, first, pragma = {}, [], [], [], []
    for name in lint.c_files():
        text = lint.strip_c(lint.read(name), strings=False)
        wrong = layers.setdefault(folder_of(name) or "tests", [])
        includes = [(text.count("\n", 0, m.start(1)) + 1, m.group(1)) for m in INCLUDE.finditer(text)]
        for line, target in includes:
            if target == "config.h":
                continue
            at = f"{name}:{line}"
            if target not in known and os.path.exists(os.path.join(lint.BUILD, target)):
                continue  # generated into the build tree
            if target not in known:
                if name.startswith("tests/") and os.path.join(os.path.dirname(name), target) in known:
                    continue
                paths.append(f"{at}: \"{target}\" is no file of the tree: write the path from its top")
                continue
            why = why_not(name, target)
            if why:
                wrong.append(f"{at}: {why}")
            if re.search(r"_private\.h$", target) and not is_private_to(name, target):
                private.append(f"{at}: {target} is for the files beside it only")
        own = name[:-2] + ".h"
        quoted = [t for _, t in includes if t != "config.h"]
        if name.endswith(".c") and own in known and \
                (not quoted or quoted[0] not in (own, own[:-2] + "_private.h")):
            first.append(f"{name}: includes \"{own}\" first, so that the header is known to stand alone")
        if name.endswith(".h") and "#pragma once" not in text:
            pragma.append(f"{name}: has no #pragma once")
    for folder in sorted(layers, key=lambda f: RANK.get(f, 99)):
        tap.check(f"{folder} includes only what lies above it", layers[folder])
    tap.check("private headers stay with their siblings", private)
    tap.check("includes are paths from the top of the tree", paths)
    tap.check("a file includes its own header first", first)
    tap.check("headers are guarded by #pragma once", pragma)
    tap.done()


main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""No mutable globals outside main.c and nginx-style-master: every module is a struct that can be made
twice, so that a whole cluster fits in one process.

Looks at the objects of the build (the default one: sanitizers and coverage bring variables of their own)
for symbols in writable sections; .data.rel.ro is read-only once relocated. Generators that only run
during the build (make_*.c) are programs of their own.
"""

import os
import subprocess

import lint

TOPS = ("common", "proxy", "backend", "ctl")


def objects():
    for top in TOPS:
        for folder, _, names in os.walk(os.path.join(lint.BUILD, top)):
            for name in names:
                path = os.path.join(folder, name)
                relative = os.path.relpath(path, lint.BUILD)
                # automake puts "libx_a-" before objects with flags of their own
                base = name[:-2].rpartition("-")[2]
                source = os.path.join(os.path.dirname(relative), base + ".c")
                if name.endswith(".o") and base != "main" and not base.startswith("make_") and \
                        os.path.exists(os.path.join(lint.SOURCE, source)):
                    yield source, path


def writable(path):
    listing = subprocess.run(["nm", "-f", "sysv", path], stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, check=True, text=True).stdout
    for line in listing.splitlines():
        fields = [f.strip() for f in line.split("|")]
        if len(fields) != 7 or fields[3] not in ("OBJECT", "TLS", "COMMON"):
            continue
        name, section = fields[0], fields[6]
        if section.startswith((".data.rel.ro", ".rodata", ".init_array")):
            continue
        if section.startswith((".data", ".bss", ".tdata", ".tbss", "*COM*", ".lbss", ".ldata")):
            yield name, section


def main():
    tap = lint.Tap()
    folders = {}
    for source, path in sorted(objects()):
        found = folders.setdefault(os.path.dirname(source), [])
        found += [f"{source}: {name} is in {section}: put it into the module's struct"
                  for name, section in writable(path)]
    tap.check("there are objects to look at", [] if folders else [f"none under {lint.BUILD}"])
    for folder, found in sorted(folders.items()):
        tap.check(f"{folder} has no mutable globals", found)
    tap.done()


main()

#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""C that git knows is in the release: a header that is not listed is missed only by whoever builds the tarball.

Asks the build's Makefile for the names. Other files come in whole folders, by dist-hook.
"""

import os
import subprocess

import lint

def released():
    out = subprocess.run(["make", "-s", "--no-print-directory", "-C", lint.BUILD,
                          "--eval=released-names: ; @$(info $(DISTFILES)):", "released-names"],
                         stdout=subprocess.PIPE, check=True, text=True,
                         env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")}).stdout
    names = (os.path.normpath(os.path.relpath(n, lint.SOURCE) if os.path.isabs(n) else n) for n in out.split())
    source = os.path.relpath(lint.SOURCE, lint.BUILD)
    return {os.path.relpath(n, source) if n.startswith(source + os.sep) and source != "." else n for n in names}


def main():
    tap = lint.Tap()
    names = released()
    files = lint.c_files()
    assert len(files) > 100 and len(names) > 100
    tap.check("all C is in the release", [
        f"{n}: no _SOURCES, no EXTRA_DIST has it" for n in files if n not in names])
    tap.done()


main()

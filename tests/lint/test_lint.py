#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The lints themselves: each, run on a small tree with one fault, must name it. A lint that finds nothing
any more looks exactly like a clean tree."""

import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
C = "/* SPDX-License-Identifier: Apache-2.0 */\n"
CLEAN = {
    "common/base/x.h": C + "#pragma once\nint x(void);\n",
    "common/base/x.c": C + '#include "common/base/x.h"\n\nint x(void)\n{\n    return 1;\n}\n',
}
LONG = C + '#include "common/base/x.h"\n\nint x(void)\n{\n' + "    x();\n" * 80 + "}\n"

# what is wrong, the lint, the file, its text, what the finding says
FAULTS = [
    ("an upward include", "layers", "common/ring/r.c",
     C + '#include "common/io/i.h"\n', "must not include common/io"),
    ("a program that includes another", "layers", "ctl/c.c",
     C + '#include "proxy/p.h"\n', "programs do not know each other"),
    ("a private header taken from elsewhere", "layers", "common/io/i.c",
     C + '#include "common/base/x_private.h"\n', "for the files beside it"),
    ("a relative include", "layers", "common/base/y.c", C + '#include "x.h"\n', "from its top"),
    ("an unguarded header", "layers", "common/base/y.h", C, "#pragma once"),
    ("a long function", "long", "common/base/x.c", LONG, "x() has 83 lines"),
    ("sprintf", "banned", "common/base/y.c", C + "void f(char *p) { sprintf(p, \"\"); }\n", "sprintf()"),
    ("a raw malloc", "banned", "proxy/y.c", C + "void *f(void) { return malloc(1); }\n", "malloc()"),
    ("a raw socket call", "banned", "proxy/y.c", C + "int f(int d) { return close (d); }\n", "close()"),
    ("a raw libev call", "banned", "proxy/y.c", C + "void f(void) { ev_run(0, 0); }\n", "ev_run()"),
    ("a missing licence", "tree", "common/base/y.c", "int y;\n", "SPDX"),
    ("a registry's host", "tree", "docs/y.md", "see https://registry.npmjs" + ".org/x\n", "registry."),
    ("a lock file with hosts", "tree", "tests/e2e/clients/package-lock.json",
     '{"packages": {"a": {"resolved": "https://x"}}}', "resolved"),
    ("a tab", "tree", "common/base/y.c", C + "\tint y;\n", "tab"),
]
INNOCENT = [
    ("a word in a comment or a string", "banned", "proxy/y.c",
     C + '/* malloc(1) */ // close(2)\nconst char *y = "sprintf(x)";\n'),
    ("a method of that name", "banned", "proxy/y.c",
     C + "void f(struct io *io) { io->close(io); io_close(io); ops.send(1); }\n"),
    ("an include of what lies above", "layers", "common/ring/r.c", C + '#include "common/base/x.h"\n'),
    ("a private header in its unit test", "layers", "tests/unit/common/base/test_x.c",
     C + '#include "common/base/x_private.h"\n'),
]


def run(lint_name, files):
    with tempfile.TemporaryDirectory() as tree:
        for name, text in {**CLEAN, "proxy/p.h": CLEAN["common/base/x.h"],
                           "common/io/i.h": CLEAN["common/base/x.h"],
                           "common/base/x_private.h": CLEAN["common/base/x.h"], **files}.items():
            path = os.path.join(tree, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        return subprocess.run([sys.executable, os.path.join(HERE, lint_name + ".py")],
                              env=dict(os.environ, srcdir=tree, PYTHONDONTWRITEBYTECODE="1"), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def main():
    failed = 0
    print(f"1..{len(FAULTS) + len(INNOCENT)}")
    count = 0
    for what, lint_name, name, text, says in FAULTS:
        done = run(lint_name, {name: text})
        findings = [line for line in done.stdout.splitlines() if line.startswith("#")]
        good = done.returncode == 1 and any(says in line for line in findings)
        count += 1
        failed += not good
        print(f"{'ok' if good else 'not ok'} {count} - {lint_name} finds {what}")
        if not good:
            print("".join(f"# {line}\n" for line in done.stdout.splitlines()), end="")
    for what, lint_name, name, text in INNOCENT:
        done = run(lint_name, {name: text})
        count += 1
        failed += done.returncode != 0
        print(f"{'ok' if done.returncode == 0 else 'not ok'} {count} - {lint_name} lets pass {what}")
        if done.returncode != 0:
            print("".join(f"# {line}\n" for line in done.stdout.splitlines()), end="")
    sys.exit(1 if failed else 0)


main()

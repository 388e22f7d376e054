#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Calls that nobody makes, or that only some folders make.

Unbounded string functions nowhere; the heap only through common/base/mem.h; whatever waits or varies
(sockets, files, clocks, random numbers) only in common/io, nginx-style-master, ctl and tests, as the
simulator must stand in for it. Exceptions with their reasons are in banned.allow.
"""

import re

import lint

NOWHERE = {
    "sprintf": "snprintf", "vsprintf": "vsnprintf", "strcpy": "a length and memcpy",
    "strcat": "a length and memcpy", "strncpy": "a length and memcpy", "strncat": "a length and memcpy",
    "strtok": "a loop over struct bytes", "strtok_r": "a loop over struct bytes",
    "atoi": "bytes_to_u64", "atol": "bytes_to_u64", "atoll": "bytes_to_u64", "atof": "strtod",
    "gets": "fgets", "alloca": "a bounded array", "tmpnam": "mkstemp", "mktemp": "mkstemp",
    "system": "posix_spawn with an argv", "popen": "posix_spawn with an argv",
}
HEAP = "malloc calloc realloc reallocarray free strdup strndup asprintf vasprintf posix_memalign " \
       "aligned_alloc".split()
RAW = (
    "socket socketpair accept accept4 connect bind listen shutdown send sendto sendmsg sendmmsg recv "
    "recvfrom recvmsg recvmmsg setsockopt getsockopt getsockname getpeername read write readv writev "
    "pread pwrite preadv pwritev open openat creat close fopen fclose fread fwrite fsync fdatasync "
    "ftruncate unlink rename poll ppoll select epoll_create1 epoll_ctl epoll_wait getaddrinfo "
    "gethostbyname clock_gettime gettimeofday time sleep usleep nanosleep rand random srand drand48 "
    "getrandom arc4random fork execve execvp kill waitpid signal sigaction mmap munmap ioctl fcntl "
    "pthread_create"
).split()
RAW_FOLDERS = ("common/io/", "nginx-style-master/", "ctl/", "tests/")
RAW_PREFIXES = re.compile(r"(?<![\w.>])((?:ev|io_uring)_\w+)\s*\(")


def finder(names):
    # Neither a method (x->close(...)), nor a part of a longer name.
    return re.compile(r"(?<![\w.])(?<!->)(" + "|".join(names) + r")\s*\(")


def find(pattern, text):
    for m in pattern.finditer(text):
        yield text.count("\n", 0, m.start()) + 1, m.group(1)


def main():
    tap = lint.Tap()
    allowed = {(row[0], call) for row in lint.allowances("banned.allow") for call in row[1:]}
    used = set()
    nowhere, heap, raw = [], [], []
    patterns = finder(NOWHERE), finder(HEAP), finder(RAW)

    def is_allowed(name, call):
        used.add((name, call))
        return (name, call) in allowed

    for name in lint.c_files():
        text = lint.strip_c(lint.read(name))
        for line, call in find(patterns[0], text):
            if not is_allowed(name, call):
                nowhere.append(f"{name}:{line}: {call}(): use {NOWHERE[call]}")
        if not name.startswith("tests/"):
            for line, call in find(patterns[1], text):
                if not is_allowed(name, call):
                    heap.append(f"{name}:{line}: {call}(): use common/base/mem.h")
        if not name.startswith(RAW_FOLDERS):
            for pattern in (patterns[2], RAW_PREFIXES):
                for line, call in find(pattern, text):
                    if not is_allowed(name, call):
                        raw.append(f"{name}:{line}: {call}(): goes through struct io, or on "
                                   "tests/lint/banned.allow with its reason")
    tap.check("no unbounded or unsafe calls", nowhere)
    tap.check("the heap is reached through common/base/mem.h", heap)
    tap.check("what waits or varies goes through struct io", raw)
    tap.check("exceptions are still needed",
              [f"tests/lint/banned.allow: {name} no longer calls {call}()"
               for name, call in allowed - used if name in lint.c_files()])
    tap.done()


main()

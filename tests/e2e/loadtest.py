# SPDX-License-Identifier: Apache-2.0
"""Load that must not notice anything, and what the tests of reloads, upgrades and kills share."""

import json
import os
import re
import signal
import threading
import time

from weirtest import LOOPBACK, Process, children_of, cmdline_of, program, wait_for


def fd_count(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def open_fds(pid):
    """Of one that may just be leaving: then none."""
    try:
        return fd_count(pid)
    except OSError:
        return 0


def fd_names(pid):
    names = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    return sorted(re.sub(r"\d+", "N", name) for name in names)


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def is_sanitized(pid):
    with open(f"/proc/{pid}/maps", encoding="latin-1") as f:
        return "libasan" in f.read()


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def workers_of(master):
    """Pids of a master's workers, all generations."""
    return [pid for pid in children_of(master) if ": worker" in cmdline_of(pid)]


def reload(proxy, conf_text=None, master=None):
    """HUP, and waits for its outcome, which is returned: the line of the log."""
    before = len(proxy.log_text())
    if conf_text is not None:
        proxy.write_conf(conf_text)
    os.kill(master or proxy.master_pid(), signal.SIGHUP)
    return wait_for(lambda: re.search(r"reload (done|refused)[^\n]*\n", proxy.log_text()[before:]),
                    "the log tells how the reload went").group(0)


def settle(proxy, workers, old=(), deadline=20):
    """The newest generation alone is left; returns its pids."""
    def only_new():
        pids = workers_of(proxy.master_pid())
        others = len(children_of(proxy.master_pid())) - len(pids)  # stats processes
        return len(pids) == workers and others <= 1 and not set(pids) & set(old) and pids
    return wait_for(only_new, f"older generations leave: {workers} workers, none of {sorted(old)}", deadline)


class Load:
    """tests/e2e/load_client as a context. After it `.result` is its report; see clean()."""

    def __init__(self, stage, port=None, path=None, memcache=False, misses=False,
                 pipelining=8, depth=8, short=100, idle=8):
        where = ["-u", path] if path else ["-p", port]
        self.process = stage.process(
            [program("tests/e2e/load_client"), *where, "-P", pipelining, "-d", depth, "-S", short,
             "-I", idle, *(["-m"] if memcache else []), *(["-n"] if misses else [])], "load_client")
        self.result = None
        wait_for(lambda: "running" in self.process.text(), "the load runs")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        if self.result is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(40) == 0, self.process.tail()
            self.result = json.loads(self.process.text().splitlines()[-1])
        return self.result

    def faults(self):
        """{kind: count} of everything that a client noticed."""
        kinds = ("refused", "reset", "closed", "wrong", "silent", "error")
        return {kind: self.result[kind] for kind in kinds if self.result[kind]}

    def clean(self, requests=1, connections=1):
        assert self.faults() == {}, self.result
        assert self.result["requests"] >= requests, self.result
        assert self.result["connections"] >= connections, self.result


class Watcher:
    """Looks at a master's workers all the time: how many lived at once."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.most = 0
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        while not self.done.wait(0.02):
            self.most = max(self.most, len(workers_of(self.proxy.master_pid())))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def pause(seconds):
    time.sleep(seconds)


__all__ = ["LOOPBACK", "Load", "Process", "Watcher", "cpu_seconds", "fd_count", "fd_names", "is_alive",
           "is_sanitized", "open_fds", "pause", "reload", "rss_kib", "settle", "workers_of"]

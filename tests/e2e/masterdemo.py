# SPDX-License-Identifier: Apache-2.0
"""Drives tests/e2e/master_demo: a line server over nginx-style-master. See test_master.py."""

import os
import re
import signal
import socket
import threading
import time

from weirtest import LOOPBACK, Process, cmdline_of, free_port, program, wait_for


def demo_program():
    return program("tests/e2e/master_demo")


class Lines:
    """A connection that speaks lines."""

    def __init__(self, address, timeout=20):
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection((LOOPBACK, address), timeout=timeout)
        self.buffer = b""

    def send(self, text):
        self.socket.sendall(text.encode())

    def line(self):
        while b"\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError("closed by the server")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def ask(self, text):
        self.send(text + "\n")
        return self.line()

    def who(self):
        return dict((k, int(v)) for k, v in re.findall(r"(\w+)=(\d+)", self.ask("who")))

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Demo:
    """One instance: a directory, a configuration, ports; its master may be started again."""

    def __init__(self, directory, **conf):
        self.directory = str(directory)
        self.port, self.stats_port = free_port(), free_port()
        self.conf_path = os.path.join(self.directory, "demo.conf")
        self.pid_path = os.path.join(self.directory, "demo.pid")
        self.log_path = os.path.join(self.directory, "demo.log")
        self.conf = {"workers": 2, "drain_ms": 5000, **conf}
        self.extra = []  # lines
        self.masters = []
        self.write()

    def write(self, raw=None, **changes):
        self.conf.update(changes)
        lines = [f"listen {LOOPBACK}:{self.port} {self.conf.get('accept', 'reuseport')}",
                 f"stats {LOOPBACK}:{self.stats_port}"]
        lines += [f"{k} {v}" for k, v in self.conf.items() if k != "accept" and v is not None]
        lines += self.extra
        with open(self.conf_path + ".new", "w", encoding="ascii") as f:
            f.write(raw if raw is not None else "\n".join(lines) + "\n")
        os.rename(self.conf_path + ".new", self.conf_path)

    def argv(self, *options, binary=None):
        return [binary or demo_program(), "-c", self.conf_path, "-p", self.pid_path, "-l", self.log_path,
                *options]

    def start(self, *options, wait=True, binary=None):
        process = Process(self.argv(*options, binary=binary), self.directory, f"demo{len(self.masters)}")
        self.masters.append(process)
        if wait:
            wait_for(lambda: self.pid() == process.pid or not process.is_running(), "it serves")
            assert process.is_running(), self.log() + process.text()
            self.stats()  # the stats process comes when the workers are ready: wait until it is up as well
        return process

    def pid(self, suffix=""):
        try:
            with open(self.pid_path + suffix, encoding="ascii") as f:
                return int(f.read() or 0)
        except OSError:
            return 0

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def connect(self, **keywords):
        return Lines(self.port, **keywords)

    def control(self, text="stats"):
        """What the stats port says to one line."""
        with Lines(self.stats_port) as c:
            c.send(text + "\n")
            data = b""
            while True:
                piece = c.socket.recv(65536)
                if not piece:
                    return data.decode()
                data += piece

    def stats(self):
        text = self.control()
        found = dict((k, int(v)) for k, v in re.findall(r"(\w+)=(-?\d+)", text))
        found["slots"] = [dict((k, int(v)) for k, v in re.findall(r"(\w+)=(\d+)", line))
                          for line in text.splitlines() if line.startswith("slot=")]
        return found

    def workers(self, newest=True):
        return [s for s in self.stats()["slots"] if s["newest"] or not newest]

    def worker_pids(self):
        return sorted(s["pid"] for s in self.workers())

    def signal(self, signo, pid=None):
        os.kill(pid or self.masters[-1].pid, signo)

    def generation(self):
        with self.connect() as c:
            return c.who()["generation"]

    def reload(self, lines_before=None):
        """HUP, and waits for its outcome: the last line of the log about it."""
        before = len(self.log())
        self.signal(signal.SIGHUP)
        return self.wait_log(r"reload (done|refused)[^\n]*", before)

    def wait_log(self, pattern, before=0):
        return wait_for(lambda: re.search(pattern, self.log()[before:]), f"the log says {pattern}").group(0)

    def settle(self):
        """Only the newest generation is left."""
        def settled():
            slots = self.stats()["slots"]
            return slots and all(s["newest"] for s in slots)
        wait_for(settled, "older generations left")

    def close(self):
        for master in reversed(self.masters):
            master.stop()
        said = "".join(master.text() for master in self.masters) + self.log()
        assert "Sanitizer" not in said and "runtime error" not in said, said[-4000:]


def fd_count(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def has_open(pid, path):
    """Under this name: not what has been renamed since."""
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") == path for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:  # it is gone, or the descriptor is
        return False


def title_of(pid):
    return cmdline_of(pid)


class Load:
    """Clients that must not notice anything: persistent ones with a name and pipelines, and a stream of
    short connections. Every surprise is kept."""

    def __init__(self, demo, persistent=6, short=2):
        self.demo = demo
        self.done = threading.Event()
        self.troubles = []
        self.requests = 0
        self.connections = 0
        self.threads = [threading.Thread(target=self._persistent, args=(i,)) for i in range(persistent)]
        self.threads += [threading.Thread(target=self._short) for _ in range(short)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join()

    def _persistent(self, index):
        count = 0
        try:
            with self.demo.connect() as c:
                assert c.ask(f"name client-{index}") == "ok"
                while not self.done.is_set():
                    # A pipeline that is cut in the middle of a request.
                    batch = [f"{index}-{count}-{i}" for i in range(5)]
                    text = "".join(f"echo {b}\n" for b in batch) + "name?\n"
                    cut = count * 7 % len(text)
                    c.send(text[:cut])
                    if count % 3 == 0:
                        time.sleep(0.002)
                    c.send(text[cut:])
                    for b in batch:
                        answer = c.line()
                        assert answer == b, f"asked {b}, got {answer}"
                    answer = c.line()
                    assert answer == f"client-{index}", f"the name became {answer!r}"
                    count += 1
                    self.requests += 6
                    time.sleep(0.001)
        except Exception as error:  # noqa: BLE001
            self.troubles.append(f"persistent {index} after {count} rounds: {error!r}")

    def _short(self):
        while not self.done.is_set():
            try:
                with self.demo.connect() as c:
                    assert c.ask("echo x") == "x"
                    self.requests += 1
                    self.connections += 1
            except Exception as error:  # noqa: BLE001
                self.troubles.append(f"short after {self.connections}: {error!r}")
                return
            time.sleep(0.001)

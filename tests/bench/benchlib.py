# SPDX-License-Identifier: Apache-2.0
"""What the speed benches share: processes on one core, their CPU time, the load generators, tables."""

import collections
import contextlib
import ctypes
import dataclasses
import os
import platform
import random
import re
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
MARK_BEGIN, MARK_END = "<!-- bench: begin -->", "<!-- bench: end -->"


class Failed(Exception):
    """This case cannot be measured; its text says why."""


# --- processes ---------------------------------------------------------------------------------


def stat_parents():
    """{pid: parent} of every process there is."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as file:
                parents[int(entry)] = int(file.read().rpartition(")")[2].split()[1])
    return parents


def tree_of(pid):
    """The process and all its descendants: a proxy's master, workers and helpers."""
    children = collections.defaultdict(list)
    for child, parent in stat_parents().items():
        children[parent].append(child)
    tree = [pid]
    for member in tree:
        tree += children[member]
    return tree


def cpu_ns(pids):
    """Time on the processor of all threads, user and system, of those too that have ended: the ring's kernel workers
    come and go. It is the clock of clock_getcpuclockid(); /proc/PID/stat counts in 10 ms ticks."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += time.clock_gettime_ns(~pid << 3 | 2)
    return total


def memory_bytes(pids):
    """Anonymous and shared memory; a page that a fork shares is counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{pid}/smaps_rollup") as file:
                for line in file:
                    if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                        total += int(line.split()[1]) * 1024
    return total


class Process:
    """A program on the bench's core (or another), ended with everything it started when the bench ends."""

    def __init__(self, bench, name, argv, core=None, **popen):
        self.bench, self.name, self.argv = bench, name, argv
        self.core = bench.core if core is None else core
        self.log = os.path.join(bench.folder, f"{name}-{len(bench.processes)}.log")
        parent = os.getpid()
        prctl = ctypes.CDLL(None).prctl

        def in_child():
            prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: also when the bench itself is killed
            if os.getppid() != parent:
                os._exit(1)
            os.sched_setaffinity(0, {self.core})
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

        with open(self.log, "w") as log:
            self.popen = subprocess.Popen(
                argv, stderr=log, stdout=popen.pop("stdout", log), preexec_fn=in_child,
                start_new_session=True, cwd=bench.folder, text=True, **popen)
        self.tree = [self.popen.pid]
        bench.processes.append(self)

    def settle(self):
        """Looks which processes it has started, and holds them all to the bench's core."""
        self.tree = tree_of(self.popen.pid)
        for pid in self.tree:
            with contextlib.suppress(OSError):
                for task in map(int, os.listdir(f"/proc/{pid}/task")):
                    os.sched_setaffinity(task, {self.core})
                    os.sched_setscheduler(task, os.SCHED_BATCH, os.sched_param(0))

    def move(self, core):
        self.core = core
        self.settle()

    def log_tail(self):
        with open(self.log, errors="replace") as file:
            return " | ".join(line.strip() for line in file.readlines()[-3:])

    def wait_listening(self, port, seconds=10):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                raise Failed(f"{self.name} ended with {self.popen.returncode}: {self.log_tail()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return
            time.sleep(0.01)
        raise Failed(f"{self.name} does not listen on port {port}: {self.log_tail()}")

    def stop(self, seconds=3):
        """TERM, and after some seconds KILL, which also meets what outlives its parent."""
        with contextlib.suppress(OSError):
            self.tree = tree_of(self.popen.pid) if self.popen.poll() is None else self.tree
        born = {pid: self.bench.start_time(pid) for pid in self.tree}
        if self.popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.popen.pid, signal.SIGCONT)
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(seconds)
        for pid, start in born.items():
            if start is not None and self.bench.start_time(pid) == start:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        if self in self.bench.processes:
            self.bench.processes.remove(self)


class Load(Process):
    """The load generator; see the head of load.c for what it understands."""

    def __init__(self, bench, case, port, clients=None, core=None):
        argv = [bench.program(case.load_program), "--port", str(port)] + case.load_options()
        if clients is not None:
            argv[argv.index("--clients") + 1] = str(clients)
        super().__init__(bench, "load", argv, core, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.answer("ready", 60)

    def line(self, timeout):
        """Every command has one line for an answer: nothing may wait in Python's buffer, unseen by select."""
        ready, _, _ = select.select([self.popen.stdout], [], [], timeout)
        line = self.popen.stdout.readline() if ready else ""
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(1)
            raise Failed(self.log_tail() or "the load generator says nothing")
        return line.split()

    def answer(self, word, timeout=30):
        line = self.line(timeout)
        if line[0] != word:
            raise Failed(f"the load generator said {' '.join(line)}")
        return [int(number) for number in line[1:]]

    def tell(self, command):
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.write(command + "\n")
            self.popen.stdin.flush()

    def ask(self, command, word="done"):
        self.tell(command)
        return self.answer(word)[0]

    def ports(self):
        """{client's port: requests answered so far}"""
        self.tell("ports")
        numbers = self.answer("ports")
        return dict(zip(numbers[::2], numbers[1::2]))


class Bench:
    def __init__(self, options):
        self.options = options
        self.core = options.core
        self.folder = tempfile.mkdtemp(prefix="weir-bench-", dir=getattr(options, "dir", None))
        self.processes = []
        self.ports = set()
        self.random = random.Random(options.seed)

    def close(self):
        for process in reversed(self.processes[:]):
            process.stop()
        if self.options.keep:
            print(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def start_time(pid):
        """Tells a process from a later one with the same number."""
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[19]
        return None

    def program(self, name):
        return os.path.join(self.options.build, "tests", "bench", name)

    def free_port(self):
        """Below the range that outgoing connections take their ports from."""
        for _ in range(1000):
            port = random.randrange(12000, 32000)
            if port not in self.ports:
                with contextlib.suppress(OSError), socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
                    self.ports.add(port)
                    return port
        raise Failed("no free port")

    def slice(self, server, load):
        """CPU microseconds of the server per request, over one slice."""
        before = cpu_ns(server.tree)
        requests = load.ask(f"go {self.options.slice_ms}")
        time.sleep(0.003)  # the server's last turn, after the last reply
        return (cpu_ns(server.tree) - before) / 1000 / requests


def store_keys(protocol, port, count, value_size, first=0, batch=500):
    """Key i is "key:" and twelve digits, its value begins with the key."""
    reply = b"+OK\r\n" if protocol == "redis" else b"STORED\r\n"
    with socket.create_connection(("127.0.0.1", port), 30) as link:
        for start in range(first, first + count, batch):
            requests = []
            for number in range(start, min(start + batch, first + count)):
                key = f"key:{number:012}"
                value = key.ljust(value_size, "x")
                if protocol == "redis":
                    requests.append(f"*3\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n${value_size}\r\n{value}\r\n")
                else:
                    requests.append(f"set {key} 0 0 {value_size}\r\n{value}\r\n")
            link.sendall("".join(requests).encode())
            left = len(requests) * len(reply)
            while left > 0:
                got = link.recv(left)
                if not got or got.strip(reply):
                    raise Failed(f"{protocol} did not store the keys: {got[:80]!r}")
                left -= len(got)


def perf_report(bench, title, process, load, seconds):
    """Records one run of `seconds`, and prints where the process's time goes."""
    if not shutil.which("perf"):
        raise Failed("perf is not installed (Debian: linux-perf)")
    data = os.path.join(bench.folder, "perf.data")
    recorder = subprocess.Popen(
        ["perf", "record", "-q", "-F", "4999", "-g", "-o", data, "-p", ",".join(map(str, process.tree)),
         "--", "sleep", str(seconds)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    before = cpu_ns(process.tree)
    requests = load.ask(f"go {seconds * 1000 + 200}")
    used = (cpu_ns(process.tree) - before) / 1000 / requests
    errors = recorder.communicate()[1]
    if recorder.returncode not in (0, -signal.SIGINT):
        raise Failed(f"perf record: {errors.strip()}")
    print(f"{title}: {used:.3f} µs a request, with perf's own cost\n")
    for sort in ("dso", "symbol"):
        report = subprocess.run(
            ["perf", "report", "-i", data, "--stdio", "--no-children", "-g", "none", "--sort",
             "dso,symbol" if sort == "symbol" else sort, "--percent-limit", "0.5"],
            capture_output=True, text=True)
        lines = [re.sub(r"(\s+-)+\s*$", "", line) for line in report.stdout.splitlines()
                 if line.strip() and not line.startswith("#")]
        print("\n".join(lines[:45]), end="\n\n")
    if bench.options.perf_data:
        shutil.copy(data, bench.options.perf_data)


def build_programs(build, names):
    """The bench's own programs; make knows whether there is something to do."""
    if os.path.exists(os.path.join(build, "Makefile")):
        subprocess.run(["make", "-s", "-C", build] + [f"tests/bench/{name}" for name in names],
                       check=True, stdout=subprocess.DEVNULL)
    elif not os.access(os.path.join(build, "tests/bench/load"), os.X_OK):
        sys.exit(f"{build} is no build tree: run ./autogen.sh && ./configure, or say --build DIR")


# --- tables --------------------------------------------------------------------------------------


@dataclasses.dataclass
class Row:
    name: str
    what: str
    figures: dict  # kind: text
    ratio: str = "-"
    goal: str = "-"
    met: str = "-"
    over_floor: str = "-"


def significant(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def ratio_of(figures, upper, lower):
    """The median of the rounds' ratios, and half the range that the middle half of them lies in."""
    if upper not in figures or lower not in figures:
        return None, "-"
    ratios = [a / b for a, b in zip(figures[upper], figures[lower])]
    middle = statistics.median(ratios)
    quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [middle] * 3
    return middle, f"{middle:.2f} ± {(quarters[2] - quarters[0]) / 2:.2f}"


def verdict(is_met):
    return "-" if is_met is None else "yes" if is_met else "**no**"


def processor_line():
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    return f"{model.group(1) if model else platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}"


def host_line(options):
    """What the machine does to a program that waits for nobody (host.c), or nothing if that is not built."""
    path = os.path.join(options.build, "tests", "bench", "host")
    ms = 500 if options.quick else 3000
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["taskset", "-c", str(options.core), path, "--ms", str(ms)], capture_output=True, text=True, timeout=60)
        found = re.fullmatch(r"host (\d+) (\d+) (\d+) (\d+)\n", done.stdout)
        if found:
            call, stops, longest, page = (int(word) for word in found.groups())
            return (f"a system call {call / 1000:.2f} µs, {stops} stops of over 1 ms in {ms / 1000:g} s (the longest {longest / 1000:.1f} ms), "
                    f"2 MiB found again in {page / 1000:.1f} µs")
    return "tests/bench/host is not built"


def version_of(argv, pattern):
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
        found = re.search(pattern, done.stdout + done.stderr)
        return found.group(1) if found else "?"
    return "?"


def write_markdown(path, text, begin=MARK_BEGIN, end=MARK_END):
    """Between the marks if the file has them; else the file is (over)written."""
    with contextlib.suppress(FileNotFoundError), open(path) as file:
        old = file.read()
        if begin in old and end in old:
            text = old[:old.index(begin)] + text.rstrip("\n") + old[old.index(end) + len(end):]
    with open(path, "w") as file:
        file.write(text)

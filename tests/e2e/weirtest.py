# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: real processes on loopback, raw connections, the stats reader.

Rules that keep runs apart on a machine where others run servers too: every port comes from
free_port(); every process is ended through its own Popen or by the pids of its own session; no test
waits without a deadline, and none asserts how long something took.
"""

import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
LOOPBACK = "127.0.0.1"
DEADLINE = 20.0  # seconds that a thing that should happen at once may take on a busy machine

# Words in a log that mean that a process is broken. A worker that a test kills leaves none of them.
BROKEN = re.compile(
    r"assertion failed|unreachable:|(?:Address|Leak|Thread|UndefinedBehavior)Sanitizer|"
    r"runtime error:|signal=(?:SIG)?(?:SEGV|ABRT|BUS|ILL|FPE|SYS|4|6|7|8|11|31)\b|stack smashing|"
    r"buffer overflow detected|double free|corrupted size",
)


def find_build():
    """The build tree: $WEIR_BUILD, else the first place that has a weir-proxy in it."""
    asked = os.environ.get("WEIR_BUILD")
    if asked:
        return os.path.abspath(asked)
    for name in ("build-check", "build", "."):
        path = os.path.join(SOURCE, name)
        if os.access(os.path.join(path, "weir-proxy"), os.X_OK):
            return path
    return os.path.join(SOURCE, "build")


BUILD = find_build()


def program(name):
    """Full path of weir-proxy, weirctl, ... in the build tree."""
    path = os.path.join(BUILD, name)
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{path} is not built (set WEIR_BUILD to the build tree)")
    return path


# Ports

PORTS_FIRST, BLOCKS, BLOCK_PORTS = 12000, 100, 200
_blocks, _ports = [], []  # locks of blocks, ports of the newest one
_random = random.Random(os.getpid() * 1000003 + time.time_ns())


def simulated_instead(suite, why):
    """A suite over the simulator's disk, where there is no real one to do that to."""
    print(f"NOT ON A REAL DISK HERE, {why}: {suite} instead")
    done = subprocess.run([os.path.join(find_build(), "tests/unit/backend/store", suite)], timeout=280,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def take_block():
    """Ports of a block that is this process's alone as long as it lives: test files run side by side, and one of them
    must not get what another one has been given and not yet bound. The name of the lock is of the same network."""
    for block in _random.sample(range(BLOCKS), BLOCKS):
        lock = socket.socket(socket.AF_UNIX)
        try:
            lock.bind(f"\0weir-test-ports-{block}")
        except OSError:
            lock.close()
            continue
        _blocks.append(lock)
        first = PORTS_FIRST + block * BLOCK_PORTS
        return _random.sample(range(first, first + BLOCK_PORTS, 4), BLOCK_PORTS // 4)
    raise RuntimeError("no free port found")


def free_port():
    """A TCP port on loopback that nobody has, below the range of outgoing connections. The three behind it are given to
    nobody else: a node's workers listen on them."""
    while True:
        if not _ports:
            _ports.extend(take_block())
        port = _ports.pop()
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        return port


def free_ports(count):
    return [free_port() for _ in range(count)]


# Waiting

def wait_for(condition, what="", deadline=DEADLINE, step=0.01):
    """Calls condition() until it returns something true, which is returned. Fails after the deadline, behind which it is
    asked once more: who waits may have been held up, too."""
    end = time.monotonic() + deadline
    while True:
        is_over = time.monotonic() > end
        result = condition()
        if result:
            return result
        if is_over:
            raise AssertionError(f"waited {deadline:.0f} s in vain: {what or condition}")
        time.sleep(step)


def can_connect(port, host=LOOPBACK):
    try:
        socket.create_connection((host, port), timeout=1).close()
        return True
    except OSError:
        return False


# Processes

def become_subreaper():
    """Orphans of what the tests start (workers of a killed master) become ours, so they can be reaped."""
    ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def pid_in(path):
    """0: there is none yet."""
    try:
        with open(path, encoding="ascii") as f:
            return int(f.read() or 0)
    except (OSError, ValueError):
        return 0


def replace_binary(path, original, text=None, mode=0o755):
    """Another file takes a binary's place, as a package manager does it: a copy of the original, or a script."""
    fresh = path + ".new"
    if text is None:
        shutil.copy(original, fresh)
    else:
        with open(fresh, "w", encoding="ascii") as f:
            f.write(text)
    os.chmod(fresh, mode)
    os.rename(fresh, path)


def pids_of_session(session):
    """Every living process of a session that one of our Popen calls has opened."""
    pids = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="latin-1") as f:
                fields = f.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            pids.append(int(name))
    return sorted(pids)


def children_of(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            return sorted(int(p) for p in f.read().split())
    except OSError:
        return []


def cmdline_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().replace(b"\0", b" ").decode("latin-1").strip()
    except OSError:
        return ""


def begin_of(pid):
    """When it began, in ticks since the host did; None: it is gone. Another process may have got its number."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class Process:
    """A program in a session of its own, its output in a file, always ended."""

    def __init__(self, argv, directory, name, env=None, cwd=None):
        self.argv = [str(a) for a in argv]
        self.name = name
        self.directory = directory
        self.output = os.path.join(directory, f"{name}.out")
        for again in range(2, 10000):  # two of one name must not share their words
            if not os.path.exists(self.output):
                break
            self.output = os.path.join(directory, f"{name}-{again}.out")
        self.port = None
        self._sent = set()  # signals that the test sent on purpose
        self.forgiven = None  # a regular expression: lines that are no trouble, as the test made them
        with open(self.output, "ab") as out:
            self.popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd or directory,
                env=dict(os.environ, **(env or {})), start_new_session=True)
        self.pid = self.popen.pid

    def is_running(self):
        return self.popen.poll() is None

    def text(self):
        with open(self.output, encoding="utf-8", errors="replace") as f:
            return f.read()

    def send_signal(self, signo):
        self._sent.add(signo)
        self.popen.send_signal(signo)

    def wait(self, deadline=DEADLINE):
        """The exit code; negative: the signal that ended it."""
        return self.popen.wait(deadline)

    def wait_listening(self, port, deadline=DEADLINE):
        def ready():
            if not self.is_running():
                raise AssertionError(
                    f"{self.name} ended with {self.popen.returncode} instead of listening on {port}:\n"
                    f"{self.tail()}")
            return can_connect(port)
        wait_for(ready, f"{self.name} listens on {port}", deadline)

    def tail(self, size=4000):
        return self.text()[-size:]

    def kill(self):
        """kill -9, as a test's fault."""
        if self.is_running():
            self.send_signal(signal.SIGKILL)
        self.popen.wait(DEADLINE)

    def stop(self, signo=signal.SIGTERM, deadline=DEADLINE):
        """Ends the process and whatever is left of its session. Returns the exit code."""
        if self.is_running():
            self.send_signal(signo)
            try:
                self.popen.wait(deadline)
            except subprocess.TimeoutExpired:
                self._end_session()
                self.popen.wait(DEADLINE)
                raise AssertionError(
                    f"{self.name} (pid {self.pid}) did not end on signal {int(signo)} within "
                    f"{deadline:.0f} s:\n{self.tail()}") from None
        self._end_session()
        return self.popen.returncode

    def kill_all(self):
        """All of its processes at once, as when the machine loses them: none is left to see another one end."""
        self._sent.add(signal.SIGKILL)
        pids = pids_of_session(self.pid)
        for signo in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signo)
        self.stop(signal.SIGKILL)

    def _end_session(self):
        for pid in pids_of_session(self.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        wait_for(lambda: not self._left_over(), f"the session of {self.name} is gone")

    def _left_over(self):
        left = pids_of_session(self.pid)
        for pid in left:
            if pid != self.pid:
                try:
                    os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    pass
        return [pid for pid in left if pid != self.pid or self.is_running()]

    def _broken_lines(self, text):
        return [line for line in text.splitlines()
                if BROKEN.search(line) and not (self.forgiven and re.search(self.forgiven, line))]

    def troubles(self):
        """What says that the process is broken, as a list of texts: crashes, sanitizers, assertions."""
        found = self._broken_lines(self.text())
        code = self.popen.poll()
        if code is not None and code < 0 and -code not in self._sent:
            found.append(f"{self.name} was ended by signal {-code}")
        return found


class Server(Process):
    """A server with one TCP port."""

    def __init__(self, argv, directory, name, port):
        super().__init__(argv, directory, name)
        self.port = port
        self.address = f"{LOOPBACK}:{port}"
        try:
            self.wait_listening(port)
        except BaseException:
            self.stop(signal.SIGKILL)
            raise

    def connect(self, timeout=DEADLINE):
        return Conn(self.port, timeout=timeout)


class RedisServer(Server):
    """A real redis-server without persistence, in a directory of its own. It ends what has waited too long by the turns of
    its clock, ten a second unless told: too slow for streams in which hundreds wait."""

    def __init__(self, directory, *args, port=None):
        port = port or free_port()
        directory = os.path.join(directory, f"redis-{port}")
        os.makedirs(directory, exist_ok=True)
        super().__init__(
            ["redis-server", "--port", port, "--bind", LOOPBACK, "--save", "", "--appendonly", "no",
             "--daemonize", "no", "--hz", "100", "--dir", directory, *args],
            directory, f"redis-{port}", port)

    def client(self, **keywords):
        import redis
        return redis.Redis(port=self.port, socket_timeout=DEADLINE, **keywords)

    def info(self, section="stats"):
        return self.client().info(section)


class WeirBackend(Server):
    """A storage node of one shard on a directory that outlives it: restart() comes back with the same data, at the
    same port. Options are those of the command line."""

    def __init__(self, directory, *args, port=None, data=None):
        port = port or free_port()
        self.data = str(data or os.path.join(directory, f"weir-backend-{port}-data"))
        self.options = args
        self.stats_port = free_port()
        super().__init__(
            [program("weir-backend"), "--listen", f"{LOOPBACK}:{port}", "--stats", f"{LOOPBACK}:{self.stats_port}",
             "--dir", self.data, *args], directory, f"weir-backend-{port}", port)

    def http(self, path, timeout=DEADLINE):
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.stats_port}{path}", timeout=timeout) as reply:
            return reply.read().decode()

    def restart(self, signo=signal.SIGTERM):
        """Ends it, all its processes at once with SIGKILL, and starts it anew."""
        if signo == signal.SIGKILL:
            self.kill_all()
        else:
            self.stop(signo)
        troubles = self.troubles()
        assert not troubles, troubles
        # Threads of a killed process may hold its socket for a moment after it looks gone.
        wait_for(lambda: not can_connect(self.port), f"{self.name} is gone")
        self.__init__(self.directory, *self.options, port=self.port, data=self.data)


class Memcached(Server):
    """A real memcached."""

    def __init__(self, directory, *args, port=None):
        port = port or free_port()
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        super().__init__(["memcached", "-l", LOOPBACK, "-p", port, "-U", "0", "-m", "64", *user, *args],
                         directory, f"memcached-{port}", port)

    def stats(self):
        with self.connect() as c:
            c.send(b"stats\r\n")
            lines = c.recv_until(b"END\r\n").decode().split("\r\n")
        return dict(line.split(" ", 2)[1:] for line in lines if line.startswith("STAT "))


# Configurations

def pool(name="alpha", listen=None, servers=(), **keys):
    """The YAML of one pool. `servers`: Server objects (or just one), addresses "host:port", or whole
    lines "host:port:weight name". Booleans and numbers are written as YAML wants them."""
    listen = listen or f"{LOOPBACK}:{free_port()}"
    lines = [f"{name}:", f"  listen: {listen}"]
    for key, value in keys.items():
        if isinstance(value, (bool, list, dict)):
            value = json.dumps(value)
        lines.append(f"  {key}: {value}")
    lines.append("  servers:")
    for server in [servers] if isinstance(servers, Server) else servers:
        line = getattr(server, "address", server)
        if line.count(":") == 1 and not line.startswith("/"):
            line += ":1"
        lines.append(f"    - {line}")
    return "\n".join(lines) + "\n"


# Not fnv1a_64, twemproxy's default: it maps keys as alike as k1 and k2 to neighbouring points of the ring, and
# where random ports lie on it decides whether a hundred of them ask one server or all.
def redis_pool(servers, name="alpha", **keys):
    return pool(name, servers=servers, **{"redis": True, "hash": "md5",
                                          "distribution": "ketama", **keys})


def memcache_pool(servers, name="beta", **keys):
    return pool(name, servers=servers, **{"redis": False, "hash": "md5",
                                          "distribution": "ketama", **keys})


def listen_ports(conf_text):
    """{pool: TCP port} of a configuration, in the file's order; unix sockets are left out."""
    ports = {}
    for name, keys in (yaml.safe_load(conf_text) or {}).items():
        listen = str(keys.get("listen", "")).split(" ")[0] if isinstance(keys, dict) else ""
        if listen and not listen.startswith("/"):
            ports[name] = int(listen.rpartition(":")[2])
    return ports


class _Proxy(Process):
    """Common to nutcracker and weir-proxy: a file, listening pools, a stats port."""

    def __init__(self, binary, directory, name, conf_text, options=(), env=None, wait=True):
        os.makedirs(directory, exist_ok=True)
        self.conf_path = os.path.join(directory, "conf.yml")
        self.pid_path = os.path.join(directory, "pid")
        self.stats_port = free_port()
        self.write_conf(conf_text)
        super().__init__(
            [binary, "-c", self.conf_path, "-s", self.stats_port, "-a", LOOPBACK, "-p", self.pid_path,
             *options],
            directory, name, env=env)
        self.ports = listen_ports(conf_text)
        self.port = next(iter(self.ports.values()), None)
        if wait:
            try:
                for port in [*self.ports.values(), self.stats_port]:
                    self.wait_listening(port)
            except BaseException:
                self.stop(signal.SIGKILL)
                raise

    def write_conf(self, conf_text):
        """Replaces the file, in one step."""
        self.conf_text = conf_text
        fresh = self.conf_path + ".new"
        with open(fresh, "w", encoding="utf-8") as f:
            f.write(conf_text)
        os.rename(fresh, self.conf_path)

    def connect(self, pool_name=None, timeout=DEADLINE):
        return Conn(self.ports[pool_name] if pool_name else self.port, timeout=timeout)

    def redis(self, pool_name=None, **keywords):
        import redis
        port = self.ports[pool_name] if pool_name else self.port
        return redis.Redis(port=port, socket_timeout=DEADLINE, **keywords)

    def stats(self):
        """twemproxy's JSON, the way twemproxy's tools read it: connect, say nothing, read to the end."""
        return read_stats(self.stats_port)


class Nutcracker(_Proxy):
    def __init__(self, directory, conf_text, *options, interval_ms=100, wait=True):
        super().__init__("/usr/sbin/nutcracker" if os.path.exists("/usr/sbin/nutcracker") else
                         "nutcracker", os.path.join(directory, f"nutcracker-{free_port()}"),
                         "nutcracker", conf_text, ["-i", interval_ms, *options], wait=wait)


class WeirProxy(_Proxy):
    """The build's weir-proxy. Its log is `log_text()`, its stderr (sanitizers) `text()`."""

    def __init__(self, directory, conf_text, workers=1, options=(), env=None, wait=True, verbosity=6):
        if workers is not None and not re.search(r"(?m)^weir:", conf_text):
            conf_text = f"weir:\n  version: 1\n  workers: {workers}\n{conf_text}"
        directory = os.path.join(directory, f"weir-proxy-{free_port()}")
        self.log_path = os.path.join(directory, "log")
        super().__init__(program("weir-proxy"), directory, "weir-proxy", conf_text,
                         ["-o", self.log_path, "-v", verbosity, *options],
                         env={"ASAN_OPTIONS": "detect_leaks=1:" + os.environ.get("ASAN_OPTIONS", ""),
                              **(env or {})}, wait=wait)
        if wait and verbosity >= 5:  # the sockets listen a moment before the workers are there
            self.wait_log(r"notice: serving generation=1 ")

    def log_text(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def tail(self, size=4000):
        return super().tail(size) + self.log_text()[-size:]

    def troubles(self):
        return super().troubles() + self._broken_lines(self.log_text())

    def master_pid(self):
        """Of the running generation: an upgrade moves it."""
        try:
            with open(self.pid_path, encoding="ascii") as f:
                return int(f.read())
        except (OSError, ValueError):
            return self.pid

    def children(self):
        """{pid: title} of the master's children."""
        return {pid: cmdline_of(pid) for pid in children_of(self.master_pid())}

    def worker_pids(self):
        return [pid for pid, title in self.children().items() if ": worker" in title]

    def reload(self, conf_text=None):
        if conf_text is not None:
            self.write_conf(conf_text)
        os.kill(self.master_pid(), signal.SIGHUP)

    def wait_log(self, pattern, deadline=DEADLINE, count=1):
        """Until the log has `count` lines that match."""
        wait_for(lambda: len(re.findall(pattern, self.log_text())) >= count,
                 f"{count} × {pattern!r} in the log", deadline)

    def http(self, path, timeout=DEADLINE):
        """The body of GET `path` on the stats port, as text."""
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.stats_port}{path}",
                                    timeout=timeout) as reply:
            return reply.read().decode()

    def metrics(self):
        """{'name{labels}': value} of /metrics."""
        values = {}
        for line in self.http("/metrics").splitlines():
            if line and not line.startswith("#"):
                key, _, value = line.rpartition(" ")
                values[key] = float(value)
        return values


# Stats

def read_stats(port, host=LOOPBACK):
    with socket.create_connection((host, port), timeout=DEADLINE) as s:
        data = b""
        while True:
            piece = s.recv(65536)
            if not piece:
                break
            data += piece
    return json.loads(data)


class Delta:
    """How far counters move: `with Delta(proxy.stats) as d: ...; d("alpha", "requests")`."""

    def __init__(self, read):
        self.read = read

    def __enter__(self):
        self.before = self.read()
        return self

    def __exit__(self, *exc):
        self.after = self.read()

    def __call__(self, *path):
        before, after = self.before, self.after
        for key in path:
            before = before[key] if before is not None and key in before else None
            after = after[key]
        return float(after) - float(before or 0)


# Raw connections

class Closed(Exception):
    """The peer closed (or reset) before what was asked for had come. `.got` is what had."""

    def __init__(self, got, why="closed"):
        super().__init__(f"{why} after {got[-200:]!r}")
        self.got = got


class Conn:
    """A raw client. Everything that receives fails after the timeout with what it got so far."""

    def __init__(self, port=None, host=LOOPBACK, path=None, timeout=DEADLINE, rcvbuf=None):
        if path is not None:
            self.sock = socket.socket(socket.AF_UNIX)
        else:
            self.sock = socket.socket()
        if rcvbuf is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        self.sock.connect(path if path is not None else (host, port))
        if path is None:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.sock.close()

    def reset(self):
        """Closes with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def shutdown_write(self):
        """Half-close, as `nc -N`."""
        self.sock.shutdown(socket.SHUT_WR)

    def send(self, data):
        self.sock.sendall(data)
        return self

    def send_pieces(self, data, at, pause=0.002):
        """Sends `data` cut at the given offsets, so that the receiver is likely to see the pieces."""
        last = 0
        for cut in [*at, len(data)]:
            self.sock.sendall(data[last:cut])
            last = cut
            if cut < len(data):
                time.sleep(pause)
        return self

    def _fill(self, size=65536):
        try:
            data = self.sock.recv(size)
        except ConnectionResetError:
            raise Closed(self.buffer, "reset") from None
        except socket.timeout:
            raise AssertionError(f"nothing more came after {self.buffer[-500:]!r}") from None
        if not data:
            raise Closed(self.buffer)
        self.buffer += data

    def _take(self, size):
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def recv_exact(self, size):
        while len(self.buffer) < size:
            self._fill()
        return self._take(size)

    def recv_until(self, end):
        """Up to and including `end`."""
        start = 0
        while True:
            at = self.buffer.find(end, start)
            if at >= 0:
                return self._take(at + len(end))
            start = max(0, len(self.buffer) - len(end) + 1)
            self._fill()

    def recv_line(self):
        return self.recv_until(b"\r\n")

    def expect(self, data):
        """Asserts that exactly these bytes come next."""
        got = b""
        try:
            got = self.recv_exact(len(data))
        except Closed as e:
            raise AssertionError(f"closed after {e.got!r} where {data!r} was due") from None
        assert got == data, f"got {got + self.buffer!r}, wanted {data!r}"
        return self

    def ask(self, request, reply):
        """Sends, expects."""
        return self.send(request).expect(reply)

    def recv_eof(self):
        """Reads until the peer closes and returns what came. A reset fails."""
        while True:
            try:
                self._fill()
            except Closed as e:
                if str(e).startswith("reset"):
                    raise AssertionError(f"reset after {e.got!r}") from None
                return self._take(len(self.buffer))

    def is_quiet(self, seconds=0.2):
        """Whether nothing comes for a while (a close is something)."""
        if self.buffer:
            return False
        old = self.sock.gettimeout()
        self.sock.settimeout(seconds)
        try:
            self.buffer += self.sock.recv(65536)
            return False
        except socket.timeout:
            return True
        finally:
            self.sock.settimeout(old)

    def recv_resp(self):
        """One whole RESP2 or RESP3 reply, as its bytes."""
        line = self.recv_line()
        kind, rest = line[:1], line[1:-2]
        if kind in b"$=!" and rest != b"-1":
            return line + self.recv_exact(int(rest) + 2)
        count = 0
        if kind in b"*~>" and rest != b"-1":
            count = int(rest)
        elif kind == b"%":
            count = 2 * int(rest)
        elif kind == b"|":  # attributes come before the reply that they belong to
            count = 2 * int(rest) + 1
        elif kind not in b"+-:_#,($=!*":
            raise AssertionError(f"not RESP: {line + self.buffer!r}")
        return line + b"".join(self.recv_resp() for _ in range(count))

    def resp(self, *words):
        """Sends one command as RESP, returns the reply's bytes."""
        return self.send(resp(*words)).recv_resp()


def resp(*words):
    """A command as an array of bulk strings."""
    pieces = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else str(word).encode()
        pieces.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(pieces)


class Fake:
    """A backend that a test plays by hand: it listens, and hands out what connects.

        with Fake() as fake:
            proxy = weir_proxy(redis_pool([fake.address]))
            client.send(...); peer = fake.accept(); peer.recv_exact(...); peer.send(...)
    """

    def __init__(self, port=None, backlog=128):
        self.port = port or free_port()
        self.address = f"{LOOPBACK}:{self.port}"
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((LOOPBACK, self.port))
        self.listener.listen(backlog)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.listener.close()

    def accept(self, timeout=DEADLINE):
        self.listener.settimeout(timeout)
        sock, _ = self.listener.accept()
        conn = Conn.__new__(Conn)
        conn.sock, conn.buffer = sock, b""
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return conn


# What a test run starts, in one place

class Stage:
    """Starts servers and proxies, and ends all of them. `close()` returns what was broken."""

    def __init__(self, directory=None):
        self.own_directory = directory is None
        self.directory = directory or tempfile.mkdtemp(prefix="weir-e2e-")
        os.chmod(self.directory, 0o755)
        self.processes = []

    def _add(self, process):
        self.processes.append(process)
        return process

    def _many(self, make, count):
        return make() if count is None else [make() for _ in range(count)]

    def redis_server(self, count=None, *args, **keywords):
        return self._many(lambda: self._add(RedisServer(self.directory, *args, **keywords)), count)

    def weir_backend(self, count=None, *args, **keywords):
        return self._many(lambda: self._add(WeirBackend(self.directory, *args, **keywords)), count)

    def memcached(self, count=None, *args, **keywords):
        return self._many(lambda: self._add(Memcached(self.directory, *args, **keywords)), count)

    def nutcracker(self, conf_text, *options, **keywords):
        return self._add(Nutcracker(self.directory, conf_text, *options, **keywords))

    def weir_proxy(self, conf_text, workers=1, **keywords):
        return self._add(WeirProxy(self.directory, conf_text, workers, **keywords))

    def process(self, argv, name, **keywords):
        return self._add(Process(argv, self.directory, name, **keywords))

    def close(self):
        troubles = []
        for process in reversed(self.processes):
            try:
                process.stop()
            except AssertionError as e:
                troubles.append(str(e))
            if isinstance(process, WeirProxy):
                troubles += process.troubles()
        if self.own_directory and not troubles:
            shutil.rmtree(self.directory, ignore_errors=True)
        return troubles


if sys.platform == "linux":
    become_subreaper()

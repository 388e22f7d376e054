# SPDX-License-Identifier: Apache-2.0
"""weir-backend as a server: connections, transactions, waiting, passwords, limits, processes and signals."""

import json
import os
import signal
import socket
import threading
import time
import urllib.request

import pytest
import redis

import mc_differential
from weirtest import LOOPBACK, Conn, can_connect, children_of, cmdline_of, free_port, program, wait_for


def client(server, **keywords):
    return redis.Redis(LOOPBACK, keywords.pop("port", server.port), **keywords)


def ask(port, data, until=None, deadline=10):
    """Sends bytes, closes its side, reads to the end (or until these bytes have come)."""
    with socket.create_connection((LOOPBACK, port), timeout=deadline) as s:
        s.sendall(data)
        if until is None:
            s.shutdown(socket.SHUT_WR)
        got = b""
        while until is None or until not in got:
            piece = s.recv(65536)
            if not piece:
                break
            got += piece
        return got


def worker_of(server, index=0):
    return next((pid for pid in children_of(server.pid) if f"worker {index}" in cmdline_of(pid)), None)


# Connections

def test_first_bytes_choose_the_protocol(weir_backend):
    port = weir_backend().port
    assert ask(port, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n") == b"+OK\r\n"
    assert ask(port, b"GET a\r\n") == b"$1\r\n1\r\n"
    assert ask(port, b"get a\r\n") == b"VALUE a 0 1\r\n1\r\nEND\r\n"
    assert ask(port, b"ge") == b""
    noop = bytes([0x80, 0x0a] + [0] * 22)
    assert ask(port, noop)[:2] == bytes([0x81, 0x0a])


def test_requests_survive_any_cut(weir_backend):
    port = weir_backend().port
    data = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhe\r\nl\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
    for cut in range(1, len(data)):
        with socket.create_connection((LOOPBACK, port), timeout=10) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            s.sendall(data[:cut])
            time.sleep(0.002)
            s.sendall(data[cut:])
            s.shutdown(socket.SHUT_WR)
            assert s.makefile("rb").read() == b"+OK\r\n$5\r\nhe\r\nl\r\n"


@pytest.mark.parametrize("data, reply", [
    (b"*1\r\n$-5\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b"*x\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*1\r\n+PING\r\n", b"-ERR Protocol error: expected '$', got '+'\r\n"),
    (b'GET "a\r\n', b"-ERR Protocol error: unbalanced quotes in request\r\n"),
    (b"PING\r\n*1\r\n$x\r\nPING\r\n", b"+PONG\r\n-ERR Protocol error: invalid bulk length\r\n"),
    (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", b""),
])
def test_broken_frames_are_answered_and_closed(weir_backend, data, reply):
    assert ask(weir_backend().port, data, until=b"never") == reply


def test_a_request_of_very_many_arguments(weir_backend):
    """Redis 7.0 has given up its bound of 1048576: what bounds a request is client-query-buffer-limit."""
    server, count = weir_backend(), 1100000
    r = client(server)
    assert r.sadd("set", *range(count)) == r.rpush("list", *range(count)) == count
    with pytest.raises(redis.ConnectionError):
        r.config_set("client-query-buffer-limit", "1mb")
        r.delete(*range(count))
    server.restart(signal.SIGKILL)
    assert r.scard("set") == r.llen("list") == count
    assert r.sismember("set", count - 1) and r.lrange("list", -2, -1) == [b"%d" % (count - 2), b"%d" % (count - 1)]


def test_pipelines_keep_their_order(weir_backend):
    server = weir_backend()
    pipe = client(server).pipeline(transaction=False)
    for i in range(20000):
        pipe.set(f"k{i}", i)
        pipe.get(f"k{i}")
    replies = pipe.execute()
    assert replies[1::2] == [b"%d" % i for i in range(20000)]


def test_a_slow_reader_is_not_read_from(weir_backend):
    """A client that asks for gigabytes and reads nothing costs a bounded amount of memory."""
    server = weir_backend()
    r = client(server)
    r.set("big", b"x" * 1000000)
    with socket.create_connection((LOOPBACK, server.port), timeout=10) as s:
        s.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while True:
                s.sendall(b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n" * 1000)
        omem = max(c["omem"] for c in r.client_list() for c["omem"] in [int(c["omem"])])
        assert omem < 16 << 20


def test_clients_max(weir_backend):
    server = weir_backend(None, "--clients_max", "3")
    held = [client(server) for _ in range(3)]
    for c in held:
        c.ping()
    assert ask(server.port, b"PING\r\n", until=b"\r\n") == b"-ERR max number of clients reached\r\n"
    held[0].connection_pool.disconnect()
    wait_for(lambda: ask(server.port, b"PING\r\n", until=b"\r\n") == b"+PONG\r\n")


# Transactions

def test_exec_and_watch(weir_backend):
    server = weir_backend()
    a, b = client(server), client(server)
    with a.pipeline() as pipe:
        pipe.watch("k")
        b.set("k", "other")
        pipe.multi()
        pipe.set("k", "mine")
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert b.get("k") == b"other"
    with a.pipeline() as pipe:
        pipe.set("x", 1).incr("x").lpush("x", 1).incr("x")
        replies = pipe.execute(raise_on_error=False)
    assert replies[:2] == [True, 2] and "WRONGTYPE" in str(replies[2]) and replies[3] == 3
    assert ask(server.port, b"MULTI\r\nFOO\r\nGET x\r\nEXEC\r\n").endswith(
        b"+QUEUED\r\n-EXECABORT Transaction discarded because of previous errors.\r\n")


# Waiting

def test_waiters_are_served_in_the_order_they_came(weir_backend):
    server = weir_backend()
    r, got, threads = client(server), [], []
    for i in range(3):
        def wait(number=i):
            got.append((number, client(server).blpop("q", 20)))
        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        wait_for(lambda n=i: int(r.info("clients")["blocked_clients"]) == n + 1)
    pipe = r.pipeline(transaction=False)
    pipe.rpush("q", "a", "b").llen("q")
    assert pipe.execute() == [2, 0]  # they were served before the next command ran
    r.rpush("q", "c")
    for t in threads:
        t.join(20)
    assert sorted(got) == [(0, (b"q", b"a")), (1, (b"q", b"b")), (2, (b"q", b"c"))]


def test_waiting_ends(weir_backend):
    """By its timeout, by CLIENT UNBLOCK, by the peer's end, by CLIENT KILL; in EXEC it never begins."""
    server = weir_backend()
    r = client(server)
    assert r.blpop("none", 0.1) is None
    results = []

    def wait(c):
        try:
            results.append(c.blpop("none", 20))
        except redis.RedisError as error:
            results.append(str(error))

    for how in (b"TIMEOUT", b"ERROR"):
        c = client(server, single_connection_client=True)
        number = c.client_id()
        thread = threading.Thread(target=wait, args=(c,))
        thread.start()
        wait_for(lambda: int(r.info("clients")["blocked_clients"]) == 1)
        assert r.execute_command("CLIENT", "UNBLOCK", number, how) == 1
        thread.join(20)
    assert results == [None, "UNBLOCKED client unblocked via CLIENT UNBLOCK"]
    with socket.create_connection((LOOPBACK, server.port)) as s:
        s.sendall(b"BLPOP none 0\r\n")
        wait_for(lambda: int(r.info("clients")["blocked_clients"]) == 1)
    wait_for(lambda: int(r.info("clients")["blocked_clients"]) == 0)
    assert ask(server.port, b"MULTI\r\nBLPOP none 0\r\nEXEC\r\n").endswith(b"*1\r\n*-1\r\n")


def test_pause(weir_backend):
    server = weir_backend()
    r, other = client(server), client(server)
    r.set("k", 1)
    r.execute_command("CLIENT", "PAUSE", 20000, "WRITE")
    assert other.get("k") == b"1"
    done = threading.Event()
    thread = threading.Thread(target=lambda: (other.set("k", 2), done.set()))
    thread.start()
    assert not done.wait(0.3)
    r.execute_command("CLIENT", "UNPAUSE")
    assert done.wait(20)
    thread.join(20)


# Passwords

def test_password(weir_backend):
    server = weir_backend(None, "--password", "secret word")
    with pytest.raises(redis.AuthenticationError):
        client(server).get("k")
    with pytest.raises(redis.RedisError, match="WRONGPASS|invalid"):
        client(server, password="wrong").get("k")
    r = client(server, password="secret word")
    assert r.set("k", "v")
    assert ask(server.port, b"get k\r\n") == b"CLIENT_ERROR unauthenticated\r\n"
    assert ask(server.port, b"set auth 0 0 13\r\nu secret word\r\nget k\r\n") == b"STORED\r\nVALUE k 0 1\r\nv\r\nEND\r\n"
    assert ask(server.port, b"*11\r\n", until=b"\r\n").startswith(b"-ERR Protocol error")

    def binary(opcode, key=b"", value=b""):
        return (bytes([0x80, opcode]) + len(key).to_bytes(2, "big") + bytes(4) +
                (len(key) + len(value)).to_bytes(4, "big") + bytes(12) + key + value)

    assert ask(server.port, binary(0x00, b"k"))[6:8] == b"\0\x20"
    got = ask(server.port, binary(0x21, b"PLAIN", b"\0user\0secret word") + binary(0x00, b"k"))
    assert got[6:8] == b"\0\0" and got.endswith(b"v")


# Processes

def test_a_killed_worker_has_lost_nothing(weir_backend):
    """Whatever fsync says: what was answered is there, and the port answers again at once."""
    server = weir_backend(None, "--fsync", "no")
    for round_number in range(3):
        pipe = client(server).pipeline(transaction=False)
        for i in range(1000):
            pipe.set(f"{round_number}-{i}", i)
            pipe.rpush("list", i)
        pipe.execute()
        pid = worker_of(server)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: worker_of(server) not in (pid, None))
        r = client(server)
        wait_for(lambda: r.ping())
        assert r.dbsize() == 1000 * (round_number + 1) + 1
        assert r.llen("list") == 1000 * (round_number + 1)
        assert r.get(f"{round_number}-999") == b"999"


def test_workers_are_shards(weir_backend):
    server = weir_backend(None, "--workers", "2")
    first, second = client(server), client(server, port=server.port + 1)
    wait_for(lambda: can_connect(server.port + 1))
    first.set("k", "first")
    assert second.get("k") is None
    second.set("k", "second")
    server.restart()
    wait_for(lambda: can_connect(server.port + 1))
    assert client(server).get("k") == b"first"
    assert client(server, port=server.port + 1).get("k") == b"second"


def test_reload_in_place(weir_backend, tmp_path):
    conf = tmp_path / "backend.yml"
    conf.write_text("version: 1\nmemory: 64mb\n")
    server = weir_backend(None, "-c", str(conf))
    r = client(server)
    assert r.config_get("maxmemory")["maxmemory"] == str(64 << 20)
    conf.write_text("version: 1\nmemory: 128mb\nfsync: always\n")
    server.send_signal(signal.SIGHUP)
    wait_for(lambda: r.config_get("maxmemory")["maxmemory"] == str(128 << 20))
    assert r.set("k", "v")
    conf.write_text("version: 1\nmemory: lots\n")
    server.send_signal(signal.SIGHUP)
    wait_for(lambda: "backend.yml:2:9" in server.text())
    assert r.get("k") == b"v"


def test_disk_grows_in_place(weir_backend, tmp_path):
    """A node that is full gets more of the disk by HUP, and takes writes again."""
    conf = tmp_path / "backend.yml"
    text = "version: 1\nsegment_size: 1mb\nring_size: 1mb\ndisk: {}\n"
    conf.write_text(text.format("16mb"))
    server = weir_backend(None, "-c", str(conf))
    r = client(server)
    assert r.config_get("maxdisk")["maxdisk"] == str(16 << 20)
    with pytest.raises(redis.exceptions.ResponseError):
        for i in range(1000):
            r.set(f"k{i}", os.urandom(50000))
    conf.write_text(text.format("64mb"))
    server.send_signal(signal.SIGHUP)
    wait_for(lambda: r.config_get("maxdisk")["maxdisk"] == str(64 << 20))

    def is_taken():
        try:
            return r.set("more", os.urandom(50000))
        except redis.exceptions.ResponseError:
            return False
    wait_for(is_taken, "writes are taken again")


@pytest.mark.parametrize("line", ["memcache_db: 3", "ring_size: 8mb", "namespaces: {0: {kind: cache}}",
                                  "rlimit_nofile: 4096", "cpu_affinity: true", "pid_file: other.pid",
                                  "log_file: other.log", "log_level: 6"])
def test_reload_refuses_what_needs_a_start(weir_backend, tmp_path, line):
    conf = tmp_path / "backend.yml"
    conf.write_text("version: 1\nmemory: 64mb\n")
    server = weir_backend(None, "-c", str(conf))
    r = client(server)
    conf.write_text("version: 1\nmemory: 128mb\n" + line + "\n")
    server.send_signal(signal.SIGHUP)
    wait_for(lambda: line.split(":")[0] + ": a change needs a new start" in server.text(), "it is refused")
    assert r.config_get("maxmemory")["maxmemory"] == str(64 << 20)


@pytest.mark.parametrize("key", ["listen", "stats"])
def test_reload_names_the_address_that_is_another(stage, tmp_path, key):
    conf = tmp_path / "backend.yml"
    ports = {"listen": free_port(), "stats": free_port()}

    def write():
        conf.write_text("version: 1\ndir: data\n" + "".join(f"{k}: {LOOPBACK}:{p}\n" for k, p in ports.items()))
    write()
    server = stage.process([program("weir-backend"), "-c", str(conf)], "node")
    server.wait_listening(ports["listen"])
    ports[key] = free_port()
    write()
    server.send_signal(signal.SIGHUP)
    wait_for(lambda: f": {key}: a change needs a new start" in server.text(), "it is refused")


def test_quit_waits_for_answers(weir_backend):
    server = weir_backend()
    with socket.create_connection((LOOPBACK, server.port), timeout=20) as s:
        s.sendall(b"SET k v\r\n")
        assert s.recv(100) == b"+OK\r\n"
        server.send_signal(signal.SIGQUIT)
        assert s.recv(100) == b""
    assert server.wait() == 0


def test_workers_leave_when_the_master_is_killed(weir_backend):
    server = weir_backend()
    client(server).set("k", "v")
    pid = worker_of(server)
    server._sent.add(signal.SIGKILL)
    os.kill(server.pid, signal.SIGKILL)
    wait_for(lambda: "weir-backend" not in cmdline_of(pid), "the worker has left")
    wait_for(lambda: not can_connect(server.port))
    server.restart(signal.SIGKILL)
    assert client(server).get("k") == b"v"


# As docs/commands.md has them.
INFO_LEFT_OUT = """redis_build_id atomicvar_api used_memory_startup rss_overhead_ratio rss_overhead_bytes
    rdb_last_load_keys_expired rdb_last_load_keys_loaded expired_stale_perc expired_time_cap_reached_count
    expire_cycle_cpu_milliseconds total_eviction_exceeded_time current_eviction_exceeded_time total_reads_processed
    total_writes_processed reply_buffer_shrinks reply_buffer_expands""".split()


def test_info_has_redis_fields(weir_backend, redis_server):
    """Every one, of the same type, but for those that the manual names."""
    ours, theirs = client(weir_backend()).info(), client(redis_server(None, "--appendonly", "yes")).info()
    assert sorted(set(theirs) - set(ours)) == sorted(INFO_LEFT_OUT)
    assert ours["total_system_memory"] == theirs["total_system_memory"] > 1 << 28
    assert ours["total_system_memory_human"] == theirs["total_system_memory_human"]
    assert ours["executable"].endswith("weir-backend")
    for name in set(ours) & set(theirs) - {"os", "gcc_version", "redis_git_sha1"}:
        assert isinstance(ours[name], str) == isinstance(theirs[name], str), name


def test_save_answers_when_it_is_done(weir_backend):
    """Nothing else flushes: what was there before it is durable, a new checkpoint is written. Who waits for it is served
    in order, others at once; who leaves meanwhile leaves nothing."""
    server = weir_backend(None, "--fsync", "no")
    r = client(server)
    for number in range(1, 6):
        assert r.set(f"key:{number}", number) is True
        before = r.info("store")
        assert before["lsn_durable"] < before["lsn_appended"] and before["checkpoints"] == number - 1
        assert r.execute_command("SAVE") is True
        after = r.info("store")
        assert after["lsn_durable"] >= before["lsn_appended"] and after["checkpoints"] == number
        assert abs(r.lastsave().timestamp() - time.time()) < 60
    asked = b"SAVE\r\nPING\r\nSAVE\r\nECHO done\r\n"
    with Conn(server.port) as a, Conn(server.port) as b:
        with Conn(server.port) as gone:
            for c in (a, gone, b):
                c.send(asked)
        for c in (a, b):
            c.expect(b"+OK\r\n+PONG\r\n+OK\r\n$4\r\ndone\r\n")
        a.ask(b"MULTI\r\nSAVE\r\nEXEC\r\n", b"+OK\r\n-ERR Command not allowed inside a transaction\r\n"
              b"-EXECABORT Transaction discarded because of previous errors.\r\n")
    assert r.info("store")["checkpoints"] >= 7


def fill_sets(r, count, members):
    p = r.pipeline(transaction=False)
    for i in range(count):
        p.sadd(f"set:{i}", *[f"m{n}" for n in range(members)])
        if i % 100 == 99:
            p.execute()
    p.execute()


@pytest.mark.parametrize("count,members", [(15000, 90), (6000, 200)])
def test_many_collections_are_freed_soon(weir_backend, count, members):
    """More at a time than one in each step of the background work, which would take six seconds and more; a machine that was
    slow to make them may be slow to free them."""
    r = client(weir_backend())
    began = time.monotonic()
    fill_sets(r, count, members)
    deadline = max(4, 2 * (time.monotonic() - began))
    full = r.info("memory")["used_memory"]
    for i in range(0, count, 1000):
        assert r.delete(*[f"set:{n}" for n in range(i, i + 1000)]) == 1000
    wait_for(lambda: r.info("memory")["lazyfree_pending_objects"] == 0, "all is freed", deadline)
    assert r.info("memory")["used_memory"] < full / 10


def test_a_cache_of_collections_stays_full(weir_backend):
    """What is being freed counts as gone: no more is evicted than must be."""
    r = client(weir_backend(None, "--namespaces", "0=cache", "--memory", "16mb"))
    fill_sets(r, 500, 300)
    each = r.memory_usage("set:0")
    fill_sets(r, 6000, 300)
    info = r.info()
    assert info["evicted_keys"] > 1000
    assert r.dbsize() * each > (16 << 20) * 0.7, (r.dbsize(), each)


def test_lengths_before_the_password_are_told_as_redis_does(weir_backend, redis_server):
    """What is no number, or more than anybody may send, is told first."""
    ours, theirs = weir_backend(None, "--password", "secret word"), redis_server(None, "--requirepass", "secret word")
    for count in (b"10", b"11", b"2147483647", b"2147483648", b"99999999999999999999", b"x", b"11x", b"011", b"0", b"-1"):
        data = b"*%s\r\n" % count
        assert ask(ours.port, data + b"x\r\n") == ask(theirs.port, data + b"x\r\n"), data
    for size in (b"16385", b"536870912", b"536870913", b"99999999999999999999", b"x", b"16385x", b"020000", b"-1"):
        data = b"*2\r\n$4\r\nAUTH\r\n$%s\r\n" % size
        assert ask(ours.port, data) == ask(theirs.port, data), data
    with Conn(ours.port) as c:
        assert c.resp("AUTH", "x" * 16384).startswith(b"-WRONGPASS")
        assert c.resp("AUTH", "secret word") == c.resp("SET", "k", "x" * 16385) == b"+OK\r\n"
        assert c.resp("DEL", *map(str, range(11))) == b":0\r\n"


def test_wrong_passwords_are_counted(weir_backend):
    """In each protocol; what is refused for want of a password is none."""
    server = weir_backend(None, "--password", "secret word")
    sasl = mc_differential.frame(0x21, b"PLAIN", b"", b"\0me\0wrong")
    with Conn(server.port) as c:
        for words in (("AUTH", "wrong"), ("AUTH", "default", "wrong"), ("AUTH", "other", "secret word"),
                      ("HELLO", "3", "AUTH", "default", "wrong")):
            assert c.resp(*words) == b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        assert c.resp("GET", "k") == b"-NOAUTH Authentication required.\r\n"
        assert c.resp("AUTH", "secret word") == b"+OK\r\n"
    with Conn(server.port) as c:
        c.ask(b"set k 0 0 8\r\nme wrong\r\nget k\r\n",
              b"CLIENT_ERROR authentication failure\r\nCLIENT_ERROR unauthenticated\r\n")
    with Conn(server.port) as c:
        assert c.send(sasl).recv_eof()[6:8] == b"\0\x20"
    wait_for(lambda: json.loads(server.http("/stats"))["shard-0"]["auth_errors"] == 6, "each is counted")


def test_stats_port(weir_backend):
    server = weir_backend()
    port = int(server.argv[server.argv.index("--stats") + 1].rpartition(":")[2])
    client(server).set("k", "v")
    client(server).get("k")

    def get(path):
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=10) as answer:
            return answer.read()

    wait_for(lambda: json.loads(get("/stats")).get("shard-0", {}).get("keys") == 1)
    assert b'weir_shard_keys{shard="0"} 1\n' in get("/metrics")
    assert get("/healthz") == b"ok\n"
    for opening in (b"", b"stats\r\n", b"\0\xff garbage"):
        assert json.loads(ask(port, opening))["service"] == "weir-backend"
    for question, status in [(b"GET /nothing HTTP/1.1\r\n\r\n", b"404"), (b"POST /stats HTTP/1.1\r\n\r\n", b"405"),
                             (b"GET stats HTTP/1.1\r\n\r\n", b"400"),
                             (b"GET /stats HTTP/1.1\r\nX: " + b"y" * 9000, b"431")]:
        assert ask(port, question).startswith(b"HTTP/1.1 " + status + b" ")

# SPDX-License-Identifier: Apache-2.0
"""A pool whose primaries are watched by Sentinels: real ones, failovers by command and by kill."""

import os
import threading
import time

import pytest
import redis

import weirtest
from weirtest import LOOPBACK, pool, resp, wait_for


DOWN_MS = 8000  # nobody is to be taken for dead for being late


class Sentinels:
    """`count` sentinels, and masters by name, each with one replica."""

    def __init__(self, stage, names=("one", "two"), count=3, auth=None, sentinel_auth=None):
        self.stage, self.auth, self.sentinel_auth = stage, auth, sentinel_auth
        self.masters = {}
        args = ["--repl-diskless-sync-delay", "0"]
        if auth:
            args += ["--requirepass", auth, "--masterauth", auth]
        for name in names:
            primary = stage.redis_server(None, *args)
            replica = stage.redis_server(None, *args, "--replicaof", f"{LOOPBACK} {primary.port}")
            self.masters[name] = [primary, replica]
        for primary, replica in self.masters.values():
            wait_for(lambda r=replica: self.client(r).info("replication")["master_link_status"] == "up",
                     "the replica is in sync")
        self.sentinels = [self.start_sentinel() for _ in range(count)]
        wait_for(self.agree, "the sentinels know each other and the replicas", deadline=60)

    def client(self, server):
        return server.client(password=self.auth, decode_responses=True)

    def start_sentinel(self, port=None):
        port = port or weirtest.free_port()
        directory = os.path.join(self.stage.directory, f"sentinel-{port}")
        os.makedirs(directory, exist_ok=True)
        path = os.path.join(directory, "sentinel.conf")
        with open(path, "w", encoding="ascii") as f:
            f.write(f"port {port}\nbind {LOOPBACK}\ndir {directory}\n")
            if self.sentinel_auth:
                f.write(f"requirepass {self.sentinel_auth}\n")
            for name, servers in self.masters.items():
                f.write(f"sentinel monitor {name} {LOOPBACK} {servers[0].port} 2\n"
                        f"sentinel down-after-milliseconds {name} {DOWN_MS}\n"
                        f"sentinel failover-timeout {name} 5000\n")
                if self.auth:
                    f.write(f"sentinel auth-pass {name} {self.auth}\n")
        sentinel = self.stage.process(["redis-sentinel", path], f"sentinel-{port}")
        sentinel.port = port
        sentinel.address = f"{LOOPBACK}:{port}"
        sentinel.wait_listening(port)
        sentinel.r = redis.Redis(port=port, decode_responses=True, password=self.sentinel_auth,
                                 socket_timeout=weirtest.DEADLINE)
        return sentinel

    def agree(self):
        for sentinel in self.sentinels:
            for name in self.masters:
                state = sentinel.r.sentinel_master(name)
                if state["num-other-sentinels"] != len(self.sentinels) - 1 or state["num-slaves"] < 1:
                    return False
                if not all("slave" in r["flags"] and "down" not in r["flags"] and
                           r["master-link-status"] == "ok"
                           for r in sentinel.r.sentinel_slaves(name)):
                    return False
        return True

    def port_of(self, name):
        """What most of the living sentinels say."""
        said = [s.r.sentinel_get_master_addr_by_name(name)[1] for s in self.sentinels if s.is_running()]
        return max(said, key=said.count)

    def primary(self, name):
        port = self.port_of(name)
        return next(s for s in self.masters[name] if s.port == port)

    def pool(self, **keys):
        more = {"sentinel_auth": self.sentinel_auth} if self.sentinel_auth else {}
        if self.auth:
            more["redis_auth"] = self.auth
        return pool("alpha", servers=self.sentinels,
                    **{"redis": True, "members": "sentinel", "sentinel_master": list(self.masters),
                       "hash": "fnv1a_64", "distribution": "ketama", "hash_tag": '"{}"', **more, **keys})


@pytest.fixture(scope="module")
def sentinels(module_stage):
    return Sentinels(module_stage)


@pytest.fixture
def proxy(sentinels, weir_proxy):
    return weir_proxy(sentinels.pool(), workers=2)


@pytest.fixture
def client(proxy):
    return proxy.redis(decode_responses=True)


class Writers:
    """Write and read back; what fails is counted, what is wrong is kept."""

    def __init__(self, proxy, count=3):
        self.proxy = proxy
        self.stop_now = threading.Event()
        self.wrong, self.failures, self.done = [], [], 0
        self.longest_gap = 0.0
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(count)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *exc):
        self.stop_now.set()
        for t in self.threads:
            t.join(weirtest.DEADLINE)

    def run(self, number):
        r = self.proxy.redis(decode_responses=True)
        turn, last_good = 0, time.monotonic()
        while not self.stop_now.is_set():
            turn += 1
            key = f"w{number}-{turn % 50}"
            try:
                if r.set(key, f"{key}:{turn}") is not True:
                    self.wrong.append(("SET", key))
                got = r.get(key)
                # A write that the old primary took may be lost; another key's value is never right.
                if got is not None and not got.startswith(f"{key}:"):
                    self.wrong.append(("GET", key, got))
                self.done += 1
                now = time.monotonic()
                self.longest_gap = max(self.longest_gap, now - last_good)
                last_good = now
            except (redis.RedisError, OSError) as e:
                self.failures.append(f"{type(e).__name__}: {e}")
                time.sleep(0.005)


def write_all(client, names):
    try:
        for name in names:
            client.set(name, name)
        return True
    except redis.RedisError:
        return False


def test_keys_are_spread_by_the_masters_names(sentinels, proxy, client):
    names = [f"key-{i}" for i in range(200)]
    for name in names:
        assert client.set(name, name)
    assert client.mget(names) == names
    held = {m: set(sentinels.client(sentinels.primary(m)).keys()) for m in sentinels.masters}
    assert all(len(keys) > 20 for keys in held.values())
    assert held["one"] | held["two"] == set(names) and not held["one"] & held["two"]
    assert client.dbsize() == 200
    assert sorted(client.scan_iter(count=30)) == sorted(names)
    assert client.delete(*names) == 200
    with client.pipeline(transaction=True) as pipe:
        assert pipe.set("{t}a", 1).incr("{t}a").execute() == [True, 2]
    client.delete("{t}a")


def test_failover_by_command(sentinels, proxy, client):
    names = [f"f{i}" for i in range(50)]
    old = sentinels.primary("one")
    assert write_all(client, names)
    with Writers(proxy) as writers:
        time.sleep(0.3)
        wait_for(lambda: try_failover(sentinels, "one"), "a failover begins")
        wait_for(lambda: sentinels.primary("one") is not old, "the sentinels have switched")
        wait_for(lambda: write_all(client, names), "writes go on")
        time.sleep(0.3)
    assert writers.wrong == []
    assert writers.done > 50
    assert client.mget(names) == names
    print(f"failover by command: {len(writers.failures)} of {writers.done} failed, longest gap "
          f"{writers.longest_gap:.2f} s: {sorted(set(writers.failures))[:4]}")


def try_failover(sentinels, name):
    try:
        return sentinels.sentinels[0].r.execute_command("SENTINEL FAILOVER", name)
    except redis.RedisError:
        return False


def test_a_primary_dies(sentinels, proxy, client):
    wait_for(sentinels.agree, "everybody is up again", deadline=60)
    names = [f"d{i}" for i in range(50)]
    assert write_all(client, names)
    old = sentinels.primary("two")
    for sentinel in sentinels.sentinels:
        sentinel.r.execute_command("SENTINEL SET", "two", "down-after-milliseconds", 1000)
    with Writers(proxy) as writers:
        time.sleep(0.3)
        old.kill()
        wait_for(lambda: sentinels.primary("two") is not old, "the sentinels have switched", deadline=60)
        for sentinel in sentinels.sentinels:
            sentinel.r.execute_command("SENTINEL SET", "two", "down-after-milliseconds", DOWN_MS)
        wait_for(lambda: write_all(client, names), "writes go on")
        time.sleep(0.3)
    assert writers.wrong == []
    assert client.mget(names) == names
    assert sentinels.primary("two").client(decode_responses=True).dbsize() > 0
    print(f"a primary died: {len(writers.failures)} of {writers.done} failed, longest gap "
          f"{writers.longest_gap:.2f} s: {sorted(set(writers.failures))[:4]}")


def test_reload_without_an_error(sentinels, proxy):
    with Writers(proxy) as writers:
        for _ in range(3):
            proxy.reload()
            time.sleep(0.7)
    assert writers.wrong == [] and writers.failures == []
    assert writers.done > 50


class FakeSentinel:
    """Says what the test wants it to say: `port` is that of every master."""

    def __init__(self, port):
        self.port = port
        self.asked = 0
        self.subscribers = []
        self.stop_now = threading.Event()
        self.fake = weirtest.Fake()
        self.address = self.fake.address
        self.thread = threading.Thread(target=self.serve)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.stop_now.set()
        self.thread.join()
        self.fake.listener.close()

    def serve(self):
        while not self.stop_now.is_set():
            try:
                peer = self.fake.accept(0.1)
            except OSError:
                continue
            peer.sock.settimeout(weirtest.DEADLINE)
            threading.Thread(target=self.answer, args=(peer,), daemon=True).start()

    def answer(self, peer):
        try:
            while not self.stop_now.is_set():
                if b"SUBSCRIBE" in peer.recv_resp():
                    peer.send(b"*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n")
                    self.subscribers.append(peer)
                    continue
                self.asked += 1
                peer.send(resp(LOOPBACK, self.port))
        except (weirtest.Closed, AssertionError, OSError):
            pass

    def switched(self):
        for peer in self.subscribers:
            peer.send(resp("message", "+switch-master", "one 127.0.0.1 1 127.0.0.1 2"))


def test_a_primary_that_is_none_any_more(redis_server, weir_proxy):
    """READONLY is passed on, and the sentinels are asked; what they say then is acted on."""
    first, second = redis_server(2)
    with FakeSentinel(first.port) as sentinel:
        proxy = weir_proxy(pool("alpha", servers=[sentinel.address], redis=True, members="sentinel",
                                sentinel_master="one", distribution="ketama"))
        client = proxy.redis(decode_responses=True)
        assert client.set("a", 1)
        first.client().replicaof(LOOPBACK, second.port)
        with pytest.raises(redis.ReadOnlyError):
            client.set("a", 2)
        asked = sentinel.asked
        with pytest.raises(redis.ReadOnlyError):
            client.set("a", 2)
        wait_for(lambda: sentinel.asked > asked, "the sentinel is asked")
        sentinel.port = second.port
        wait_for(lambda: write_all(client, ["a", "b"]), "writes go on")
        assert second.client(decode_responses=True).mget("a", "b") == ["a", "b"]


def test_what_was_not_sent_goes_to_the_new_primary(redis_server, weir_proxy):
    """The old primary's host hangs: it takes the connection and never answers the password."""
    real = redis_server(None, "--requirepass", "s3cret")
    with weirtest.Fake() as hanging, FakeSentinel(hanging.port) as sentinel:
        proxy = weir_proxy(pool("alpha", servers=[sentinel.address], redis=True, members="sentinel",
                                sentinel_master="one", distribution="ketama", redis_auth="s3cret"))
        with proxy.connect() as c:
            c.ask(resp("AUTH", "s3cret"), b"+OK\r\n")
            c.send(resp("SET", "a", 1) + resp("INCR", "a") + resp("GET", "a"))
            peer = hanging.accept()
            peer.recv_resp()
            assert c.is_quiet()
            sentinel.port = real.port
            sentinel.switched()
            c.expect(b"+OK\r\n:2\r\n$1\r\n2\r\n")
            peer.close()


def test_switch_master_is_heard(redis_server, weir_proxy):
    first, second = redis_server(2)
    with FakeSentinel(first.port) as sentinel:
        proxy = weir_proxy(pool("alpha", servers=[sentinel.address], redis=True, members="sentinel",
                                sentinel_master="one", distribution="ketama"))
        client = proxy.redis(decode_responses=True)
        for turn in range(3):
            wait_for(lambda: sentinel.subscribers, "the proxy subscribes")
            sentinel.port = (second, first)[turn % 2].port
            sentinel.switched()
            wait_for(lambda: write_all(client, [f"turn-{turn}"]) and
                     (second, first)[turn % 2].client().exists(f"turn-{turn}"), "the switch")


def test_a_sentinel_with_an_old_view_is_outvoted(sentinels, client, weir_proxy):
    """One of three says something else: the others are believed, from the first request on."""
    with weirtest.Fake() as wrong, FakeSentinel(wrong.port) as liar:
        text = sentinels.pool().replace(f"- {sentinels.sentinels[0].address}:", f"- {liar.address}:")
        assert liar.address in text
        other = weir_proxy(text).redis(decode_responses=True)
        for i in range(100):
            assert other.set(f"v{i}", i)
            time.sleep(0.02)
        assert liar.asked > 0
        assert client.mget([f"v{i}" for i in range(100)]) == [str(i) for i in range(100)]


def test_without_sentinels_the_last_address_is_kept(sentinels, stage, weir_proxy):
    alone = Sentinels(stage, names=("solo",), count=1)
    proxy = weir_proxy(alone.pool())
    client = proxy.redis(decode_responses=True)
    assert client.set("a", 1)
    alone.sentinels[0].kill()
    proxy.wait_log("no sentinel answers")
    for i in range(20):
        assert client.set("a", i)
    assert client.get("a") == "19"


def test_no_sentinel_at_all(weir_proxy, free_port):
    proxy = weir_proxy(pool("alpha", servers=[f"{LOOPBACK}:{free_port()}"], redis=True, members="sentinel",
                            sentinel_master="one", distribution="ketama", queue_timeout=300))
    with proxy.connect() as c:
        assert c.resp("GET", "a") == b"-ERR the sentinels name no primary for this key\r\n"
        assert c.resp("PING") == b"+PONG\r\n"


def test_passwords(stage, weir_proxy):
    both = Sentinels(stage, names=("solo",), count=1, auth="s3cret", sentinel_auth="watch3r")
    proxy = weir_proxy(both.pool())
    with proxy.connect() as c:
        assert c.resp("GET", "a").startswith(b"-NOAUTH")
        c.ask(resp("AUTH", "s3cret"), b"+OK\r\n").ask(resp("SET", "a", 1), b"+OK\r\n")
        c.ask(resp("GET", "a"), b"$1\r\n1\r\n")

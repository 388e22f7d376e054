# SPDX-License-Identifier: Apache-2.0
"""A pool whose members are a Redis Cluster: real nodes, slots that move under load, a node that dies."""

import os
import subprocess
import threading
import time

import pytest
import redis

import weirtest
from weirtest import LOOPBACK, pool, resp, wait_for

SLOTS = 16384


def crc16(data):
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xffff
    return crc


def slot_of(key):
    key = key.encode()
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    return crc16(key[start + 1:end] if end > start + 1 else key) % SLOTS


class Cluster:
    """Real nodes in cluster mode: the first `primaries` of them share the slots, the others copy them."""

    def __init__(self, stage, primaries=3, replicas=3, args=()):
        self.stage = stage
        self.args = args
        self.nodes = []
        for _ in range(primaries + replicas):
            self.add_node()
        first = self.nodes[0]
        self.join()
        edges = [SLOTS * i // primaries for i in range(primaries + 1)]
        for i in range(primaries):
            self.nodes[i].r.execute_command("CLUSTER ADDSLOTSRANGE", edges[i], edges[i + 1] - 1)
        self.wait_agreed(len(self.nodes))
        for i in range(replicas):
            self.nodes[primaries + i].r.execute_command("CLUSTER REPLICATE",
                                                        self.id_of(self.nodes[i % primaries]))
        wait_for(lambda: all("cluster_state:ok" in self.info(n) for n in self.nodes), "the cluster is up")
        if replicas:
            wait_for(lambda: all(n.r.info("replication").get("master_link_status") == "up"
                                 for n in self.nodes[primaries:]), "replicas are in sync")
        self.edges = edges
        self.first = first

    def add_node(self):
        bus = weirtest.free_port()
        node = self.stage.redis_server(
            None, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "1000",
            "--cluster-config-file", "nodes.conf", "--repl-diskless-sync-delay", "0",
            "--cluster-require-full-coverage", "no", "--cluster-replica-no-failover", "yes", *self.args)
        node.bus = bus
        node.r = node.client(decode_responses=True)
        self.nodes.append(node)
        return node

    def join(self):
        for node in self.nodes[1:]:
            self.nodes[0].r.execute_command("CLUSTER MEET", LOOPBACK, node.port, node.bus)

    def info(self, node):
        with node.connect() as c:
            return c.send(resp("CLUSTER", "INFO")).recv_resp().decode()

    def id_of(self, node):
        return node.r.execute_command("CLUSTER MYID")

    def wait_agreed(self, count):
        wait_for(lambda: all(f"cluster_known_nodes:{count}" in self.info(n) for n in self.nodes),
                 "all nodes know each other")

    def errors(self, kind):
        """How many such replies all nodes have given."""
        count = 0
        for node in self.nodes:
            if node.is_running():
                text = node.connect().send(resp("INFO", "errorstats")).recv_resp().decode()
                count += sum(int(line.partition("=")[2]) for line in text.split("\r\n")
                             if line.startswith(f"errorstat_{kind}:"))
        return count

    def owner(self, slot):
        """The node that owns the slot, as the nodes themselves see it."""
        for node in self.nodes:
            if not node.is_running():
                continue
            for line in node.connect().send(resp("CLUSTER", "NODES")).recv_resp().decode().split("\n"):
                if "myself,master" not in line:
                    continue
                for part in line.split(" ")[8:]:
                    part = part.strip()
                    if part.startswith("[") or not part:
                        continue
                    low, _, high = part.partition("-")
                    if int(low) <= slot <= int(high or low):
                        return node
        return None

    def move_slot(self, slot, target, pause=0.0):
        """The steps of a reshard, one by one, so that ASK and TRYAGAIN are met."""
        source = self.owner(slot)
        assert source is not target
        target.r.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.r.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.id_of(target))
        while True:
            keys = source.r.execute_command("CLUSTER GETKEYSINSLOT", slot, 1)
            if not keys:
                break
            source.r.execute_command("MIGRATE", LOOPBACK, target.port, keys[0], 0, 5000)
            time.sleep(pause)
        for node in (target, source, *[n for n in self.nodes if n not in (source, target)]):
            if node.is_running() and node.r.info("replication")["role"] == "master":
                node.r.execute_command("CLUSTER SETSLOT", slot, "NODE", self.id_of(target))
        self.wait_settled()
        return source

    def wait_settled(self):
        """Two moves within the nodes' gossip can give two of them the same epoch, and a slot nobody."""
        def epochs():
            return {line for n in self.nodes if n.is_running() for line in self.info(n).split("\r\n")
                    if line.startswith("cluster_current_epoch:")}
        wait_for(lambda: len(epochs()) == 1, "the nodes know of each other's epochs")


@pytest.fixture(scope="module")
def cluster(module_stage):
    return Cluster(module_stage)


def cluster_pool(nodes, **keys):
    return pool("alpha", servers=nodes, **{"redis": True, "members": "redis-cluster", **keys})


@pytest.fixture
def proxy(cluster, weir_proxy):
    return weir_proxy(cluster_pool(cluster.nodes[:2]), workers=2)


@pytest.fixture
def client(proxy):
    return proxy.redis(decode_responses=True)


@pytest.fixture(autouse=True)
def clean(request):
    yield
    if "cluster" in request.fixturenames:
        made = request.getfixturevalue("cluster")
        for node in made.nodes:
            if node.is_running() and node.r.info("replication")["role"] == "master":
                node.r.flushall()


class Load:
    """Clients that write, read back and count, in threads; `errors` is what went wrong.

    A value begins with its key: a reply that belongs to another request shows. With may_fail, requests
    may, and a write may be lost (replication is asynchronous), but no reply may be another's.
    """

    def __init__(self, proxy, threads=4, keys=40, may_fail=False):
        self.proxy, self.keys, self.may_fail = proxy, keys, may_fail
        self.stop_now = threading.Event()
        self.errors, self.failures, self.done = [], [], 0
        self.last_failure = self.first_failure = None
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(threads)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *exc):
        self.stop_now.set()
        for t in self.threads:
            t.join(weirtest.DEADLINE)

    def check(self, what, got, wanted):
        if got == wanted:
            return
        if self.may_fail and type(got) is type(wanted):
            if isinstance(got, str) and got.startswith(wanted.rpartition(":")[0]):
                return
            if isinstance(got, list) and len(got) == len(wanted):
                for g, w in zip(got, wanted):
                    self.check(what, g, w)
                return
            if isinstance(got, int):
                return
        if self.may_fail and got is None:
            return
        self.errors.append((what, got, wanted))

    def run(self, number):
        r = self.proxy.redis(decode_responses=True)
        values, counts, turn = {}, {}, 0
        while not self.stop_now.is_set():
            turn += 1
            try:
                self.one_turn(r, f"{number}-{turn % self.keys}", turn, values, counts)
                self.done += 5
            except (redis.RedisError, OSError) as e:
                if not self.may_fail:
                    self.errors.append(repr(e))
                    return
                self.failures.append(repr(e))
                self.first_failure = self.first_failure or time.monotonic()
                self.last_failure = time.monotonic()
                time.sleep(0.01)

    def one_turn(self, r, name, turn, values, counts):
        key, tag = f"load-{name}", f"{{tag-{name}}}"
        values[key] = f"{key}:{turn}"
        self.check("SET", r.set(key, values[key]), True)
        self.check("GET", r.get(key), values[key])
        counts[tag] = counts.get(tag, 0) + 1
        self.check("INCR", r.incr(tag + "count"), counts[tag])
        names = sorted(values)[:8]
        self.check("MGET", r.mget(names), [values[n] for n in names])
        pipe = r.pipeline(transaction=False)
        pipe.set(tag + "p", f"{tag}p:{turn}")
        pipe.get(tag + "p")
        pipe.get(key)
        self.check("pipeline", pipe.execute(), [True, f"{tag}p:{turn}", values[key]])


def test_routes_by_slot(cluster, proxy, client):
    names = [f"key-{i}" for i in range(400)]
    for name in names:
        assert client.set(name, name.upper())
    # The key is where the cluster says, and no redirect was needed to put it there.
    for name in names[:40]:
        assert cluster.owner(slot_of(name)).r.get(name) == name.upper()
    assert [client.get(n) for n in names] == [n.upper() for n in names]
    assert client.mget(names + ["none"] + names[:3]) == [
        n.upper() for n in names] + [None] + [n.upper() for n in names[:3]]
    assert client.dbsize() == 400
    assert sorted(client.scan_iter(count=50)) == sorted(names)
    assert sorted(client.keys("key-*")) == sorted(names)
    assert client.exists(*names, "none") == 400
    assert client.touch(*names[:10]) == 10
    assert client.mset({f"m{i}": i for i in range(100)})
    assert client.mget([f"m{i}" for i in range(100)]) == [str(i) for i in range(100)]
    assert client.delete(*names) == 400
    assert client.unlink(*[f"m{i}" for i in range(100)]) == 100
    assert client.dbsize() == 0


def test_keys_of_several_slots_are_refused(client, cluster):
    a = next(f"a{i}" for i in range(1000) if slot_of(f"a{i}") < 1000)
    b = next(f"b{i}" for i in range(1000) if 1000 < slot_of(f"b{i}") < 5000)  # the same node
    assert cluster.owner(slot_of(a)) is cluster.owner(slot_of(b))
    for words in (["SUNION", a, b], ["RENAME", a, b], ["SINTERSTORE", a, a, b]):
        with pytest.raises(redis.ResponseError, match="CROSSSLOT|same slot"):
            client.execute_command(*words)
    assert client.sadd("{t}a", "x") == 1 and client.sadd("{t}b", "y") == 1
    assert client.sunion("{t}a", "{t}b") == {"x", "y"}
    assert client.eval("return redis.call('scard', KEYS[1]) + redis.call('scard', KEYS[2])",
                       2, "{t}a", "{t}b") == 2


def test_transactions(client):
    with client.pipeline(transaction=True) as pipe:
        pipe.set("{x}1", "a").set("{x}2", "b").mget("{x}1", "{x}2")
        assert pipe.execute() == [True, True, ["a", "b"]]
    with client.pipeline(transaction=True) as pipe:
        pipe.watch("{x}1")
        pipe.multi()
        pipe.set("{x}1", "c")
        client.set("{x}1", "in between")
        with pytest.raises(redis.WatchError):
            pipe.execute()


def test_resp3(proxy):
    with proxy.connect() as c:
        assert c.send(resp("HELLO", 3)).recv_resp().startswith(b"%7\r\n")
        for i in range(50):
            c.ask(resp("HSET", f"h{i}", "f", i), b":1\r\n")
            c.ask(resp("HGETALL", f"h{i}"), b"%%1\r\n$1\r\nf\r\n$%d\r\n%d\r\n" % (len(str(i)), i))
        c.ask(resp("GET", "nothing"), b"_\r\n")


def test_ask_and_moved(cluster, proxy, client):
    """A slot in the middle of its move: keys that went are asked from the target, new ones too."""
    tag = "{moving}"
    slot = slot_of(tag)
    source = cluster.owner(slot)
    target = next(n for n in cluster.nodes[:3] if n is not source)
    for i in range(20):
        client.set(f"{tag}{i}", i)
    target.r.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", cluster.id_of(source))
    source.r.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", cluster.id_of(target))
    for i in range(10):
        source.r.execute_command("MIGRATE", LOOPBACK, target.port, f"{tag}{i}", 0, 5000)
    assert [client.get(f"{tag}{i}") for i in range(20)] == [str(i) for i in range(20)]
    assert client.set(f"{tag}new", "x") and client.get(f"{tag}new") == "x"
    # All keys are at one of the two: the answer is one node's.
    assert client.mget([f"{tag}{i}" for i in range(10)]) == [str(i) for i in range(10)]
    assert client.mget([f"{tag}{i}" for i in range(10, 20)]) == [str(i) for i in range(10, 20)]
    # Some here, some there: asked again until the move is over.
    got = []
    thread = threading.Thread(target=lambda: got.append(
        proxy.redis(decode_responses=True).mget([f"{tag}{i}" for i in range(20)] + ["elsewhere"])))
    before = cluster.errors("TRYAGAIN")
    thread.start()
    wait_for(lambda: cluster.errors("TRYAGAIN") > before, "it is asked again")
    source.r.execute_command("MIGRATE", LOOPBACK, target.port, "", 0, 5000, "KEYS", *(f"{tag}{i}" for i in range(10, 20)))
    thread.join(weirtest.DEADLINE)
    assert got == [[str(i) for i in range(20)] + [None]]
    for node in (target, source, cluster.nodes[2], cluster.nodes[1], cluster.nodes[0]):
        node.r.execute_command("CLUSTER SETSLOT", slot, "NODE", cluster.id_of(target))
    cluster.wait_settled()
    # The map is old now: MOVED is followed, also by each part of a split request.
    assert client.mget([f"{tag}{i}" for i in range(20)] + ["a", "b", "c"]) == [
        str(i) for i in range(20)] + [None] * 3
    with proxy.connect() as c:
        c.send(b"".join(resp("GET", f"{tag}{i}") for i in range(20)))
        for i in range(20):
            c.expect(b"$%d\r\n%d\r\n" % (len(str(i)), i))


def test_tryagain_is_passed_on_in_the_end(cluster, client):
    tag = "{stuck}"
    slot = slot_of(tag)
    source = cluster.owner(slot)
    target = next(n for n in cluster.nodes[:3] if n is not source)
    client.set(tag + "1", 1)
    client.set(tag + "2", 2)
    target.r.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", cluster.id_of(source))
    source.r.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", cluster.id_of(target))
    source.r.execute_command("MIGRATE", LOOPBACK, target.port, tag + "1", 0, 5000)
    with pytest.raises(redis.ResponseError, match="TRYAGAIN|[Mm]ultiple keys"):
        client.mget(tag + "1", tag + "2")
    source.r.execute_command("MIGRATE", LOOPBACK, target.port, tag + "2", 0, 5000)
    for node in cluster.nodes[:3]:
        node.r.execute_command("CLUSTER SETSLOT", slot, "NODE", cluster.id_of(target))
    cluster.wait_settled()
    assert client.mget(tag + "1", tag + "2") == ["1", "2"]


def test_transaction_over_a_moved_slot(cluster, proxy, client):
    tag = "{tx}"
    slot = slot_of(tag)
    source = cluster.owner(slot)
    target = next(n for n in cluster.nodes[:3] if n is not source)
    client.set(tag + "a", 1)
    with proxy.connect() as c:
        c.ask(resp("MULTI"), b"+OK\r\n").ask(resp("INCR", tag + "a"), b"+QUEUED\r\n")
        cluster.move_slot(slot, target)
        assert c.resp("EXEC").startswith(b"-EXECABORT")
        assert c.resp("GET", tag + "a") == b"$1\r\n1\r\n"
        c.ask(resp("MULTI"), b"+OK\r\n").ask(resp("INCR", tag + "a"), b"+QUEUED\r\n")
        assert c.resp("EXEC") == b"*1\r\n:2\r\n"


def test_blocked_command_moves_with_its_slot(cluster, proxy, client):
    tag = "{wait}"
    slot = slot_of(tag)
    source = cluster.owner(slot)
    target = next(n for n in cluster.nodes[:3] if n is not source)
    with proxy.connect() as c:
        c.send(resp("BLPOP", tag + "list", 0))
        wait_for(lambda: source.r.info("clients")["blocked_clients"] == 1, "it blocks")
        cluster.move_slot(slot, target)
        wait_for(lambda: target.r.info("clients")["blocked_clients"] == 1, "it blocks elsewhere")
        client.rpush(tag + "list", "item")
        assert c.recv_resp() == b"*2\r\n$10\r\n{wait}list\r\n$4\r\nitem\r\n"
        c.ask(resp("SET", tag + "x", 1), b"+OK\r\n")


def test_no_error_while_slots_move(cluster, proxy):
    """Key by key, slot by slot, there and back, under load."""
    before = cluster.errors("ASK") + cluster.errors("MOVED")
    with Load(proxy) as load:
        end, moved = time.monotonic() + 8, 0

        def is_enough():
            return moved > 5 and load.done > 100 and cluster.errors("ASK") + cluster.errors("MOVED") > before
        while not load.errors and (time.monotonic() < end or not is_enough() and time.monotonic() < end + 100):
            slot = slot_of(f"load-{moved % 4}-{moved % 40}" if moved % 2 else f"tag-{moved % 4}-{moved % 40}")
            source = cluster.owner(slot)
            target = cluster.nodes[(cluster.nodes.index(source) + 1) % 3]
            cluster.move_slot(slot, target, pause=0.003)
            moved += 1
    assert load.errors == []
    assert load.done > 100 and moved > 5
    redirects = cluster.errors("ASK") + cluster.errors("MOVED") - before
    assert redirects > 0
    print(f"moved {moved} slots under {load.done} requests, {redirects} redirects")


def test_no_error_during_a_reshard(cluster, proxy):
    source, target = cluster.owner(0), cluster.owner(SLOTS - 1)
    with Load(proxy) as load:
        done = subprocess.run(
            ["redis-cli", "--cluster", "reshard", f"{LOOPBACK}:{source.port}", "--cluster-from",
             cluster.id_of(source), "--cluster-to", cluster.id_of(target), "--cluster-slots", "150",
             "--cluster-yes"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert load.errors == []
    assert load.done > 100


def test_messages_come_once(cluster, proxy, client):
    with proxy.connect() as c:
        c.send(resp("PSUBSCRIBE", "news.*")).recv_resp()
        c.send(resp("SUBSCRIBE", "chat", "talk")).recv_resp()
        c.recv_resp()
        for i in range(5):
            client.publish("news.a", i)
            cluster.nodes[i % 3].r.publish("chat", i)
        got = sorted(c.recv_resp() for _ in range(10))
        assert got == sorted(
            [resp("pmessage", "news.*", "news.a", i) for i in range(5)] +
            [resp("message", "chat", i) for i in range(5)])
        assert c.resp("UNSUBSCRIBE", "chat") == b"*3\r\n$11\r\nunsubscribe\r\n$4\r\nchat\r\n:2\r\n"
        client.publish("chat", "gone")
        assert c.is_quiet()


def test_shard_channel_is_found_where_its_slot_went(cluster, proxy, client):
    slot = slot_of("shard")
    client.get("shard")
    source = cluster.owner(slot)
    cluster.move_slot(slot, next(n for n in cluster.nodes[:3] if n is not source))
    with proxy.connect() as c:
        assert c.resp("SSUBSCRIBE", "shard") == b"*3\r\n$10\r\nssubscribe\r\n$5\r\nshard\r\n:1\r\n"
        client.execute_command("SPUBLISH", "shard", "hello")
        assert c.recv_resp() == resp("smessage", "shard", "hello")


@pytest.mark.parametrize("version", [2, 3])
def test_requests_wait_until_the_map_is_known(cluster, weir_proxy, version):
    """The seed (which is no node itself) does not answer yet: what was sent is answered once it does; also HELLO 3, for
    which a node is asked whether it speaks that."""
    port = weirtest.free_port()
    proxy = weir_proxy(cluster_pool([f"{LOOPBACK}:{port}"], queue_timeout=15000))
    with proxy.connect() as c:
        if version == 3:
            c.send(resp("HELLO", 3))
        c.send(resp("SET", "a", 1) + resp("GET", "a") + resp("GET", "nothing") + resp("PING"))
        assert c.is_quiet()
        with weirtest.Fake(port) as seed:
            peer = seed.accept()
            peer.expect(resp("CLUSTER", "SLOTS"))
            peer.send(cluster.nodes[0].connect().send(resp("CLUSTER", "SLOTS")).recv_resp())
            if version == 3:
                assert c.recv_resp().startswith(b"%7\r\n")
            c.expect(b"+OK\r\n$1\r\n1\r\n%s\r\n+PONG\r\n" % (b"_" if version == 3 else b"$-1"))


def test_no_cluster_at_all(weir_proxy, free_port):
    proxy = weir_proxy(cluster_pool([f"{LOOPBACK}:{free_port()}"], queue_timeout=300))
    with proxy.connect() as c:
        assert c.resp("GET", "a").startswith(b"-CLUSTERDOWN")
        assert c.resp("PING") == b"+PONG\r\n"
        assert c.resp("MGET", "a", "b").startswith(b"-CLUSTERDOWN")


def test_nodes_that_do_not_know_their_own_address(stage, weir_proxy):
    """CLUSTER SLOTS and MOVED without hosts: it is the one that the node was reached by."""
    small = Cluster(stage, primaries=2, replicas=0,
                    args=("--cluster-preferred-endpoint-type", "unknown-endpoint"))
    proxy = weir_proxy(cluster_pool([f"localhost:{small.nodes[0].port}"]))
    client = proxy.redis(decode_responses=True)
    names = [f"key-{i}" for i in range(100)]
    assert client.mset({n: n for n in names})
    slot = slot_of(names[0])
    small.move_slot(slot, next(n for n in small.nodes if n is not small.owner(slot)))
    assert client.mget(names) == names
    assert all(0 < n.r.dbsize() < 100 for n in small.nodes)


def test_passwords(stage, weir_proxy):
    small = Cluster(stage, primaries=2, replicas=0)
    for node in small.nodes:
        node.r.config_set("requirepass", "s3cret")
    proxy = weir_proxy(cluster_pool(small.nodes[:1], redis_auth="s3cret"))
    with proxy.connect() as c:
        assert c.resp("GET", "a").startswith(b"-NOAUTH")
        c.ask(resp("AUTH", "s3cret"), b"+OK\r\n")
        c.ask(resp("MSET", "a", 1, "b", 2, "c", 3), b"+OK\r\n")
        c.ask(resp("MGET", "a", "b", "c"), b"*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n")


def test_reload_without_an_error(cluster, proxy):
    with Load(proxy) as load:
        for _ in range(3):
            proxy.reload()
            time.sleep(0.7)
    assert load.errors == []


def test_a_primary_dies(cluster, proxy, client):
    """Last in the file: it ends a node. Its slots fail until the replica has taken over, then go on."""
    victim = cluster.nodes[0]
    names = [f"k{i}" for i in range(200)]
    for node in cluster.nodes:  # before, a second in which the machine stood still was not to make a primary of any
        node.r.config_set("cluster-replica-no-failover", "no")
    with Load(proxy, may_fail=True) as load:
        time.sleep(0.3)
        victim.kill()
        wait_for(lambda: cluster.owner(0) is not None and cluster.owner(0) is not victim,
                 "a replica takes over")

        def all_well():
            try:
                for name in names:
                    client.set(name, name)
                return True
            except redis.RedisError:
                return False
        wait_for(all_well, "writes go on")
        at = len(load.failures)
        time.sleep(0.5)
        assert len(load.failures) == at or all_well()
    assert load.errors == []
    assert client.mget(names) == names
    if load.failures:
        print(f"{len(load.failures)} requests failed over "
              f"{load.last_failure - load.first_failure:.1f} s: {sorted(set(load.failures))[:5]}")

# SPDX-License-Identifier: Apache-2.0
"""Real client programs through the proxy, over two real redis-servers and two real memcacheds.

Each script of clients/ prints an "OK name" line for each thing that worked and ends with "OK all".
test_clients_python.py has the Python libraries. The JavaScript libraries are in $WEIR_CLIENTS (./check
puts them there).
"""

import os
import subprocess

import pytest

from weirtest import BUILD, HERE, memcache_pool, redis_pool, resp

SECONDS = 60


@pytest.fixture(scope="module")
def proxy(module_stage):
    return module_stage.weir_proxy(
        redis_pool(module_stage.redis_server(2), name="alpha") +
        memcache_pool(module_stage.memcached(2), name="beta"), workers=2)


def run(argv, **keywords):
    env = dict(os.environ, NODE_PATH=os.path.join(os.environ.get("WEIR_CLIENTS", os.path.join(BUILD, "clients")),
                                                  "node_modules"))
    return subprocess.run([str(a) for a in argv], capture_output=True, timeout=SECONDS, env=env, check=False,
                          **keywords)


def script(interpreter, name, *args):
    done = run([*interpreter, os.path.join(HERE, "clients", name), *args])
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0 and lines and lines[-1] == "OK all", (lines[-3:], done.stderr.decode()[-2000:])
    return lines


@pytest.mark.parametrize("version", [2, 3])
def test_node_redis(proxy, version):
    """node-redis 5, RESP2 and RESP3."""
    proxy.redis("alpha").flushall()
    script(["node"], "node_redis.js", proxy.ports["alpha"], version)


def test_ioredis(proxy):
    """ioredis 5, with its ready check."""
    proxy.redis("alpha").flushall()
    script(["node"], "ioredis.js", proxy.ports["alpha"])


def test_php_redis(proxy):
    proxy.redis("alpha").flushall()
    script(["php"], "redis.php", proxy.ports["alpha"])


@pytest.mark.parametrize("protocol", ["text", "binary"])
def test_php_memcached(proxy, protocol):
    script(["php"], "memcached.php", proxy.ports["beta"], protocol)


@pytest.mark.parametrize("protocol", ["binary", "meta"])
def test_ruby_dalli(proxy, protocol):
    """dalli 3: binary with its quiet multi-sets, and meta."""
    script(["ruby"], "dalli.rb", proxy.ports["beta"], protocol)


# redis-cli

def cli(proxy, *args, stdin=None, **keywords):
    done = run(["redis-cli", "-p", proxy.ports["alpha"], *args], input=stdin, **keywords)
    assert done.returncode == 0, done
    return done.stdout.decode()


def test_redis_cli(proxy):
    """Single commands, a script of them over stdin, RESP3, errors."""
    assert cli(proxy, "set", "c:a", "1") == "OK\n"
    assert cli(proxy, "get", "c:a") == "1\n"
    assert cli(proxy, "-3", "hset", "c:h", "f", "1") == "1\n"
    assert cli(proxy, "-3", "hgetall", "c:h") == "f 1\n"
    assert cli(proxy, "--json", "hgetall", "c:h") == '{"f":"1"}\n'
    assert cli(proxy, stdin=b"set c:b 2\nget c:b\nmget c:a c:b c:none\n") == "OK\n2\n1\n2\n\n"
    assert cli(proxy, stdin=b"multi\nset c:t 1\nincr c:t\nexec\n") == "OK\nQUEUED\nQUEUED\nOK\n2\n"
    assert "denied" in cli(proxy, "config", "get", "*")
    assert cli(proxy, "eval", "return {KEYS[1], ARGV[1]}", "1", "k", "a") == "k\na\n"
    assert "redis_version:7" in cli(proxy, "info", "server")
    assert cli(proxy, "-r", "5", "incr", "c:r").splitlines()[-1] == "5"
    assert cli(proxy, "-n", "0", "ping") == "PONG\n"


def test_redis_cli_pipe(proxy):
    """Mass insertion: 20,000 commands, then redis-cli's own ECHO of 20 random bytes."""
    data = b"".join(resp("SET", f"pipe:{i}", i) for i in range(20000))
    said = cli(proxy, "--pipe", stdin=data)
    assert "errors: 0, replies: 20000" in said, said
    assert proxy.redis("alpha").mget("pipe:0", "pipe:19999") == [b"0", b"19999"]


def test_redis_cli_scan(proxy):
    """--scan walks every server, each key once."""
    r = proxy.redis("alpha")
    with r.pipeline(transaction=False) as p:
        for i in range(3000):
            p.set(f"scan:{i}", i)
        p.execute()
    keys = cli(proxy, "--scan", "--pattern", "scan:*").split()
    assert len(keys) == 3000 and set(keys) == {f"scan:{i}" for i in range(3000)}


def test_redis_cli_tools(proxy):
    """--bigkeys and --memkeys walk with SCAN, TYPE and sizes of many keys; --stat reads INFO."""
    r = proxy.redis("alpha")
    r.set("tool:big", "x" * 10000)
    r.rpush("tool:list", *range(100))
    assert "tool:big" in cli(proxy, "--bigkeys")
    assert "tool:" in cli(proxy, "--memkeys")

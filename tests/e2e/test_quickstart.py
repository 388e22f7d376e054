# SPDX-License-Identifier: Apache-2.0
"""./quickstart: what it prints can be pasted, and Ctrl-C leaves nothing behind."""

import os
import re
import signal
import subprocess
import urllib.request

import pytest

import weirtest
from weirtest import Conn, resp, wait_for


@pytest.fixture
def quickstart(stage, tmp_path):
    def start(*options):
        weirtest.program("weir-proxy")
        weirtest.program("weir-backend")
        process = stage.process(
            ["bash", os.path.join(weirtest.SOURCE, "quickstart"), "--no-install", "--no-build",
             "--build-dir", weirtest.BUILD, "--data", str(tmp_path / "data"), *options], "quickstart", env={"TMPDIR": str(tmp_path)})

        def is_up():
            assert process.is_running(), process.tail()
            return "Ctrl-C stops" in process.text() and "    data  " in process.text()

        wait_for(is_up, "quickstart runs", deadline=90)
        return process
    return start


def descendants(pid):
    found = []
    for child in weirtest.children_of(pid):
        found += [child, *descendants(child)]
    return found


def ports_of(process):
    text = process.text()
    return {name: int(re.search(pattern, text).group(1)) for name, pattern in {
        "redis": r"redis-cli -p (\d+)", "memcache": r"telnet 127\.0\.0\.1 (\d+)",
        "stats": r"127\.0\.0\.1:(\d+)/stats"}.items()}


def children(process, name):
    return [pid for pid in weirtest.children_of(process.pid) if name in weirtest.cmdline_of(pid)]


def the_child(process, name):
    wait_for(lambda: len(children(process, name)) == 1, f"{name} has its name")  # which it may just be getting
    return children(process, name)[0]


def end_and_look(process, signo, tmp_path):
    begins = {pid: weirtest.begin_of(pid) for pid in descendants(process.pid)}
    assert len(begins) >= 5  # masters, and the node's workers and stats process (those of a killed master are nobody's)
    process.send_signal(signo)
    assert process.wait() == 0
    assert "everything is stopped" in process.text()
    wait_for(lambda: not [pid for pid, begin in begins.items() if begin and weirtest.begin_of(pid) == begin], "all are gone")
    assert not [name for name in os.listdir(tmp_path) if name.startswith("weir-quickstart")]


def test_what_it_prints_works_and_ctrl_c_leaves_nothing(quickstart, tmp_path):
    process = quickstart()
    ports = ports_of(process)
    lines = [line.strip() for line in process.text().splitlines() if "redis-cli" in line]
    def run(line):
        return subprocess.run(line, shell=True, stdout=subprocess.PIPE, text=True, timeout=20).stdout.strip()

    assert [run(line) for line in lines[:2]] == ["OK", "world"]
    telnet, = [line.strip() for line in process.text().splitlines() if "| telnet" in line]
    said = subprocess.run(telnet, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20)
    assert "STORED\nVALUE greeting 0 5\nhello\nEND\n" in said.stdout.replace("\r", "")
    assert [run(line) for line in lines[2:]] == ["hello"]
    with Conn(ports["memcache"]) as c:
        c.ask(b"set greeting 0 0 5\r\nhello\r\n", b"STORED\r\n")
        c.ask(b"get greeting\r\n", b"VALUE greeting 0 5\r\nhello\r\nEND\r\n")
    for path in ("/stats", "/metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['stats']}{path}", timeout=20) as reply:
            assert reply.status == 200
    end_and_look(process, signal.SIGINT, tmp_path)


def test_two_at_once_do_not_meet(quickstart, tmp_path):
    one, two = quickstart(), quickstart("--shards", "1")
    assert not set(ports_of(one).values()) & set(ports_of(two).values())
    for number, process in enumerate((one, two)):
        with Conn(ports_of(process)["redis"]) as c:
            assert c.resp("SET", "who", number) == b"+OK\r\n"
    with Conn(ports_of(one)["redis"]) as c:
        c.ask(resp("GET", "who"), b"$1\r\n0\r\n")
    for process in (two, one):
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


def test_a_killed_master_is_followed_by_another(quickstart, tmp_path):
    process = quickstart()
    port = ports_of(process)["redis"]
    masters = [the_child(process, "weir-proxy")]
    with Conn(port) as c:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
    os.kill(masters[0], signal.SIGKILL)
    wait_for(lambda: "new master takes over" in process.text(), "quickstart sees it")
    wait_for(lambda: [pid for pid in children(process, "weir-proxy") if pid not in masters])

    def is_served():
        try:
            with Conn(port) as c:
                return c.resp("GET", "a") == b"$1\r\n1\r\n"
        except (OSError, weirtest.Closed):
            return False

    wait_for(is_served, "the tier serves again")
    end_and_look(process, signal.SIGTERM, tmp_path)


def test_data_is_there_after_a_stop_and_after_kills(quickstart, tmp_path):
    process = quickstart()
    with Conn(ports_of(process)["redis"]) as c:
        for number in range(20):
            assert c.resp("SET", f"key-{number}", number) == b"+OK\r\n"
    end_and_look(process, signal.SIGINT, tmp_path)
    process = quickstart()
    for worker in weirtest.children_of(the_child(process, "weir-backend")):
        if "worker" in weirtest.cmdline_of(worker):
            os.kill(worker, signal.SIGKILL)

    def is_there():
        with Conn(ports_of(process)["redis"]) as c:
            return all(c.resp("GET", f"key-{number}") == b"$%d\r\n%d\r\n" % (len(str(number)), number)
                       for number in range(20))

    wait_for(is_there, "every key is there")
    end_and_look(process, signal.SIGTERM, tmp_path)

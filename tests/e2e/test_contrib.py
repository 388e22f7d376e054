# SPDX-License-Identifier: Apache-2.0
"""contrib/: the rules hold by Prometheus' own tool, every metric in them exists, files are well-formed."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from weirtest import SOURCE, memcache_pool, program, redis_pool, resp, wait_for

CONTRIB = os.path.join(SOURCE, "contrib")
RULES = os.path.join(CONTRIB, "prometheus", "weir.rules.yml")
NODE_RULES = os.path.join(CONTRIB, "prometheus", "weir-node.rules.yml")


def run(*argv, **keywords):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                          **keywords)


@pytest.mark.parametrize("rules", [RULES, NODE_RULES], ids=os.path.basename)
def test_rules_pass_promtool(rules):
    done = run("promtool", "check", "rules", rules)
    assert done.returncode == 0, done.stdout
    done = run("promtool", "test", "rules", rules.replace(".yml", ".test.yml"))
    assert done.returncode == 0, done.stdout


def names_of(metrics):
    return {re.split(r"[{ ]", line)[0] for line in metrics.splitlines() if line and not line.startswith("#")}


def names_asked(path):
    with open(path, encoding="utf-8") as f:
        rules = [rule for group in yaml.safe_load(f)["groups"] for rule in group["rules"]]
    asked = {name for rule in rules for name in re.findall(r"\bweir_[a-z0-9_]+", rule["expr"])}
    assert asked, "the rules ask for nothing"
    return asked


def test_node_s_rules_ask_for_metrics_that_exist(weir_backend):
    server = weir_backend()
    with server.connect() as c:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
    metrics = wait_for(lambda: (text := server.http("/metrics")) and "weir_shard_keys{" in text and text)
    assert names_asked(NODE_RULES) <= names_of(metrics)
    done = run("promtool", "check", "metrics", input=metrics)
    assert done.returncode == 0, done.stdout


def test_rules_ask_for_metrics_that_exist(redis_server, memcached, weir_proxy):
    proxy = weir_proxy(redis_pool(redis_server(1)) + memcache_pool(memcached(1)))
    with proxy.connect("alpha") as c:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
    asked, there = names_asked(RULES), names_of(proxy.http("/metrics"))
    assert asked <= there, sorted(asked - there)


def test_metrics_pass_promtool(redis_server, weir_proxy):
    proxy = weir_proxy(redis_pool(redis_server(1)))
    with proxy.connect() as c:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
        c.ask(resp("GET", "nothing"), b"$-1\r\n")
    done = run("promtool", "check", "metrics", input=proxy.http("/metrics"))
    assert done.returncode == 0, done.stdout


def test_completion_offers_the_program_s_own_options():
    script = (f"source {CONTRIB}/completion/weir-proxy; COMP_WORDS=({program('weir-proxy')} --); "
              "COMP_CWORD=1; _weir_proxy; printf '%s\\n' \"${COMPREPLY[@]}\"")
    offered = set(run("bash", "-c", script).stdout.split())
    assert {"--conf-file", "--test-conf", "--stats-port", "--version"} <= offered
    wrong = {option for option in offered if not option.startswith("--")}
    assert not wrong


def test_completion_offers_the_node_s_own_options():
    script = (f"source {CONTRIB}/completion/weir-backend; COMP_WORDS=({program('weir-backend')} --); "
              "COMP_CWORD=1; _weir_backend; printf '%s\\n' \"${COMPREPLY[@]}\"")
    offered = set(run("bash", "-c", script).stdout.split())
    assert {"--dir", "--memory", "--log_level", "--help"} <= offered
    assert not {option for option in offered if not option.startswith("--")}


def test_completion_offers_weirctl_s_commands():
    script = (f"source {CONTRIB}/completion/weirctl; COMP_WORDS=({program('weirctl')} ''); "
              "COMP_CWORD=1; _weirctl; printf '%s\\n' \"${COMPREPLY[@]}\"")
    offered = set(run("bash", "-c", script).stdout.split())
    assert {"status", "top", "where", "log-level", "--control", "--conf-file"} <= offered


@pytest.mark.parametrize("name", ["weir-proxy", "weir-backend"])
def test_unit_file_is_understood_by_systemd(tmp_path, name):
    if shutil.which("systemd-analyze") is None:
        return  # not every machine runs systemd, and nothing else reads the file
    with open(os.path.join(CONTRIB, "systemd", f"{name}.service"), encoding="utf-8") as f:
        text = f.read()
    unit = tmp_path / f"{name}.service"
    unit.write_text(re.sub(r"(?m)^Documentation=.*\n", "", text.replace(f"/usr/bin/{name}", "/bin/true")))
    done = run("systemd-analyze", "verify", "--man=no", str(unit))
    complaints = [line for line in done.stdout.splitlines() if f"{name}.service" in line]
    assert not complaints, done.stdout

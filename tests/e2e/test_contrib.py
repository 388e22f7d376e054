# SPDX-License-Identifier: Apache-2.0
"""contrib/: the rules hold by Prometheus' own tool, every metric in them exists, files are well-formed."""

import os
import re
import shutil
import subprocess

import yaml

from weirtest import SOURCE, memcache_pool, program, redis_pool, resp

CONTRIB = os.path.join(SOURCE, "contrib")
RULES = os.path.join(CONTRIB, "prometheus", "weir.rules.yml")


def run(*argv, **keywords):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
                          **keywords)


def test_rules_pass_promtool():
    done = run("promtool", "check", "rules", RULES)
    assert done.returncode == 0, done.stdout
    done = run("promtool", "test", "rules", "weir.rules.test.yml", cwd=os.path.dirname(RULES))
    assert done.returncode == 0, done.stdout


def test_rules_ask_for_metrics_that_exist(redis_server, memcached, weir_proxy):
    proxy = weir_proxy(redis_pool(redis_server(1)) + memcache_pool(memcached(1)))
    with proxy.connect("alpha") as c:
        c.ask(resp("SET", "a", "1"), b"+OK\r\n")
    there = {re.split(r"[{ ]", line)[0] for line in proxy.http("/metrics").splitlines()
             if line and not line.startswith("#")}
    with open(RULES, encoding="utf-8") as f:
        rules = [rule for group in yaml.safe_load(f)["groups"] for rule in group["rules"]]
    asked = {name for rule in rules for name in re.findall(r"\bweir_[a-z0-9_]+", rule["expr"])}
    assert asked, "the rules ask for nothing"
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


def test_completion_offers_weirctl_s_commands():
    script = (f"source {CONTRIB}/completion/weirctl; COMP_WORDS=({program('weirctl')} ''); "
              "COMP_CWORD=1; _weirctl; printf '%s\\n' \"${COMPREPLY[@]}\"")
    offered = set(run("bash", "-c", script).stdout.split())
    assert {"status", "top", "where", "log-level", "--control", "--conf-file"} <= offered


def test_unit_file_is_understood_by_systemd(tmp_path):
    if shutil.which("systemd-analyze") is None:
        return  # not every machine runs systemd, and nothing else reads the file
    text = open(os.path.join(CONTRIB, "systemd", "weir-proxy.service"), encoding="utf-8").read()
    unit = tmp_path / "weir-proxy.service"
    unit.write_text(re.sub(r"(?m)^Documentation=.*\n", "", text.replace("/usr/bin/weir-proxy", "/bin/true")))
    done = run("systemd-analyze", "verify", "--man=no", str(unit))
    complaints = [line for line in done.stdout.splitlines() if "weir-proxy.service" in line]
    assert not complaints, done.stdout

# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the end-to-end tests. Each starts real processes and ends them; see weirtest.py.

    def test_x(redis_server, weir_proxy):
        servers = redis_server(2)                      # a list; redis_server() is one
        proxy = weir_proxy(redis_pool(servers), workers=2)
        with proxy.connect() as c:
            c.ask(resp("SET", "a", "1"), b"+OK\\r\\n")

A test fails if its proxy crashed, failed an assertion, reported to a sanitizer, or did not stop.
The build under test is $WEIR_BUILD. Tests marked `nightly` run only with --nightly.
"""

import faulthandler
import os
import shutil
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import weirtest  # noqa: E402

# A shell that starts the suite in the background ignores it, and all below would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

TEST_SECONDS_MAX = 240  # a hanging test is ended with a traceback instead of hanging the run


def pytest_addoption(parser):
    parser.addoption("--nightly", action="store_true", help="run the long tests too")


def pytest_configure(config):
    config.addinivalue_line("markers", "nightly: long; only with --nightly")
    config.addinivalue_line("markers", "seconds_max(n): how long this test may take before it is ended")


def pytest_collection_modifyitems(config, items):
    """Long tests are deselected, not skipped: a skip would look like something that could not run."""
    if config.getoption("--nightly"):
        return
    long = [item for item in items if item.get_closest_marker("nightly")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


class HungTest(Exception):
    pass


@pytest.fixture(autouse=True)
def bounded(request):
    """Ends a test that hangs: an exception first, and the whole run a minute later if even that hangs."""
    import signal

    marker = request.node.get_closest_marker("seconds_max")
    seconds = marker.args[0] if marker else TEST_SECONDS_MAX

    def on_alarm(signo, frame):
        raise HungTest(f"the test took more than {seconds} s")

    old = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds + 60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


def stage_in(path, session):
    """What a node leaves is hundreds of megabytes: it stays only when something failed."""
    failed = session.testsfailed
    made = weirtest.Stage(str(path))
    yield made
    troubles = made.close()
    if troubles:
        pytest.fail("broken process:\n" + "\n".join(troubles), pytrace=False)
    if session.testsfailed == failed:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def stage(tmp_path, request):
    """Everything that one test starts."""
    # Redis and memcached are started as others, so the way down must be open to them.
    for path in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        try:
            os.chmod(path, 0o755)
        except PermissionError:
            pass
    yield from stage_in(tmp_path, request.session)


@pytest.fixture(scope="module")
def module_stage(tmp_path_factory, request):
    """The same for a whole file: for tests that share servers which they leave as they found them."""
    yield from stage_in(tmp_path_factory.mktemp("stage"), request.session)


@pytest.fixture
def redis_server(stage):
    """redis_server() is one RedisServer, redis_server(n, *args) a list of n."""
    return stage.redis_server


@pytest.fixture
def weir_backend(stage):
    """weir_backend() is one WeirBackend, weir_backend(n, *args) a list of n."""
    return stage.weir_backend


@pytest.fixture
def memcached(stage):
    """memcached() is one Memcached, memcached(n, *args) a list of n."""
    return stage.memcached


@pytest.fixture
def nutcracker(stage):
    """nutcracker(conf_text, *options): the real one."""
    return stage.nutcracker


@pytest.fixture
def weir_proxy(stage):
    """weir_proxy(conf_text, workers=1, options=()): the build's, listening when it is returned."""
    return stage.weir_proxy


@pytest.fixture
def free_port():
    return weirtest.free_port


@pytest.fixture
def fake():
    """fake() is a backend played by the test itself."""
    made = []

    def make(*args, **keywords):
        made.append(weirtest.Fake(*args, **keywords))
        return made[-1]

    yield make
    for one in made:
        one.listener.close()

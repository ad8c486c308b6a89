"""The fixtures of test/integration, and what foreign clients need: names that resolve, keys, a place to run."""
import importlib.util
import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
INTEGRATION = os.path.join(os.path.dirname(HERE), "integration")
sys.path[:0] = [INTEGRATION, HERE]

_spec = importlib.util.spec_from_file_location("integration_fixtures", os.path.join(INTEGRATION, "conftest.py"))
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
globals().update({k: v for k, v in vars(_fixtures).items() if not k.startswith("__")})

from clients import Guest  # noqa: E402


def pytest_sessionstart(session):
    if not os.path.isdir(os.path.join(HERE, "node_modules")):
        pytest.exit("test/clients/node_modules is missing; run ./check --clients, or dev/npm-ci test/clients", 2)


@pytest.fixture(scope="module")
def guest(shop):
    return Guest(shop)

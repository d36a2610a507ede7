"""The plugin leaves nothing behind: what its simulator's variables were is theirs again, whoever else changed them."""

from pathlib import Path

import pytest

from .test_plugin import outcomes, run_pytest

pytestmark = pytest.mark.processes

CHANGED = """
import os, pytest

@pytest.fixture(autouse=True)
def bare(monkeypatch):
    monkeypatch.delenv("DRYAPI_LIMITS", raising=False)

def test_without_a_key(dryapi_simulator, monkeypatch):
    monkeypatch.delenv("DRYAPI_API_KEY")

def test_after():
    assert "DRYAPI_API_KEY" not in os.environ
    assert os.environ["DRYAPI_BASE_URL"] == "http://127.0.0.1:9"
"""


def test_what_a_test_changed_itself_is_put_back_too(tmp_path: Path) -> None:
    status, said = run_pytest(tmp_path, CHANGED, environment={"DRYAPI_BASE_URL": "http://127.0.0.1:9"})
    assert (status, set(outcomes(said).values())) == (0, {"PASSED"}), said


UNSIGNED = """
import os, pytest
from dryapi_async import Client

@pytest.mark.dryapi_simulator(webhook_secret=None)
def test_without_a_secret(dryapi_simulator):
    assert "DRYAPI_WEBHOOK_SECRET" not in os.environ

@pytest.mark.dryapi_simulator(webhook_secret="whsec_own")
def test_with_one_of_its_own(dryapi_simulator):
    assert os.environ["DRYAPI_WEBHOOK_SECRET"] == "whsec_own"

def test_with_the_usual_one(dryapi_simulator):
    assert os.environ["DRYAPI_WEBHOOK_SECRET"] == "whsec_simulator"

def test_after():
    assert os.environ["DRYAPI_WEBHOOK_SECRET"] == "whsec_real"
"""


def test_an_account_without_a_webhook_secret_leaves_none_in_the_environment(tmp_path: Path) -> None:
    status, said = run_pytest(tmp_path, UNSIGNED, environment={"DRYAPI_WEBHOOK_SECRET": "whsec_real"})
    assert (status, set(outcomes(said).values())) == (0, {"PASSED"}), said

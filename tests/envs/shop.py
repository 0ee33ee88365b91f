"""Fixtures of WebShop's tests: a made-up shop, played with the nouns that need no model. Skips who
imports it where a package is missing."""
import pytest

pytest.importorskip("rapidfuzz", reason="pip install 'rapidfuzz>=3'")
pytest.importorskip("tantivy", reason="pip install 'tantivy>=0.27'")

import envs  # noqa: E402
from envs.webshop import made, reward  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("shop"))
    made.write(path, 150)
    return path


@pytest.fixture(autouse=True)
def the_same_nouns_everywhere(monkeypatch):
    monkeypatch.setattr(reward, "tagger", lambda: None)
    reward.nouns.cache_clear()


@pytest.fixture
def env(folder):
    return envs.make("webshop", data=folder)

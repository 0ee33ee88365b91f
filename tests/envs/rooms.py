"""Fixtures of ALFWorld's tests: small rooms of our own in the official format. Skips who imports it
where a package is missing."""
import random

import pytest

INSTALL = "pip install textworld; pip install --no-deps alfworld fast-downward-textworld"
pytest.importorskip("textworld", reason=INSTALL)
pytest.importorskip("fast_downward", reason=INSTALL)

import envs  # noqa: E402
from contract import play  # noqa: E402
from envs.alfworld import made  # noqa: E402
from envs.alfworld.games import Game  # noqa: E402

if not made.installed():  # the official domain and grammar are in it
    pytest.skip("pip install --no-deps alfworld", allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def rooms(tmp_path_factory):
    """-> a folder with twelve games in the current format, walkthroughs by the planner; whatever is
    translated here is kept beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALFWORLD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("ALFWORLD_DATA", raising=False)
        folder = tmp_path_factory.mktemp("rooms")
        yield made.write_games(folder, plan=lambda path: Game(path).plan(()), train=6, valid_seen=5,
                               valid_unseen=2)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The same in the original format: other verbs, no walkthrough."""
    return made.write_games(tmp_path_factory.mktemp("old"), old=True, train=6, valid_seen=1,
                            valid_unseen=1)


@pytest.fixture
def env(rooms):
    return envs.make("alfworld", data=rooms)


def solve(env, task, split, skill="expert"):
    env.reset(task, split)
    return play(env, env.demo(random.Random(0), skill))[1]

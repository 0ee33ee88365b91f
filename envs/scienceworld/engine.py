"""A Java process with ScienceWorld in it: started when it is first needed, watched while it works,
gone when this process is.

The package starts Java with a pipe to it and Java ends when the pipe does: SIGKILL of this process
leaves none behind (one that is itself stopped at that moment, until it goes on). A place is (task,
variation, commands so far): where a game stands.
"""
import logging
import os
import sys
import threading

from envs import one_line
from envs.scienceworld.text import squeeze

FIRST, LONGEST = 900, 600  # characters of a first text (goal and look), and of what follows
# Seconds until an engine counts as hanging; the slowest call takes 30, on a busy machine more.
PATIENCE = 300
# Without these Java takes 2 GB a game; a game needs 0.1, a gold path 0.5.
JAVA = "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xms32m -Xmx2g"
# How it answers a reply that is no command, or not yet one.
NO_COMMAND = ("No known action", "Unknown action", "Ambiguous request")
NO_JAVA = "scienceworld needs Java: install Java 11 or newer, so that `java -version` works"


class Engine:
    def __init__(self, simplifications):
        self.simplifications = simplifications
        self.world = self.at = None  # the package's object; the place where its game stands
        self.game = nobody  # a weak reference to the ScienceWorld whose game it plays

    def start(self):
        """ValueError in one line when there is no Java that works."""
        import scienceworld
        os.environ.setdefault("JAVA_TOOL_OPTIONS", JAVA)
        # One line about an engine that died is enough, and it is ours.
        logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)
        logging.getLogger().addFilter(not_py4j)
        world = object.__new__(scienceworld.ScienceWorldEnv)
        # Its __del__ calls close(), which would print more errors where there is no Java.
        world.close = lambda: None
        try:
            world.__init__("", envStepLimit=10**6)
        # No `java`, or one that ends before it says its port: each in its own way.
        except Exception:
            raise ValueError(NO_JAVA) from None
        world.close = world._gateway.java_process.kill
        self.world, self.at = world, None

    def stop(self, why):
        self.world._gateway.java_process.kill()
        self.world = self.at = None
        print(f"scienceworld: {why}; another is started, an episode that was in it counts as "
              "failed", file=sys.stderr)

    def check(self):
        """Put a dead process away."""
        if self.world and self.world._gateway.java_process.poll() is not None:
            self.stop("an engine was gone")

    def ask(self, work, attempts=1):
        """work(world); None when the engine died or hung on every attempt."""
        for _ in range(attempts):
            try:
                if self.world is None:
                    self.start()
                watchdog = threading.Timer(PATIENCE, self.world._gateway.java_process.kill)
                watchdog.daemon = True
                watchdog.start()
                try:
                    return work(self.world)
                finally:
                    watchdog.cancel()
            except Exception as error:  # py4j's, the socket's, or what came of half an answer
                if self.world is not None:
                    self.stop(f"an engine failed ({type(error).__name__})")

    def play(self, world, place):
        """Bring the game to a place -> (observation, score, over) there."""
        name, number, said = place
        if not said or self.at != (name, number, said[:-1]):
            self.at = None
            world.load(name, number, self.simplifications)
            world.server.reset()
            look = world.server.step("look around")
            for text in said[:-1]:
                world.server.step(text)
        if said:
            heard = squeeze(world.server.step(said[-1]), LONGEST)
        else:
            task = squeeze(world.get_task_description(), FIRST)
            heard = f"{task} {squeeze(look, FIRST)}"
        self.at, score = place, round(100 * world.server.getScore())
        # A score below 0 is the end, as in the package.
        return heard[:FIRST], score, world.server.getCompleted() or score < 0

    def reply(self, place, attempts=1):
        """(observation, score, over) at a place; None when the engine failed."""
        return self.ask(lambda world: self.play(world, place), attempts)

    def there(self, place, work):
        """work(world) at a place; None when the engine failed."""
        def look(world):
            if self.at != place:
                self.play(world, place)
            return work(world)
        return self.ask(look)

    def gold_path(self, name, number):
        """The simulator's own solution, another one each time -> [commands]; [] when the engine
        failed."""
        def find(world):
            self.at = None
            world.load(name, number, self.simplifications, generateGoldPath=True)
            return [one_line(text) for text in world.get_gold_action_sequence()]
        return self.ask(find, attempts=3) or []


def nobody():
    """A reference to nothing."""


def not_py4j(record):
    """It logs to the root logger too."""
    return "py4j" not in record.pathname

"""A robot that keeps a model of its world up to date from a camera over the table.

It reads every new scene of a camera that somebody else feeds, and tells what changed and what it
would reach for. Given photos, it plays the camera too:

    python examples/robot.py --camera front
    python examples/robot.py --camera front examples/photos/table-0[1-6].*
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from service.cameras.schemas import CameraScene
from service.client import DEFAULT_URL, Client, ServiceError
from service.schemas import DetectedObject

# What this robot's gripper can cope with.
LEAST_SCORE = 0.8
LARGEST_POSITION_STD = 0.015  # m
LARGEST_YAW_STD = 0.2  # rad

# A frame more or less must not make the world flicker.
FRAMES_UNTIL_GONE = 2
MOVED = 0.01  # m; below it is the noise of the camera


class World:
    """What stands on the table, as far as the robot knows.

    Ids last from frame to frame, so that an object is an entry and its moves are updates.
    """

    def __init__(self) -> None:
        self.things: dict[int, DetectedObject] = {}
        self._missed: dict[int, int] = {}  # frames since it was seen

    def update(self, scene: CameraScene) -> list[str]:
        """Takes a new scene in; what changed, in words."""
        if not scene.quality.in_distribution:
            return ["a picture of no kind that the model knows: it is ignored"]
        news = []
        seen = {thing.id: thing for thing in scene.objects}
        for key, thing in seen.items():
            before = self.things.get(key)
            if before is None:
                news.append(f"{name(thing)} appeared at {place(thing)}")
            elif distance(before, thing) > MOVED:
                news.append(f"{name(thing)} moved to {place(thing)}")
            if before is None or distance(before, thing) > MOVED or certainty(thing, before):
                self.things[key] = thing
            self._missed[key] = 0
        for key in self.things.keys() - seen.keys():
            self._missed[key] += 1
            if self._missed[key] >= FRAMES_UNTIL_GONE:
                news.append(f"{name(self.things.pop(key))} is gone")
        return news

    def plan(self) -> list[str]:
        """What to reach for and what to leave, in words."""
        lines = []
        for thing in self.things.values():
            reasons = doubts(thing)
            decision = f"leave it, {'; '.join(reasons)}" if reasons else "reach for it"
            lines.append(f"{name(thing)} at {place(thing)}: {decision}")
        return lines


def certainty(thing: DetectedObject, before: DetectedObject) -> bool:
    """Whether an object that did not move is known better than before."""
    return spread(thing) <= spread(before)


def doubts(thing: DetectedObject) -> list[str]:
    """Why not to reach for an object; nothing when there is no reason."""
    found = []
    if thing.score < LEAST_SCORE:
        found.append(f"perhaps no {thing.class_id} ({thing.score:.0%})")
    if spread(thing) > LARGEST_POSITION_STD:
        found.append(f"position known to {100 * spread(thing):.1f} cm only")
    std = thing.yaw.std
    # None: no turn of it can be seen, as with a plate, and so none matters for the grasp.
    if std is None and thing.symmetry.kind != "continuous":
        found.append("yaw unknown")
    elif std is not None and std > LARGEST_YAW_STD:
        found.append(f"yaw known to {math.degrees(std):.0f} degrees only")
    return found


def spread(thing: DetectedObject) -> float:
    """Standard deviation of the position, m, in the worse of x and y."""
    # The covariance is 6 x 6, row-major, x y z rx ry rz: x and y are at 0 and 7.
    return math.sqrt(max(thing.covariance[0], thing.covariance[7], 0.0))


def distance(one: DetectedObject, other: DetectedObject) -> float:
    """m, along the table."""
    a, b = one.pose.position, other.pose.position
    return math.hypot(a.x - b.x, a.y - b.y)


def name(thing: DetectedObject) -> str:
    return f"{thing.class_id} {thing.id}"


def place(thing: DetectedObject) -> str:
    position = thing.pose.position
    return f"x {position.x:+.3f}, y {position.y:+.3f}, {math.degrees(thing.yaw.value):+.0f} degrees"


@contextlib.contextmanager
def played(client: Client, camera: str, photos: list[Path], every: float) -> Iterator[None]:
    """Sends photos as a camera would, again and again, while the robot works."""
    stop = threading.Event()
    frames = [photo.read_bytes() for photo in photos]

    def play() -> None:
        while frames:
            for frame in frames:
                with contextlib.suppress(ServiceError):  # the next frame comes soon
                    client.put_frame(camera, frame)
                if stop.wait(every):
                    return

    player = threading.Thread(target=play)
    player.start()
    try:
        yield
    finally:
        stop.set()
        player.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("photos", nargs="*", type=Path, help="to play the camera with")
    parser.add_argument("--camera", default="front", help="name of the camera")
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--key", default=os.environ.get("AIRSCENE_KEY"), help="API key, if needed")
    parser.add_argument("--every", type=float, default=1.0, help="s, between played photos")
    parser.add_argument("--scenes", type=int, help="end after so many scenes")
    arguments = parser.parse_args()
    world = World()
    try:
        with (
            Client(arguments.url, key=arguments.key) as client,
            played(client, arguments.camera, arguments.photos, arguments.every),
        ):
            client.model()  # says at once when there is no service, or the key is wrong
            for scene in islice(client.scenes(arguments.camera), arguments.scenes):
                print(f"frame {scene.source.frame}, {time.strftime('%H:%M:%S')}")
                for line in world.update(scene):
                    print(f"  {line}")
                for line in world.plan():
                    print(f"    {line}")
                sys.stdout.flush()
    except (OSError, ServiceError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())

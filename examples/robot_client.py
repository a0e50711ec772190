"""Asks the service what stands on the table and says which objects a robot may reach for.

    python examples/robot_client.py photo.jpg --url http://127.0.0.1:8000

It needs nothing but Python's standard library.
"""

import argparse
import json
import math
import sys
import urllib.error
import urllib.request
from pathlib import Path

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}

# What this robot's gripper can cope with.
LEAST_SCORE = 0.8
LARGEST_POSITION_STD = 0.015  # m
LARGEST_YAW_STD = 0.2  # rad


def look(url: str, photo: Path, request_id: str) -> dict:
    """The service's answer to one photo; raises RuntimeError with its words if it has none."""
    request = urllib.request.Request(
        f"{url}/infer",
        data=photo.read_bytes(),
        headers={
            "Content-Type": TYPES.get(photo.suffix.lower(), "application/octet-stream"),
            "X-Request-ID": request_id,  # comes back in the answer, and is in the server's log
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            if error.headers.get_content_type() == "application/problem+json":
                raise RuntimeError(json.load(error)["detail"]) from None
            raise RuntimeError(f"{url} answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise RuntimeError(f"no service at {url} ({error.reason}); start it: make serve") from None


def doubts(thing: dict) -> list[str]:
    """Why not to reach for an object; nothing when there is no reason."""
    found = []
    if thing["score"] < LEAST_SCORE:
        found.append(f"perhaps no {thing['class_id']} ({thing['score']:.0%})")
    # The covariance is 6 x 6, row-major, x y z rx ry rz: x and y are at 0 and 7.
    spread = math.sqrt(max(thing["covariance"][0], thing["covariance"][7]))
    if spread > LARGEST_POSITION_STD:
        found.append(f"position known to {100 * spread:.1f} cm only")
    yaw = thing["yaw"]["std"]
    # null: no turn of it can be seen, as with a plate, and so none matters for the grasp.
    if yaw is None and thing["symmetry"]["kind"] != "continuous":
        found.append("yaw unknown")
    elif yaw is not None and yaw > LARGEST_YAW_STD:
        found.append(f"yaw known to {math.degrees(yaw):.0f} degrees only")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    arguments = parser.parse_args()
    try:
        answer = look(arguments.url, arguments.photo, f"robot/{arguments.photo.stem[:80]}")
    except (OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for warning in answer["warnings"]:
        print(f"warning: {warning}")
    trusted = answer["quality"]["in_distribution"]
    print(f"{answer['count']['value']} object(s), metres and degrees in the table frame:")
    for thing in answer["objects"]:
        place, size = thing["pose"]["position"], thing["bbox3d"]["size"]
        reasons = doubts(thing) if trusted else ["the picture is not of a kind the model knows"]
        print(
            f"  {thing['class_id']:10} at x {place['x']:+.3f}, y {place['y']:+.3f}, "
            f"{size['z']:.3f} high, turned by {math.degrees(thing['yaw']['value']):+.0f}: "
            + (f"leave it, {'; '.join(reasons)}" if reasons else "reach for it")
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

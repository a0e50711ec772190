"""One process of a training that is only timed; `distributed` starts one or several of them.

`python -m benchmarks.trainee EXPERIMENT STEPS` prints, as JSON, the seconds of the clock and of the
processor that STEPS took it, after some that do not count. It keeps to one core: its number.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from training.experiments import find_experiment
from training.run import RunOptions
from training.scene_run import SceneRun
from training.team import team_of_environment

WARM = 3  # steps


def main(experiment: str, steps: int) -> None:
    core = int(os.environ.get("LOCAL_RANK", "0"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})
    with team_of_environment("cpu") as team, TemporaryDirectory() as folder:
        options = RunOptions(out=Path(folder), steps=steps + WARM, workers=0, threads=1, team=team)
        run = SceneRun(find_experiment(experiment), options)
        run.learning.train()
        for number, batch in enumerate(run.batches(0, steps + WARM), 1):
            run.learn(batch)
            if number == WARM:
                team.any(False)  # all begin together
                clock, processor = time.perf_counter(), time.process_time()
        team.any(False)
        took = {
            "seconds": time.perf_counter() - clock,
            "processor_seconds": time.process_time() - processor,
            "images": steps * run.schedule.batch,
            "backend": run.backend,
        }
    print(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

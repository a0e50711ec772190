"""The engine behind LitServe, as its users write it: the same decoding, model and JSON as ours.

`python -m benchmarks.litserve_app '{"port": 8001, "batch": 16, …}'`
"""

# LitServe reads annotations as they stand: none may be text.

import json
import sys
from collections.abc import Mapping
from typing import Any

import litserve

from inference.images import Picture
from service.answers import compose, now
from service.engine import Answer, Engine
from service.lane import decoder_for
from service.settings import Settings


class Airscene(litserve.LitAPI):  # type: ignore[misc]
    """What a user of LitServe writes to serve a model."""

    def setup(self, device: str) -> None:
        """Loads the engine, in the process that will infer."""
        settings = Settings()
        self.engine = Engine(settings.checkpoint, threads=settings.threads)
        self.engine.warm_up()
        self.decoder = decoder_for(self.engine.checkpoint, settings)

    def decode_request(self, request: litserve.Request) -> Picture:
        """The picture in a form's field `image`."""
        form: Mapping[str, Any] = request  # type: ignore[assignment]  # LitServe has read it
        return self.decoder.decode(form["image"].file.read())

    def batch(self, inputs: list[Picture]) -> list[Picture]:
        """The engine takes them as they are."""
        return inputs

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """It gives one answer for each."""
        return output

    def predict(self, inputs: Picture | list[Picture]) -> Any:
        """One answer, or several."""
        if isinstance(inputs, list):
            return self.engine.infer_batch(inputs)
        return self.engine.infer(inputs)

    def encode_response(self, output: Answer) -> dict[str, Any]:
        """The JSON of `POST /infer`."""
        return compose(output, request_id="", stamp=now()).model_dump(mode="json")


def main(options: dict[str, Any]) -> None:
    """Serves.

    Args:
        options: `port`; `batch`, the largest, 1 without batching; `wait`, s for a batch to fill;
            `workers`, processes that infer; `fast`, LitServe's faster queue.
    """
    batch = options["batch"]
    api = Airscene(
        api_path="/infer",
        **({"max_batch_size": batch, "batch_timeout": options["wait"]} if batch > 1 else {}),
    )
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=options["workers"],
        fast_queue=options["fast"],
        timeout=60,
    )
    server.run(
        host="127.0.0.1", port=options["port"], log_level="error", generate_client_file=False
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

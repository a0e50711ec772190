"""Images of two digits of which one knows the sum and the order, and what learns from those."""

import gzip
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.air2d import Air2d, Air2dConfig
from inference.checkpoint2d import save_checkpoint2d
from inference.distributions import Gaussian
from training.__main__ import main
from training.digits import DataError, read_labels
from training.pairs import make_pairs
from training.picture_experiments import PictureExperiment
from training.pictures import PictureData, load_pictures
from training.representation import Inferences, Pixels, infer, learn, network_for

NETWORK = Air2dConfig(
    window=8, steps=3, what=4, hidden=16, embedding=16, encoder=(16, 16), decoder=(16,)
)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MNIST's files with one digit of each kind: a square whose grey level says which."""
    digits = np.zeros((10, 28, 28), dtype=np.uint8)
    for value in range(10):
        digits[value, 10:18, 10:18] = 100 + value
    order = np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7], dtype=np.uint8)
    folder = tmp_path / "mnist"
    folder.mkdir()
    images = struct.pack(">4i", 2051, 10, 28, 28) + digits[order].tobytes()
    for name in ("train", "t10k"):
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        labels = struct.pack(">2i", 2049, 10) + order.tobytes()
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    monkeypatch.setenv("AIR_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_sum_and_order_are_what_one_reads_from_left_to_right() -> None:
    pairs = make_pairs(PictureData(form="separate-digits", images=300), "train")
    same = 0
    for image, total, ascends in zip(pairs.image, pairs.total, pairs.ascends, strict=True):
        seen = []  # from what the image shows, not from how it was made
        for level in image.unique()[1:].tolist():
            rows, columns = (image[0] == level).nonzero().unbind(1)
            seen += [(columns.float().mean().item(), rows.float().mean().item(), level - 100)]
        if len(seen) == 1:  # twice the same digit
            assert (int(total), int(ascends)) == (2 * seen[0][2], 0)
            same += 1
            continue
        first, second = (value for *_, value in sorted(seen))
        assert (int(total), bool(ascends)) == (first + second, first < second)
    assert 10 < same < 60
    assert 0.35 < pairs.ascends.double().mean() < 0.55


def test_labels_leave_the_images_as_they_were() -> None:
    data = PictureData(form="shrunk-digits", counts=(2,), images=40, seed=5)
    assert torch.equal(make_pairs(data, "test").image, load_pictures(data, "test").image)


def test_images_without_digits_have_no_sum() -> None:
    with pytest.raises(ValueError, match="sprites show no digits"):
        make_pairs(PictureData(form="sprites"), "train")


def test_labels_that_cannot_be_read_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(DataError, match="not a whole IDX file of labels-idx1"):
        read_labels("train")


def test_a_network_learns_what_can_be_learned_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.representation.STEPS", 300)
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(800, 6, generator=random)
    labels = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    noise = torch.randint(3, (800,), generator=random)
    found = [
        learn(
            network_for(inputs, 3, 0),
            Pixels(inputs[:600]),
            known[:600],
            (inputs[600:], known[600:]),
            generator=torch.Generator().manual_seed(1),
        )
        for known in (labels, noise)
    ]
    assert found[0] > 0.9
    assert found[1] < 0.5


def test_networks_are_those_of_the_appendix() -> None:
    shapes = [
        tuple(weight.shape)
        for weight in network_for(torch.zeros(1, 1, 50, 50), 19, 0).parameters()
        if weight.dim() > 1
    ]
    assert shapes == [(64, 1, 5, 5), (64, 64, 5, 5), (64, 64, 5, 5), (512, 64 * 49), (19, 512)]
    widths = [p.shape for p in network_for(torch.zeros(1, 162), 2, 0).parameters() if p.dim() > 1]
    assert [tuple(w) for w in widths] == [(512, 162), (512, 512), (512, 512), (512, 512), (2, 512)]


def test_what_is_not_there_says_nothing() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Air2d(NETWORK)
    with torch.no_grad():
        model.head.bias[0] = -50.0
    image = torch.randint(256, (3, 1, 50, 50), dtype=torch.uint8)
    assert (infer(model, image).centre().abs() < 1e-6).all()
    with torch.no_grad():
        model.head.bias[0] = 50.0
    said, estimate = infer(model, image).centre(), model.infer(image / 255)
    assert said.shape == (3, 3 * (4 + 4))
    torch.testing.assert_close(said[:, 8 + 4 : 16], estimate.what.mean[:, 1])


def test_learning_sees_draws_of_what_is_there_in_any_order() -> None:
    n = 2_000
    mean = torch.tensor([[1.0], [5.0], [50.0]]).expand(n, 3, 1)
    said = Inferences(
        torch.tensor([1.0, 1.0, 0.0]).expand(n, 3),
        Gaussian(mean.expand(n, 3, 3), torch.full((n, 3, 3), 1e-6)),
        Gaussian(mean, torch.full((n, 3, 1), 0.5)),
    )
    drawn = said.draw(torch.arange(n), torch.Generator().manual_seed(0)).unflatten(1, (3, 5))
    assert (drawn[:, 2] == 0).all()  # what is not there stays behind
    first = drawn[:, 0, 1].round()
    assert set(first.tolist()) == {1.0, 5.0}
    assert 0.45 < (first == 1).double().mean() < 0.55
    torch.testing.assert_close(drawn[:, :2, 1].sum(1), torch.full((n,), 6.0))
    # What an object is comes along with where it is.
    apart = drawn[:, :2, 4] - drawn[:, :2, 1]
    assert abs(apart.mean()) < 0.05
    assert 0.45 < apart.std() < 0.55


def test_the_command_writes_every_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.representation.TEST", 50)
    monkeypatch.setattr("training.representation.STEPS", 2)
    experiment = PictureExperiment(
        name="tiny", data=PictureData(form="separate-digits"), network=NETWORK
    )
    out, file = tmp_path / "run", tmp_path / "represent.json"
    described = {"experiment": experiment.model_dump(mode="json"), "seed": 0}
    save_checkpoint2d(out, Air2d(NETWORK), name="tiny", training=described)

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
        main()

    call("represent", out, "--sizes", 10, 30, "--seed", 2, "--json", file)
    figures = json.loads(file.read_text())
    assert (figures["sizes"], figures["seed"], figures["form"]) == ([10, 30], 2, "separate-digits")
    for task in ("sum", "order"):
        assert set(figures["accuracy"][task]) == {"inferences", "pixels"}
        for values in figures["accuracy"][task].values():
            assert len(values) == 2 and all(0 <= value <= 1 for value in values)
    with pytest.raises(SystemExit):
        call("represent", out, "--sizes", 0)
    assert "give numbers of labelled images" in capsys.readouterr().err

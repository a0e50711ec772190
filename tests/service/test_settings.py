from pathlib import Path

import pytest

from service.settings import (
    REPOSITORY,
    SettingsError,
    default_checkpoint,
    default_decoders,
    default_engines,
    default_threads,
    load_settings,
)


def test_environment_and_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRSCENE_PORT", "9000")
    monkeypatch.setenv("AIRSCENE_MAX_BYTES", "123")
    assert load_settings().port == 9000
    assert load_settings(port=None).max_bytes == 123
    assert load_settings(port=9001).port == 9001


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("HOST", "PORT", "ENGINES", "THREADS", "CHECKPOINT", "MAX_BYTES", "MAX_PIXELS"):
        monkeypatch.delenv(f"AIRSCENE_{key}", raising=False)
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.max_bytes == 10 * 1024 * 1024
    assert settings.engines == default_engines()
    assert settings.threads == default_threads({"engines": settings.engines})
    assert settings.decoders == default_decoders()


def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRSCENE_MAX_PIXELS", "-1")
    with pytest.raises(SettingsError, match=r"AIRSCENE_MAX_PIXELS=-1: .*greater"):
        load_settings()


def test_settings_that_do_not_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRSCENE_QUEUE_SIZE", "8")
    with pytest.raises(SettingsError, match="max_images=16 is more than queue_size=8"):
        load_settings()


def test_refinement_ends_before_its_answer_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRSCENE_REFINE_SECONDS", "45")
    with pytest.raises(SettingsError, match="refine_seconds=45 must be below max_seconds"):
        load_settings()


def test_shipped_checkpoint_of_the_working_directory_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = Path("checkpoints/tabletop")
    beside = REPOSITORY / shipped
    assert default_checkpoint() == (beside if beside.is_dir() else shipped)
    shipped.mkdir(parents=True)
    assert default_checkpoint() == shipped


@pytest.mark.parametrize(
    ("cpus", "engines", "threads"),
    [(1, 1, 1), (2, 1, 1), (4, 1, 3), (64, 1, 4), (2, 2, 1), (8, 4, 1), (64, 4, 4)],
)
def test_threads_leave_a_processor_to_the_rest(
    monkeypatch: pytest.MonkeyPatch, cpus: int, engines: int, threads: int
) -> None:
    monkeypatch.setattr("service.settings.available_cpus", lambda: cpus)
    assert default_threads({"engines": engines}) == threads
    assert load_settings(engines=engines).threads == threads


@pytest.mark.parametrize(("cpus", "engines"), [(1, 1), (2, 2), (64, 4)])
def test_an_engine_for_each_processor(
    monkeypatch: pytest.MonkeyPatch, cpus: int, engines: int
) -> None:
    monkeypatch.delenv("AIRSCENE_ENGINES", raising=False)
    monkeypatch.setattr("service.settings.available_cpus", lambda: cpus)
    assert load_settings().engines == engines

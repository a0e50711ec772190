from pathlib import Path

import pytest

from service.cpus import available_cpus, cgroup_quota
from service.settings import (
    REPOSITORY,
    SettingsError,
    default_checkpoint,
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
    for key in ("HOST", "PORT", "THREADS", "CHECKPOINT", "MAX_BYTES", "MAX_PIXELS"):
        monkeypatch.delenv(f"AIRSCENE_{key}", raising=False)
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.max_bytes == 10 * 1024 * 1024
    assert settings.threads == default_threads()


def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRSCENE_MAX_PIXELS", "-1")
    with pytest.raises(SettingsError, match=r"AIRSCENE_MAX_PIXELS=-1: .*greater"):
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


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_cgroup_v2_quota_is_the_tightest(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/a/b\n")
    assert cgroup_quota(tmp_path) is None
    write(tmp_path, "sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
    assert cgroup_quota(tmp_path) is None
    write(tmp_path, "sys/fs/cgroup/a/cpu.max", "150000 100000\n")
    assert cgroup_quota(tmp_path) == 1.5
    write(tmp_path, "sys/fs/cgroup/cpu.max", "50000 100000\n")
    assert cgroup_quota(tmp_path) == 0.5


def test_cgroup_v1_quota(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "5:memory:/x\n3:cpu,cpuacct:/x\n")
    write(tmp_path, "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n")
    write(tmp_path, "sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n")
    assert cgroup_quota(tmp_path) is None
    write(tmp_path, "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "300000\n")
    assert cgroup_quota(tmp_path) == 3


def test_no_cgroup(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None


def test_at_least_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cpus.cgroup_quota", lambda: 0.2)
    assert available_cpus() == 1


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 1), (4, 3), (64, 4)])
def test_threads_leave_a_processor_to_the_rest(
    monkeypatch: pytest.MonkeyPatch, cpus: int, threads: int
) -> None:
    monkeypatch.setattr("service.settings.available_cpus", lambda: cpus)
    assert default_threads() == threads

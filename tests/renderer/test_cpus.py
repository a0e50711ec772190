from pathlib import Path

import pytest

from renderer.cpus import available_cpus, cgroup_quota


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
    monkeypatch.setattr("renderer.cpus.cgroup_quota", lambda: 0.2)
    assert available_cpus() == 1

"""What the compose file promises to whoever starts it without reading it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert "privileged" not in service
    assert "cap_add" not in service
    for volume in service.get("volumes", []):
        assert volume.endswith(":ro") or volume.split(":")[0] in COMPOSE["volumes"]
    assert not re.search(r":latest$|^[^:]*$", service["image"]), "a tag that does not move"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_for_this_machine_unless_somebody_says_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert port.startswith("${BIND:-127.0.0.1}:")


def test_only_the_proxy_and_prometheus_can_be_reached() -> None:
    assert {name for name in SERVICES if "ports" in SERVICES[name]} == {"proxy", "prometheus"}
    inside = {name for name, network in COMPOSE["networks"].items() if network.get("internal")}
    assert set(SERVICES["airscene"]["networks"]) <= inside
    assert SERVICES["redis"]["networks"] == ["store"]
    assert "prometheus" not in {n for s in SERVICES.values() if "profiles" not in s for n in s}


def test_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (DOCKER / volume.split(":")[0]).is_file()


def test_settings_are_settings() -> None:
    """A misspelt variable would be ignored in silence."""
    known = {f"AIRSCENE_{name.upper()}" for name in Settings.model_fields} | {"AIRSCENE_BACKEND"}
    given = set(SERVICES["airscene"]["environment"])
    dockerfile = (DOCKER / "Dockerfile").read_text()
    given |= set(re.findall(r"\b(AIRSCENE_[A-Z_]+)=", dockerfile))
    assert {name for name in given if name.startswith("AIRSCENE_")} <= known


def test_times_and_sizes_fit_the_services_own() -> None:
    settings = Settings()
    nginx = (DOCKER / "nginx.conf").read_text()

    def directive(name: str) -> int:
        found = re.search(rf"^\s*{name} (\d+)[sm];", nginx, re.MULTILINE)
        assert found is not None, name
        return int(found.group(1))

    assert directive("client_max_body_size") * 2**20 > settings.max_batch_bytes
    assert directive("proxy_read_timeout") > settings.max_wait
    assert directive("proxy_read_timeout") > settings.max_seconds
    service = SERVICES["airscene"]
    delay = float(service["environment"]["AIRSCENE_DRAIN_DELAY"])
    assert delay + settings.drain_seconds < int(service["stop_grace_period"].removesuffix("s"))


def test_the_builder_is_sent_what_the_dockerfile_copies() -> None:
    """And nothing else: no data, no environment, no secrets."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = set()
    for line in (DOCKER / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            *sources, _ = line.split()[1:]
            copied |= set(sources)
    assert copied == sent
    assert all((ROOT / path).exists() for path in copied)


def test_no_addresses_of_package_registries() -> None:
    for file in [*DOCKER.iterdir(), ROOT / ".dockerignore"]:
        assert not re.search(r"https?://(?!127\.|replicas|\{)", file.read_text()), file

from pathlib import Path

import pytest
from starlette.datastructures import Headers

from service.keys import Client, Keys, load_keys
from service.settings import Settings, SettingsError

ROBOT, OTHER, ADMIN = "a" * 16, "b" * 32, "c" * 20


def find(keys: Keys, key: str) -> Client | None:
    bearer = keys.find(Headers({"Authorization": f"Bearer {key}"}))
    assert bearer == keys.find(Headers({"Authorization": f"bearer  {key} "}))
    assert bearer == keys.find(Headers({"X-API-Key": key}))
    return bearer


def test_keys_of_files_and_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, admins = tmp_path / "keys", tmp_path / "admins"
    file.write_text(f"# robots\n\narm-1: {ROBOT}\n  {OTHER}  \n")
    admins.write_text(f"{ADMIN}\n")
    monkeypatch.setenv("AIRSCENE_API_KEY_FILE", str(file))
    monkeypatch.setenv("AIRSCENE_API_KEYS", f"lab:{'d' * 16},{'e' * 16}")
    monkeypatch.setenv("AIRSCENE_ADMIN_KEY_FILE", str(admins))
    settings = Settings()
    keys = load_keys(settings)
    assert keys and keys.admins
    assert find(keys, ROBOT) == Client("arm-1")
    assert find(keys, OTHER) == Client("key-4")
    assert find(keys, "d" * 16) == Client("lab")
    assert find(keys, ADMIN) == Client("admin-1", admin=True)
    assert find(keys, "x" * 16) is None
    for secret in (ROBOT, ADMIN, "d" * 16):
        assert secret not in repr(settings) + repr(vars(keys))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ROBOT},
        {"Authorization": f"Basic {ROBOT}"},
        {"Authorization": "Bearer"},
        {"X-API-Key": ""},
        {"X-API-Key": ROBOT[:-1]},
        {"X-API-Key": f"arm-1:{ROBOT}"},
        {"X-API-Key": "ä" * 16},
        # A wrong one beside a right one: a client that does not know what it wants.
        {"Authorization": f"Bearer {OTHER}", "X-API-Key": ROBOT},
    ],
)
def test_no_key(headers: dict[str, str]) -> None:
    keys = load_keys(Settings(api_keys=f"arm-1:{ROBOT}"))  # type: ignore[arg-type]
    assert keys.find(Headers(headers)) is None


def test_none_configured() -> None:
    keys = load_keys(Settings())
    assert not keys and not keys.admins
    assert keys.find(Headers({"X-API-Key": ""})) is None


@pytest.mark.parametrize(
    "text", ["tiny-one", "name:tiny-one", "has a blank in it " + ROBOT, "ä" * 20]
)
def test_a_key_that_is_no_good_is_named_but_not_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# first line\n{text}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"keys: entry 2 .*openssl") as caught:
        load_keys(Settings(api_key_file=file))
    assert text.rpartition(":")[2] not in str(caught.value)


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"AIRSCENE_API_KEY_FILE=.*No such file"):
        load_keys(Settings(api_key_file=tmp_path / "none"))
    file = tmp_path / "keys"
    file.write_text("# none yet\n")
    with pytest.raises(SettingsError, match="has no key"):
        load_keys(Settings(admin_key_file=file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="UTF-8"):
        load_keys(Settings(api_key_file=file))

"""`Secret` by name: where it is looked up, what shows, and where a new value goes."""

import json
import multiprocessing
import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
import traceback
from base64 import b64encode
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import quote

import pytest

from tasks.errors import ConfigError, redact
from tasks.kept import KeptFile
from tasks.secret import Secret, digest, has_digest

SECRET = Secret("shop_token")
VARIABLE = "TIDEGATE_SECRET_SHOP_TOKEN"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEGATE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path / "home"


def test_it_is_looked_up_when_it_is_needed_and_not_when_it_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret("shop-token")
    monkeypatch.setenv(VARIABLE, "first-4711")
    assert secret.value() == "first-4711"
    monkeypatch.setenv(VARIABLE, "other-4711")
    assert secret.value() == "other-4711"


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_one_is_a_config_error_that_names_both_places(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigError, match=rf"'shop_token'.*{VARIABLE} or the Prefect Secret block 'shop-token'"):
        SECRET.value()


def test_it_is_a_value_that_shows_its_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "hidden-4711")
    SECRET.value()
    assert Secret("shop_token") == SECRET != Secret("other")
    assert pickle.loads(pickle.dumps(SECRET)) == SECRET
    assert repr(SECRET) == "Secret('shop_token')"
    assert b"hidden" not in pickle.dumps(SECRET)


@pytest.mark.parametrize("name", ["", "a b", "sk-live.4711", "-a", "a--b", "über", "a/../b"])
def test_a_name_that_nothing_can_have_is_a_config_error_that_does_not_quote_it(name: str) -> None:
    with pytest.raises(ConfigError, match="not its value") as caught:
        Secret(name)
    assert not name or name not in str(caught.value).replace("- and _", "")


def test_its_value_is_masked_however_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    value = 'v7/&x "q"\\ü+ y'
    monkeypatch.setenv(VARIABLE, value)
    SECRET.value()
    written = (
        value,
        quote(value, safe=""),
        quote(value, safe="").replace("%20", "+"),
        json.dumps(value),
        json.dumps(value, ensure_ascii=False),
        b64encode(value.encode()).decode(),
    )
    for text in written:
        assert "***" in redact(f"it said {text} and went on")
        assert "v7" not in redact(f"it said {text} and went on")
    assert redact(written[-1]) == "***"


def test_a_stored_value_wins_over_the_environment_it_replaced_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "first-4711")
    SECRET.store("second-4711")
    assert SECRET.value() == "second-4711"
    SECRET.store("third-4711")
    assert SECRET.value() == "third-4711"
    code = "from tasks.secret import Secret; print(Secret('shop-token').value())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "third-4711"


def test_a_new_value_in_the_environment_wins_over_a_stored_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person has set it."""
    monkeypatch.setenv(VARIABLE, "first-4711")
    SECRET.store("second-4711")
    monkeypatch.setenv(VARIABLE, "by-hand-4711")
    assert SECRET.value() == "by-hand-4711"
    SECRET.store("fourth-4711")
    assert SECRET.value() == "fourth-4711"


def test_what_is_kept_is_for_this_user_only_and_does_not_hold_the_replaced_value(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "first-4711")
    before = os.umask(0)
    try:
        with SECRET.locked():
            SECRET.store("second-4711")
    finally:
        os.umask(before)
    files = [path for path in (home / "secrets").iterdir() if path.is_file()]
    assert {path.name for path in files} == {"shop-token.json", "shop-token.lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((home / "secrets").stat().st_mode) == 0o700
    assert b"first-4711" not in b"".join(path.read_bytes() for path in files)


def test_a_stored_value_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "first-4711")
    SECRET.store("rotated-4711")
    assert redact("it said rotated-4711") == "it said ***"


def test_a_write_that_fails_leaves_the_value_before_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "first-4711")
    SECRET.store("second-4711")

    lost = "third-4711"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
    try:
        with pytest.raises(
            ConfigError, match=r"shop-token\.json under TIDEGATE_HOME cannot be written: File"
        ) as caught:
            SECRET.store(lost)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert lost not in "".join(traceback.format_exception(caught.value))
    assert SECRET.value() == "second-4711"
    assert [path.name for path in (home / "secrets").iterdir()] == ["shop-token.json"]


def test_where_nothing_can_be_kept_the_lock_says_so_before_a_token_is_spent(home: Path) -> None:
    home.write_text("in the way")
    with pytest.raises(ConfigError, match=r"cannot be written.*TIDEGATE_HOME"), SECRET.locked():
        pass


@pytest.mark.parametrize("content", [b"", b'{"value": "x', b"[]", b"\xff"])
def test_a_file_that_is_no_more_readable_is_an_error_and_not_taken_for_absent(
    home: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv(VARIABLE, "first-4711")
    SECRET.store("second-4711")
    (home / "secrets" / "shop-token.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"shop-token\.json under TIDEGATE_HOME"):
        SECRET.value()


def _hold(connection: Connection) -> None:
    with KeptFile("shop-token").locked():
        connection.send("held")
        connection.recv()


def test_a_process_that_is_killed_lets_go_of_the_lock() -> None:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_hold, args=(theirs,))
    process.start()
    assert ours.recv() == "held"
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    with SECRET.locked():
        process.join()
    assert process.exitcode == -signal.SIGKILL
    process.close()
    ours.close()
    theirs.close()


def test_a_digest_tells_whether_a_value_is_the_same() -> None:
    assert has_digest("a", digest("a")) and not has_digest("b", digest("a"))
    assert digest("a") != digest("a")

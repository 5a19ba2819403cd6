"""Settings: each is read, checked and shown without secrets; the pepper is made once."""

import subprocess
import sys
from pathlib import Path

import pytest

from toolkit import environment
from toolkit.core.errors import InvalidInput
from toolkit.core.settings import TABLE, Settings
from toolkit.environment import write_private

PEPPER, OLDER = "ab" * 32, "cd" * 32

MAKE_PEPPER = """
import sys
from toolkit import environment
sys.stdin.readline()
print(environment.keyring(environment.read_settings({"KEYDESK_DATA_DIR": sys.argv[1]})))
"""


def read(tmp_path: Path, **environ: str) -> Settings:
    """Read settings with the data in the test's folder."""
    return environment.read_settings({"KEYDESK_DATA_DIR": str(tmp_path / "data")} | environ)


def test_defaults_hold_for_what_is_not_given(tmp_path: Path) -> None:
    """An empty environment works; all data stands below one folder."""
    settings = read(tmp_path)
    assert settings.data_dir == tmp_path / "data"
    assert settings.store_url == f"sqlite:///{tmp_path / 'data' / 'keydesk.db'}"
    assert settings.ledger_root == tmp_path / "data" / "ledger"
    assert (settings.host, settings.gateway_port, settings.dashboard_port, settings.demo_port) == (
        "127.0.0.1",
        8080,
        8501,
        8090,
    )
    assert (settings.body_limit, settings.sqlite_synchronous, settings.secrets_file) == (32 * 1024**2, "FULL", None)
    times = (settings.connect_timeout, settings.first_byte_timeout, settings.idle_timeout, settings.call_timeout)
    assert (*times, settings.stream_silence) == (10, 600, 300, 3600, 15)


def test_every_setting_is_read(tmp_path: Path) -> None:
    """Each row of the table changes the settings."""
    given = {
        "KEYDESK_DATA_DIR": str(tmp_path / "elsewhere"),
        "KEYDESK_DATA_GROUP": "analysts",
        "KEYDESK_STORE_URL": "sqlite:///other.db",
        "KEYDESK_LEDGER_ROOT": str(tmp_path / "segments"),
        "KEYDESK_PEPPER": PEPPER,
        "KEYDESK_SECRETS_FILE": str(tmp_path / "secrets"),
        "KEYDESK_ALERTS_SECRETS_FILE": str(tmp_path / "mail-secrets"),
        "KEYDESK_CLIENT_CERTIFICATE": str(tmp_path / "gateway.pem"),
        "KEYDESK_CLIENT_KEY": str(tmp_path / "gateway.key"),
        "KEYDESK_UPSTREAM_CERTIFICATES": f"models={tmp_path / 'models.pem'}",
        "SSL_CERT_FILE": str(tmp_path / "authorities.pem"),
        "SSL_CERT_DIR": str(tmp_path / "authorities"),
        "HTTPS_PROXY": "http://proxy.example:3128",
        "HTTP_PROXY": "http://other.example:3128",
        "NO_PROXY": "internal.example",
        "KEYDESK_UPSTREAM_CREDENTIALS": "LOCAL_TOKEN",
        "KEYDESK_HOST": "0.0.0.0",
        "KEYDESK_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
        "KEYDESK_PUBLIC_URL": "https://llm.example.com",
        "KEYDESK_DASHBOARD_URL": "https://keydesk.example.com, http://127.0.0.1:8501",
        "KEYDESK_CORS_ORIGINS": "https://chat.example.com, app://obsidian.md",
        "KEYDESK_GATEWAY_PORT": "1",
        "KEYDESK_DASHBOARD_PORT": "65535",
        "KEYDESK_DEMO_PORT": "3",
        "KEYDESK_BODY_LIMIT": "1024",
        "KEYDESK_CONNECT_TIMEOUT": "0.5",
        "KEYDESK_FIRST_BYTE_TIMEOUT": "2",
        "KEYDESK_IDLE_TIMEOUT": "3",
        "KEYDESK_STREAM_SILENCE": "7",
        "KEYDESK_CALL_TIMEOUT": "4",
        "KEYDESK_SHUTDOWN_GRACE": "5",
        "KEYDESK_KEY_PAGE": "on",
        "KEYDESK_LEASE": "6",
        "KEYDESK_SQLITE_SYNCHRONOUS": "normal",
    }
    assert set(given) == {setting.name for setting in TABLE}
    plain = read(tmp_path)
    for name, value in given.items():
        changed = read(tmp_path, **{name: value})
        assert changed != plain, name


@pytest.mark.parametrize("name", ["KEYDESK_PORT", "KEYDESK_GATEWAY_PORTS", "KEYDESK_"])
def test_a_typo_is_refused(tmp_path: Path, name: str) -> None:
    """A variable of ours that is none is named, with those there are; other programs' are left alone."""
    with pytest.raises(InvalidInput, match=rf"{name} is not a setting.*KEYDESK_GATEWAY_PORT"):
        read(tmp_path, **{name: "1"})
    assert read(tmp_path, PORT="x", KEYDESK_TEST_ANYTHING="x") == read(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KEYDESK_GATEWAY_PORT", "0"),
        ("KEYDESK_GATEWAY_PORT", "65536"),
        ("KEYDESK_GATEWAY_PORT", "8080.5"),
        ("KEYDESK_DASHBOARD_PORT", "http"),
        ("KEYDESK_DEMO_PORT", "-1"),
        ("KEYDESK_BODY_LIMIT", "inf"),
        ("KEYDESK_BODY_LIMIT", "10"),
        ("KEYDESK_CONNECT_TIMEOUT", "0"),
        ("KEYDESK_CALL_TIMEOUT", "nan"),
        ("KEYDESK_SQLITE_SYNCHRONOUS", "OFF"),
        ("KEYDESK_TRUSTED_PROXIES", "nginx"),
        ("KEYDESK_CORS_ORIGINS", "*"),
        ("KEYDESK_KEY_PAGE", "1"),
        ("KEYDESK_UPSTREAM_CERTIFICATES", "/etc/keydesk/models.pem"),
        ("KEYDESK_UPSTREAM_CERTIFICATES", "models="),
        ("KEYDESK_UPSTREAM_CERTIFICATES", "models=a.pem, models=b.pem"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(tmp_path: Path, name: str, value: str) -> None:
    """At the start, by the variable's name."""
    with pytest.raises(InvalidInput, match=name):
        read(tmp_path, **{name: value})


def test_the_repr_shows_no_secret(tmp_path: Path) -> None:
    """Neither peppers nor a password in the store's URL."""
    settings = read(tmp_path, KEYDESK_PEPPER=PEPPER, KEYDESK_STORE_URL="postgresql://u:hunter2@h/db")
    assert PEPPER not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_what_is_in_force_says_whence_and_shows_no_secret(tmp_path: Path) -> None:
    """Each setting once, in the table's order; passwords of the store and of proxies and the pepper are left out."""
    given = {
        "KEYDESK_DATA_DIR": str(tmp_path / "data"),
        "KEYDESK_PEPPER": PEPPER,
        "KEYDESK_STORE_URL": "postgresql://keydesk:p@ss-of-store@db.example:5432/keydesk?password=another",
        "https_proxy": "http://user:pass-of-proxy@proxy.example:3128",
        "HTTP_PROXY": "user:pass-of-proxy@proxy.example:3128",
        "KEYDESK_LEASE": "45",
    }
    found = {each.name: each for each in environment.in_force(given)}
    assert list(found) == [setting.name for setting in TABLE]
    assert not [each for each in found.values() if any(part in each.value for part in (PEPPER, "pass", "another"))]
    assert found["KEYDESK_STORE_URL"].value == "postgresql://db.example:5432/keydesk"
    assert found["HTTPS_PROXY"].value == "http://proxy.example:3128"
    assert (found["KEYDESK_LEASE"].value, found["KEYDESK_LEASE"].is_given) == ("45", True)
    assert (found["KEYDESK_HOST"].value, found["KEYDESK_HOST"].is_given) == ("127.0.0.1", False)
    assert {each.name for each in found.values() if each.is_given} == {name.upper() for name in given}


def test_the_usual_variables_are_read_in_small_letters_too(tmp_path: Path) -> None:
    """As curl and Go do, which take the small ones where both are there; a proxy's password is not shown."""
    settings = read(tmp_path, https_proxy="http://u:hunter2@small:1", HTTPS_PROXY="http://large:1", no_proxy="a.test")
    assert (settings.https_proxy, settings.http_proxy, settings.no_proxy) == ("http://u:hunter2@small:1", "", "a.test")
    assert "hunter2" not in repr(settings)


def test_the_pepper_is_made_once_and_private(tmp_path: Path) -> None:
    """Mode 0600 from the first byte; the second start reads the same one."""
    settings = read(tmp_path)
    first = environment.keyring(settings).digest("x")
    path = settings.data_dir / "pepper"
    assert path.stat().st_mode & 0o777 == 0o600
    assert environment.keyring(settings).digest("x") == first
    assert [file.name for file in settings.data_dir.iterdir()] == ["pepper"]


def test_two_processes_that_start_at_once_get_the_same_pepper(tmp_path: Path) -> None:
    """One makes it, and all use that one."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE_PEPPER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    shown = {process.communicate(timeout=60)[0] for process in processes}
    assert len(shown) == 1
    assert shown == {
        f"{environment.keyring(environment.read_settings({'KEYDESK_DATA_DIR': str(tmp_path)}))}\n".encode()
    }


def test_a_pepper_that_others_may_read_is_refused(tmp_path: Path) -> None:
    """The message says how to mend it."""
    settings = read(tmp_path)
    environment.keyring(settings)
    (settings.data_dir / "pepper").chmod(0o640)
    with pytest.raises(InvalidInput, match="chmod 600"):
        environment.keyring(settings)


@pytest.mark.parametrize("text", ["", "xyz", "ab" * 31, "not hex at all", f"{PEPPER} ab"])
def test_a_broken_pepper_is_refused(tmp_path: Path, text: str) -> None:
    """An empty or short file never passes for a pepper."""
    settings = read(tmp_path)
    write_private(settings.data_dir / "pepper", text)
    with pytest.raises(InvalidInput):
        environment.keyring(settings)


def test_peppers_from_the_environment_come_before_the_file(tmp_path: Path) -> None:
    """The first signs, the others verify; no file is made."""
    ring = environment.keyring(read(tmp_path, KEYDESK_PEPPER=f"{PEPPER}, {OLDER}"))
    assert [digest.pepper_id for digest in ring.digests("x")] == [
        environment.keyring(read(tmp_path, KEYDESK_PEPPER=pepper)).digest("x").pepper_id for pepper in (PEPPER, OLDER)
    ]
    assert not (tmp_path / "data").exists()


def test_a_credential_comes_from_the_secrets_file_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is changed, replaced or taken away is seen at once: no restart to rotate a credential."""
    monkeypatch.setenv("OPENAI_KEY", "from the environment")
    file = tmp_path / "secrets"
    settings = read(tmp_path, KEYDESK_SECRETS_FILE=str(file))
    assert environment.upstream_credential(settings, "OPENAI_KEY") == "from the environment"
    file.write_text("# comment\nOTHER=1\n OPENAI_KEY = a=b \n")
    assert environment.upstream_credential(settings, "OPENAI_KEY") == "a=b"
    file.write_text("OPENAI_KEY=rotated\n")
    assert environment.upstream_credential(settings, "OPENAI_KEY") == "rotated"
    write_private(file, "OPENAI_KEY=swapped\nOPENAI_KEY=second\n")
    assert environment.upstream_credential(settings, "OPENAI_KEY") == "swapped"
    assert environment.upstream_credential(settings, "NOT_SET_ANYWHERE") is None
    file.unlink()
    assert environment.upstream_credential(settings, "OPENAI_KEY") == "from the environment"


def test_a_private_file_is_replaced_or_kept(tmp_path: Path) -> None:
    """Either way it is whole and private, and nothing temporary stays."""
    path = tmp_path / "folder" / "file"
    write_private(path, "first")
    write_private(path, "second", replace=False)
    assert path.read_text() == "first"
    write_private(path, "third")
    assert path.read_text() == "third"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "name", ["KEYDESK_PEPPER", "keydesk_store_url", "KEYDESK_X_API_KEY", "PATH", "HOME", "OPENAI_KEY", "MY_API_KEY_2"]
)
def test_what_is_no_credential_is_never_sent(tmp_path: Path, name: str) -> None:
    """Neither Keydesk's own settings, even if they are listed or in the file, nor the process's other variables."""
    assert environment.credential_fault(read(tmp_path), name)
    file = tmp_path / "secrets"
    file.write_text("KEYDESK_PEPPER=x\nkeydesk_store_url=x\nKEYDESK_X_API_KEY=x\n")
    listed = read(tmp_path, KEYDESK_SECRETS_FILE=str(file), KEYDESK_UPSTREAM_CREDENTIALS="KEYDESK_PEPPER")
    assert environment.credential_fault(listed, name)


def test_what_is_a_credential_may_be_sent(tmp_path: Path) -> None:
    """By its name's end, by being listed, or by standing in the secrets file; the file counts as it is now."""
    file = tmp_path / "secrets"
    settings = read(tmp_path, KEYDESK_SECRETS_FILE=str(file), KEYDESK_UPSTREAM_CREDENTIALS=" LOCAL_TOKEN, OTHER ")
    for name in ("OPENAI_API_KEY", "LOCAL_TOKEN", "OTHER"):
        assert environment.credential_fault(settings, name) is None
    assert "KEYDESK_UPSTREAM_CREDENTIALS" in (environment.credential_fault(settings, "FROM_FILE") or "")
    file.write_text("FROM_FILE=x\n")
    assert environment.credential_fault(settings, "FROM_FILE") is None


def test_every_name_that_a_credential_may_have_is_known(tmp_path: Path) -> None:
    """So `keydesk up` keeps them all from parts that call nobody: by ending, by the list, by the secrets file."""
    secrets = tmp_path / "secrets"
    secrets.write_text("IN_FILE=x\n# a remark\n")
    environ = {"KEYDESK_SECRETS_FILE": str(secrets), "KEYDESK_UPSTREAM_CREDENTIALS": "LISTED, LISTED_TOO"}
    settings = environment.read_settings(environ)
    assert environment.credential_names(settings, {"OPENAI_API_KEY": "x", "PATH": "x"}) == {
        "OPENAI_API_KEY",
        "LISTED",
        "LISTED_TOO",
        "IN_FILE",
    }


def test_settings_are_a_key_of_what_is_opened_once(tmp_path: Path) -> None:
    """The dashboard keeps what it has opened by its settings, those with certificates of single upstreams too."""
    one, same = (read(tmp_path, KEYDESK_UPSTREAM_CERTIFICATES="a=/a.pem") for _ in range(2))
    assert {one: "opened"}[same] == "opened"
    assert one != read(tmp_path, KEYDESK_UPSTREAM_CERTIFICATES="a=/b.pem")

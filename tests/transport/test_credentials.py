"""Tokens are kept where only their owner can read them, and searched for in a fixed order."""

import os
import stat
from pathlib import Path

import pytest

from alchemist_ray.errors import AuthenticationError
from alchemist_ray.transport.credentials import TOKEN, TOKEN_FILE, find_token, read_token, token_path, write_token

PORT = 24960


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    """Keep the tests away from the user's own tokens."""
    monkeypatch.delenv(TOKEN, raising=False)
    monkeypatch.delenv(TOKEN_FILE, raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def _open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_open_umask")
def test_a_token_is_written_for_its_owner_alone_whatever_the_umask(tmp_path):
    path = tmp_path / "a" / "b" / "token"
    write_token(path, "secret")
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert read_token(path) == "secret"


def test_writing_replaces_a_file_that_others_could_read(tmp_path):
    path = tmp_path / "token"
    path.write_text("old and longer than the new one")
    path.chmod(0o644)
    write_token(path, "new")
    assert mode(path) == 0o600
    assert read_token(path) == "new"


def test_writing_does_not_follow_a_link_planted_in_its_place(tmp_path):
    target, path = tmp_path / "elsewhere", tmp_path / "token"
    target.write_text("untouched")
    path.symlink_to(target)
    write_token(path, "secret")
    assert target.read_text() == "untouched"
    assert not path.is_symlink()


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666])
def test_a_file_that_others_can_use_is_refused_with_the_command_that_helps(tmp_path, bits):
    path = tmp_path / "token"
    write_token(path, "secret")
    path.chmod(bits)
    with pytest.raises(AuthenticationError, match=rf"open to other users \(mode {bits:04o}\). Run chmod 600 {path}$"):
        read_token(path)


@pytest.mark.parametrize("bits", [0o600, 0o400])
def test_a_file_of_its_owner_alone_is_read(tmp_path, bits):
    path = tmp_path / "token"
    write_token(path, "secret")
    path.chmod(bits)
    assert read_token(path) == "secret"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AuthenticationError, match=f"token file {tmp_path / 'none'} does not exist") as caught:
        read_token(tmp_path / "none")
    assert f"--token-file or {TOKEN_FILE}" in str(caught.value)


def test_what_names_a_file_is_named(monkeypatch, tmp_path):
    with pytest.raises(AuthenticationError, match="none, which --token-file names, does not exist"):
        read_token(tmp_path / "none", "--token-file")
    monkeypatch.setenv(TOKEN_FILE, str(tmp_path / "none"))
    with pytest.raises(AuthenticationError, match=f"none, which {TOKEN_FILE} names, does not exist"):
        find_token(PORT)


def test_a_folder_is_no_token_file(tmp_path):
    with pytest.raises(AuthenticationError, match="cannot be read"):
        read_token(tmp_path)


@pytest.mark.parametrize("text", ["", "\n", "  \n\t\n"])
def test_an_empty_file_is_refused(tmp_path, text):
    path = tmp_path / "token"
    write_token(path, text)
    with pytest.raises(AuthenticationError, match="empty"):
        read_token(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(AuthenticationError):
        read_token(path)


@pytest.mark.parametrize("written", ["secret", "secret\n", "  secret \r\n\n"])
def test_space_around_a_token_does_not_count(tmp_path, written):
    path = tmp_path / "token"
    write_token(path, written)
    assert read_token(path) == "secret"


def test_the_token_of_a_port_lies_in_the_runtime_folder_or_else_at_home(monkeypatch, tmp_path):
    assert token_path(PORT) == tmp_path / "home" / ".alchemist" / f"token-{PORT}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    assert token_path(PORT) == tmp_path / "run" / "alchemist" / f"token-{PORT}"
    assert token_path(PORT) != token_path(PORT + 1)


def test_the_environment_comes_before_the_named_file_and_that_before_the_file_of_the_port(monkeypatch, tmp_path):
    write_token(token_path(PORT), "of the port")
    assert find_token(PORT) == "of the port"
    named = Path(tmp_path / "named")
    write_token(named, "of the file")
    monkeypatch.setenv(TOKEN_FILE, str(named))
    assert find_token(PORT) == "of the file"
    monkeypatch.setenv(TOKEN, "of the variable")
    assert find_token(PORT) == "of the variable"


def test_a_named_file_that_is_missing_is_an_error_and_no_other_is_tried(monkeypatch, tmp_path):
    write_token(token_path(PORT), "of the port")
    monkeypatch.setenv(TOKEN_FILE, str(tmp_path / "none"))
    with pytest.raises(AuthenticationError, match="none"):
        find_token(PORT)


def test_the_mode_of_a_found_file_is_checked(monkeypatch, tmp_path):
    write_token(token_path(PORT), "secret")
    token_path(PORT).chmod(0o644)
    with pytest.raises(AuthenticationError, match="chmod 600"):
        find_token(PORT)


def test_no_token_anywhere_is_an_error_that_says_where_to_put_one():
    with pytest.raises(AuthenticationError, match=f"port {PORT}") as caught:
        find_token(PORT)
    assert TOKEN in str(caught.value)
    assert TOKEN_FILE in str(caught.value)


def test_an_empty_variable_is_no_token(monkeypatch):
    monkeypatch.setenv(TOKEN, "")
    with pytest.raises(AuthenticationError):
        find_token(PORT)


def test_the_token_of_another_port_is_not_used():
    write_token(token_path(PORT), "secret")
    with pytest.raises(AuthenticationError):
        find_token(PORT + 1)

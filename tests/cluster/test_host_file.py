"""Host files, and the command that ssh runs for each host."""

from __future__ import annotations

import pytest

from alchemist_ray.cluster.host_file import HostLine, read_host_file
from alchemist_ray.cluster.ssh import SshCommand
from alchemist_ray.errors import ClusterError


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a host file with a given text."""

    def read_text(text):
        path = tmp_path / "hosts.txt"
        path.write_text(text)
        return read_host_file(path)

    return read_text


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("node1", HostLine("node1")),
        ("node1:16", HostLine("node1", 16)),
        ("  node1   slots=4 # old", HostLine("node1", 4)),
        ("ada@node1:2", HostLine("ada@node1", 2)),
        ("10.0.0.1 label=gpu=yes slots=1 label=rack=", HostLine("10.0.0.1", 1, ("gpu=yes", "rack="))),
        ("node1:2 label=a=b=c", HostLine("node1", 2, ("a=b=c",))),
        ("fd00::7", HostLine("fd00::7")),
        ("[fd00::7]:3", HostLine("fd00::7", 3)),
    ],
)
def test_a_line(read, line, host):
    assert read(f"# our hosts\n\n{line}\n") == [host]


def test_hosts_stay_in_their_order(read):
    assert [line.host for line in read("c\na:2\n\nb slots=1\n")] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "names no host"),
        ("# only a comment\n", "names no host"),
        ("a\nb:0\n", "line 2: '0' is not a valid number of slots"),
        ("a:many\n", "line 1: 'many' is not a valid number of slots"),
        ("a:\n", "line 1: '' is not a valid number of slots"),
        ("a slots=-1\n", "'-1' is not a valid number of slots"),
        ("a:2 slots=2\n", "'slots=2' is not understood"),
        ("a max_slots=2\n", "'max_slots=2' is not understood: give HOST"),
        ("a label=gpu\n", "'label=gpu' is not understood"),
        ("a label==x\n", "'label==x' is not understood"),
        ("a:1\nb\na:2\n", "line 3: a is named twice: give all its slots in one line"),
        ("-oProxyCommand=x\n", "line 1: '-oProxyCommand=x' is not a valid host"),
        ("[]:1\n", "is not a valid host"),
    ],
)
def test_a_wrong_file_is_an_error_that_says_where(read, text, complaint):
    with pytest.raises(ClusterError) as raised:
        read(text)
    assert complaint in str(raised.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ClusterError, match=r"no-hosts\.txt cannot be read"):
        read_host_file(tmp_path / "no-hosts.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ClusterError, match="cannot be read"):
        read_host_file(tmp_path / "binary")


def test_the_command_of_a_host_is_one_text_for_its_shell_and_has_no_token():
    command = SshCommand(
        ssh=("ssh", "-v"),
        remote="conda run -n x alchemist",
        driver=("h1", 24960),
        token="secret",
        node_options=("--wait=5",),
    )
    assert command.argv(HostLine("h2", 4, ("note=two words",))) == [
        "ssh",
        "-v",
        "h2",
        "conda run -n x alchemist node --token-file - --until-stdin-ends --driver h1:24960 --wait=5 --slots 4 "
        "--label 'note=two words'",
    ]
    assert "secret" not in repr(command)

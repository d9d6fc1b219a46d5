"""Servers of ssh on hosts that are made of network namespaces, for tests, with keys that belong to one test run."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from namespace_hosts import Host, Hosts
from tests_support import wait_until

PROGRAMS = ("ssh", "sshd", "ssh-keygen")
SERVER = """
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/user_key.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
"""
CLIENT = """
Host *
    IdentityFile {directory}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {directory}/known_hosts
    GlobalKnownHostsFile /dev/null
    ConnectTimeout 10
"""


class SshHosts:
    """An sshd on each of some hosts. All know the same keys.

    Parameters
    ----------
    hosts : Hosts
        The hosts.
    directory : Path
        A directory that all of them see.
    """

    def __init__(self, hosts: Hosts, directory: Path) -> None:
        self.client_file = directory / "ssh_config"
        self._server_file = directory / "sshd_config"
        for name in ("host_key", "user_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
        key = (directory / "host_key.pub").read_text()
        (directory / "known_hosts").write_text("".join(f"{host.name} {key}" for host in hosts))
        self.client_file.write_text(CLIENT.format(directory=directory))
        self._server_file.write_text(SERVER.format(directory=directory))
        for host in hosts:
            self.start(host)
        for host in hosts:
            assert wait_until(lambda host=host: any(each.port == 22 for each in host.listeners()), 10)

    @property
    def command(self) -> str:
        """The ssh that reaches all hosts, with its options."""
        return f"ssh -F {self.client_file} -o BatchMode=yes"

    def start(self, host: Host) -> subprocess.Popen[bytes]:
        """Start the sshd of a host."""
        (host.root / "run/sshd").mkdir(mode=0o755, exist_ok=True)  # its child without privileges lives there
        program = shutil.which("sshd")
        assert program is not None
        return host.popen([program, "-D", "-e", "-f", self._server_file], stderr=subprocess.DEVNULL, env=os.environ)

"""The script of a Slurm job, and what ``alchemist slurm submit`` accepts. tests/hosts/test_slurm.py runs real jobs."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from alchemist_ray import cli
from alchemist_ray.cluster.slurm import SlurmJob, seconds_of

pytestmark = pytest.mark.quick

SMALL = ("slurm", "submit", "--nodes", "2", "--workers-per-node", "4")


def script_of(capsys, *arguments):
    """Return the script that the command prints."""
    assert cli.main([*SMALL, "--print", *arguments]) == 0
    return capsys.readouterr().out


def directives(script):
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("90:30", 5430),
        ("1:30:00", 5400),
        ("2-3", 183600),
        ("2-03:30", 185400),
        ("2-03:30:05", 185405),
        ("0", 0),
        ("00:00:01", 1),
    ],
)
def test_times_in_the_formats_of_slurm(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "1h", "1:2:3:4", "1-", "-1", "1-2-3", "1-2:3:4:5", "1.5", ":30", "1:", "٣", " 1"])
def test_times_that_are_not_in_a_format_of_slurm(text):
    with pytest.raises(ValueError, match="is not a valid time: give minutes, mm:ss"):
        seconds_of(text)


def test_the_script_asks_slurm_for_what_the_options_say(capsys):
    script = script_of(
        capsys, "--time", "1:00:00", "--partition", "debug", "--account", "chem", "--constraint", "[a|b]",
        "--job-name", "it's #1", "--sbatch-option", "mem=0", "--sbatch-option=-x h3", "--", "true",
    )  # fmt: skip
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    assert directives(script) == [
        """--job-name='it'"'"'s #1'""",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--cpus-per-task=4",
        "--time=1:00:00",
        "--signal=B:TERM@60",
        "--partition=debug",
        "--account=chem",
        "--constraint='[a|b]'",
        "--mem=0",
        "-x h3",
    ]


@pytest.mark.parametrize(("time", "ahead"), [("1", 15), ("3", 45), ("4", 60), ("1-0", 60), ("0", 60), ("0:01", 1)])
def test_the_signal_of_a_short_job_comes_later(time, ahead):
    job = SlurmJob(nodes=1, workers_per_node=1, program=("true",), time=time)
    assert f"--signal=B:TERM@{ahead}" in directives(job.script())


def test_without_a_time_there_is_no_limit_in_the_script(capsys):
    script = script_of(capsys, "--", "true")
    assert not [line for line in directives(script) if "--time" in line]
    assert "--signal=B:TERM@60" in directives(script)


def test_the_arguments_of_the_program_arrive_as_they_are(capsys, tmp_path):
    program = ["python", "a script.py", "--nodes", "7", "--", "$HOME `id` \"'\\", "two\nlines", "", "*"]
    script = script_of(capsys, "--", *program)
    (settings,) = [part for part in script.split("\n\n") if part.startswith("alchemist=(")]
    shown = "\nprintf '%s\\0' \"${program[@]}\"; printf '%s\\0' \"${alchemist[@]}\""
    printed = subprocess.run(["bash", "-c", settings + shown], capture_output=True, text=True, check=True).stdout
    assert printed.split("\0")[:-1] == [*program, sys.executable, "-P", "-m", "alchemist_ray.cli"]


def test_bash_can_read_the_script(capsys):
    script = script_of(
        capsys,
        "--port",
        "24960",
        "--token-dir",
        "some where",
        "--serve-option=--log-dir=a b",
        "--node-option=--label=a=b",
        "--",
        "x",
    )
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for line in ("port=24960  #", f"token_dir={shlex.quote(cli.slurm.os.path.abspath('some where'))}  #"):
        assert f"\n{line}" in script
    assert "\nserve_options=('--log-dir=a b')\n" in script
    assert "\nnode_options=(--label=a=b)\n" in script
    assert "set -euo pipefail" in script
    assert "SLURM_OVERLAP=1" in script


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([*SMALL], "name the program after --"),
        ([*SMALL, "--"], "name the program after --"),
        (["slurm", "submit", "--workers-per-node", "4", "--", "true"], "--nodes"),
        (["slurm", "submit", "--nodes", "0", "--workers-per-node", "4", "--", "true"], "not a valid number of nodes"),
        (["slurm", "submit", "--nodes", "²", "--workers-per-node", "4", "--", "true"], "not a valid number of nodes"),
        (["slurm", "submit", "--nodes", "2", "--workers-per-node", "0", "--", "true"], "not a valid number of slots"),
        ([*SMALL, "--time", "soon", "--", "true"], "'soon' is not a valid time: give minutes, mm:ss, hh:mm:ss"),
        ([*SMALL, "--partition", "a\nb", "--", "true"], "cannot be printed"),
        ([*SMALL, "--sbatch-option", "", "--", "true"], "is empty"),
        ([*SMALL, "--port", "99999", "--", "true"], "not a valid port"),
        (["slurm"], "ACTION"),
    ],
)
def test_wrong_options_are_refused(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as refused:
        cli.main(arguments)
    assert refused.value.code == 2
    assert complaint in capsys.readouterr().err


def test_without_sbatch_the_error_names_slurm_and_says_what_to_do(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main([*SMALL, "--", "true"]) == 1
    said = capsys.readouterr().err
    assert "Slurm's command sbatch was not found: run this on a login node" in said
    assert "--print" in said


def fake_sbatch(monkeypatch, directory, body):
    """Put a program in the place of sbatch."""
    program = directory / "sbatch"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def test_sbatch_gets_the_script_through_stdin(monkeypatch, tmp_path, capsys):
    fake_sbatch(monkeypatch, tmp_path, f'echo "$@" >{tmp_path}/options; cat >{tmp_path}/script; echo "17;ours"')
    assert cli.main([*SMALL, "--", "true"]) == 0
    assert capsys.readouterr().out == "Submitted job 17\n"
    assert (tmp_path / "options").read_text() == "--parsable\n"
    assert (tmp_path / "script").read_text() == script_of(capsys, "--", "true")


def test_with_wait_the_status_is_that_of_the_job(monkeypatch, tmp_path):
    fake_sbatch(monkeypatch, tmp_path, '[ "$*" = "--parsable --wait" ] || exit 9; cat >/dev/null; echo 17; exit 42')
    assert cli.main([*SMALL, "--wait", "--", "true"]) == 42


def test_a_job_that_sbatch_refuses(monkeypatch, tmp_path, capfd):
    fake_sbatch(monkeypatch, tmp_path, 'echo "sbatch: error: no such account" >&2; exit 1')
    assert cli.main([*SMALL, "--", "true"]) == 1
    said = capfd.readouterr().err
    assert "sbatch: error: no such account\nalchemist: sbatch refused the job (exit status 1)" in said

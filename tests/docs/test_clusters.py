"""The scripts for clusters: what they start is what lamina and torchrun read, and signals end as they say.

SLURM and torchrun are stood in for by small programs that record, or do, what they were asked to.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from torch.distributed.run import get_args_parser

import lamina
from helpers.options import TINY_RUN, words
from lamina.cli import main

FOLDER = Path(__file__).parents[2] / "examples" / "cluster"
DATA = "sample:photos?crop=16&most=4"
BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="the scripts need bash")

RECORD = """\
import json, os, sys
json.dump(sys.argv[1:], open(os.environ["RECORD"], "w"))
"""
SCONTROL = """\
import os, sys
if sys.argv[1:3] == ["show", "hostnames"]:
    print("127.0.0.1")
else:
    print(*sys.argv[1:], file=open(os.environ["RECORD"], "a"))
"""
SRUN = """\
import os, signal, subprocess, sys, time
from pathlib import Path
words = sys.argv[1:]
while words[0].startswith("--"):
    words.pop(0)
rows = Path(os.environ["RUN"]) / "metrics.jsonl"
task = subprocess.Popen(words, env={**os.environ, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
if os.environ.get("WARN"):  # as --signal=USR1@180: the tasks are signalled, the script is not
    while task.poll() is None and not (rows.exists() and rows.read_text()):
        time.sleep(0.05)
    task.send_signal(signal.SIGUSR1)
sys.exit(task.wait())
"""
LAMINA = "from lamina.cli import main\nimport sys\nsys.exit(main())\n"


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """An environment with programs of a cluster's names, all on this machine."""
    for name, code in {"torchrun": RECORD, "scontrol": SCONTROL, "srun": SRUN, "lamina": LAMINA}.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!{sys.executable}\n{code}")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(lamina.__file__).parents[1]),
        "RECORD": str(tmp_path / "record.txt"),
        "RUN": str(tmp_path / "run"),
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NTASKS": "1",
        "SLURM_NTASKS_PER_NODE": "1",
    }


def run(script: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    assert BASH is not None
    command = [BASH, str(FOLDER / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def started_by_torchrun(command: list[str], images: str = DATA) -> None:
    """What torchrun is told is what it reads, and lamina reads the rest: a dry run of it ends well."""
    asked = get_args_parser().parse_args(command)
    assert (asked.module, asked.training_script) == (True, "lamina")
    verb, _, *options = asked.training_script_args
    assert verb == "pretrain"
    assert "--resume" in options  # else a restart would be refused, or begin anew
    assert main([verb, images, *options, "--dry-run"]) == 0


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.sh")), ids=lambda file: file.name)
def test_a_script_is_bash(script: Path) -> None:
    assert BASH is not None
    checked = subprocess.run([BASH, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_one_node(cluster: dict[str, str], tmp_path: Path) -> None:
    done = run("one_node.sh", cluster | {"GPUS": "2"}, DATA, str(tmp_path / "run"), *words(TINY_RUN))
    assert done.returncode == 0, done.stderr
    command = json.loads(Path(cluster["RECORD"]).read_text())
    assert get_args_parser().parse_args(command).nproc_per_node == "2"
    started_by_torchrun(command)


def test_what_is_not_given_is_said(cluster: dict[str, str]) -> None:
    for script in ("one_node.sh", "slurm.sh"):
        assert "give the folder of the run" in run(script, cluster, DATA).stderr


@pytest.mark.slow
def test_slurm_queues_a_job_again_that_was_warned(cluster: dict[str, str], tmp_path: Path) -> None:
    """USR1 saves the step and ends with 75, and the job is queued again; started again it ends by itself."""
    record, out = Path(cluster["RECORD"]), tmp_path / "run"
    asked = [DATA, str(out), *words(TINY_RUN | {"batch-size": 16, "train.log-every-steps": 1})]
    first = run("slurm.sh", cluster | {"WARN": "1"}, *asked, "--max-steps", "60")
    assert first.returncode == 75, first.stdout + first.stderr
    assert record.read_text() == "requeue 17\n"
    saved = [int(path.name.removeprefix("step-")) for path in (out / "checkpoints").iterdir()]
    assert 0 < max(saved) < 60
    again = run("slurm.sh", cluster, *asked, "--max-steps", "60")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"going on at step {max(saved)} of 60" in again.stdout
    assert record.read_text() == "requeue 17\n"


def test_kubernetes(tmp_path: Path) -> None:
    service, job = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    program, *command = container["command"]
    asked = get_args_parser().parse_args(command)
    assert program == "torchrun"
    assert spec["completionMode"] == "Indexed"
    assert int(asked.nnodes) == spec["completions"] == spec["parallelism"]
    assert int(asked.nproc_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    # The first pod of an indexed Job has the host name JOB-0, and its address by the service is JOB-0.SUBDOMAIN.
    name, subdomain = job["metadata"]["name"], pod["subdomain"]
    assert asked.rdzv_endpoint == f"{name}-0.{subdomain}:29500"
    assert service["metadata"]["name"] == subdomain
    assert service["spec"]["selector"] == {"job-name": name}
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    command[command.index("--out") + 1] = str(tmp_path / "run")
    started_by_torchrun(command)

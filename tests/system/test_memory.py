"""How much memory is free: of the machine, and of the groups that limit this process."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from softlabels.system.memory import free_memory, group_memory

GIB = 1 << 30


def group(folder: Path, limit: str, used: int, cache: int, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(names, (limit, used, f"{names[2]} {cache}\nother 7"), strict=False):
        path = folder / (name if name != names[2] else "memory.stat")
        path.write_text(f"{content}\n")


V1 = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
V2 = "memory.max", "memory.current", "inactive_file"


@pytest.mark.parametrize(
    ("line", "top", "names"),
    [("0::/jobs/7", "", V2), ("4:cpu,memory:/jobs/7", "memory", V1)],
    ids=["version 2", "version 1"],
)
def test_the_tightest_group_counts(tmp_path, line, top, names):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"9:pids:/x\n{line}\n")
    place = tmp_path / "sys/fs/cgroup" / top
    group(place / "jobs/7", str(4 * GIB), 3 * GIB, GIB, names)  # what is cached is free
    group(place / "jobs", str(8 * GIB), 7 * GIB, 0, names)
    group(place, "max" if names is V2 else str(2**63 - 4096), 9 * GIB, 0, names)
    assert min(group_memory(tmp_path)) == GIB
    group(place / "jobs/7", str(4 * GIB), 5 * GIB, 0, names)
    assert min(group_memory(tmp_path)) == 0


def test_no_group_is_no_limit(tmp_path):
    assert list(group_memory(tmp_path)) == []
    assert 0 < free_memory() <= psutil.virtual_memory().total


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
def test_a_group_of_this_system():
    place = Path("/sys/fs/cgroup/memory") / f"softlabels-test-{psutil.Process().pid}"
    try:
        place.mkdir()
        (place / "memory.limit_in_bytes").write_text(str(GIB))
    except OSError:
        pytest.skip("no control group can be made here")
    script = (
        "import os, sys, pathlib; pathlib.Path(sys.argv[1]).write_text(str(os.getpid()));"
        "from softlabels.system.memory import free_memory; print(free_memory())"
    )
    try:
        done = subprocess.run([sys.executable, "-c", script, str(place / "cgroup.procs")],
                              capture_output=True, text=True, check=True)  # fmt: skip
        assert 0.8 * GIB < int(done.stdout) <= GIB
    finally:
        place.rmdir()

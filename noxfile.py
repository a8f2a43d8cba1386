"""What is checked, and how: `nox -l` lists the sessions, `nox -s NAME` runs one."""

import filecmp
import os
import shutil
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.sessions = ["tests", "lint", "proto", "docs"]
nox.options.error_on_missing_interpreters = True

GENERATED = Path("proglog_trio/_proto")
DESCRIPTORS = "descriptors.binpb"
PYTHONS = nox.project.python_versions(nox.project.load_toml("pyproject.toml"))
"""The versions that pyproject.toml names: 3.11 and so on."""


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests, those of the system excepted, in minutes; arguments go to pytest."""
    session.install("-e", ".[tests]")
    session.run("python", "-m", "pytest", *session.posargs)


def _interpreter(version: str) -> str:
    """Return where there is this version of Python, on PATH or among pyenv's; the version itself if it is nowhere."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    of_pyenv = sorted(
        (pyenv / "versions").glob(f"{version}.*/bin"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    # what pyenv puts on PATH is there for all versions, and works for those that were chosen
    on_path = [Path(directory) for directory in os.get_exec_path() if Path(directory) != pyenv / "shims"]
    found = (shutil.which(f"python{version}", path=directory) for directory in (*on_path, *of_pyenv))
    return next(filter(None, found), version)


def _tests_with(python: str) -> None:
    @nox.session(name=f"tests-{python}", python=_interpreter(python), default=False)
    def tests_with(session: nox.Session) -> None:
        """Run the tests with this version of Python; arguments go to pytest."""
        tests(session)


for each in PYTHONS:
    _tests_with(each)


@nox.session(python=_interpreter(PYTHONS[0]), venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest Python and the lowest versions that are allowed; arguments go to pytest."""
    session.install("--resolution", "lowest-direct", "-e", ".[tests]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def system(session: nox.Session) -> None:
    """Run what `tests` leaves out: many processes, foreign servers, network namespaces; arguments go to pytest."""
    session.install("-e", ".[tests]")
    session.run("python", "-m", "pytest", "-m", "system", *session.posargs)


@nox.session(python=_interpreter(PYTHONS[-1]))
def coverage(session: nox.Session) -> None:
    """Run all tests, the system's too, and report what they cover, node processes included; too little is an error."""
    session.install("-e", ".[tests]")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-m", "system or not system", *session.posargs)
    session.run("coverage", "combine")
    session.run("coverage", "report", "--show-missing", "--skip-covered")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, types, declared dependencies against imported ones, and who may import whom."""
    session.install("-e", ".[lint]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("deptry", "proglog_trio")
    session.run("lint-imports")


@nox.session(default=False)
def changelog(session: nox.Session) -> None:
    """Show the section that newsfragments/ make; with `-- 0.2.0`, write it into CHANGELOG.md and delete them."""
    session.install("-e", ".[lint]")
    arguments = ("--yes", "--version", *session.posargs) if session.posargs else ("--draft", "--version", "unreleased")
    session.run("towncrier", "build", *arguments)


@nox.session
def proto(session: nox.Session) -> None:
    """Generate the protocol's code and fail if what is committed differs; with `-- --write`, write it."""
    session.install(".[proto]")
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory)
        session.run(
            "python", "-m", "grpc_tools.protoc", "-I", "proto",
            f"--python_betterproto2_out={fresh}",
            "--python_betterproto2_opt=client_generation=none",
            f"--descriptor_set_out={fresh / DESCRIPTORS}", "--include_imports",
            *sorted(str(path.relative_to("proto")) for path in Path("proto").rglob("*.proto")),
        )  # fmt: skip
        if "--write" in session.posargs:
            shutil.rmtree(GENERATED)
            shutil.copytree(fresh, GENERATED)
            return
        differing = _differences(fresh, GENERATED)
    if differing:
        session.error(f"{', '.join(differing)} in {GENERATED}: not what proto/ gives; run nox -s proto -- --write")


def _differences(fresh: Path, committed: Path) -> list[str]:
    names = {
        str(path.relative_to(root))
        for root in (fresh, committed)
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    _, mismatched, missing = filecmp.cmpfiles(fresh, committed, sorted(names), shallow=False)
    return sorted({*mismatched, *missing})


@nox.session
def docs(session: nox.Session) -> None:
    """Check what pages have from the code (`-- --write` writes it), and build them; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run("python", "docs/generated.py", *session.posargs)
    shutil.rmtree("docs/_build", ignore_errors=True)
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-b", "html", "docs", "docs/_build/html")


@nox.session
def bench(session: nox.Session) -> None:
    """Run one benchmark: `nox -s bench -- log`; further arguments go to it."""
    known = sorted(path.stem for path in Path("benchmarks").glob("[!_]*.py") if "__main__" in path.read_text())
    if not session.posargs or session.posargs[0] not in known:
        session.error(f"say which benchmark: nox -s bench -- {'|'.join(known)}")
    session.install(".[bench,tests]")
    session.run("python", "-m", f"benchmarks.{session.posargs[0]}", *session.posargs[1:])


@nox.session
def crash(session: nox.Session) -> None:
    """Kill a node under load 200 times; `-- --crash-seed N` replays one run."""
    session.install("-e", ".[tests]")
    session.run("python", "-m", "pytest", "-n", "0", "tests/crash", "-v", "--crash-rounds", "200", *session.posargs)


@nox.session
def chaos(session: nox.Session) -> None:
    """Kill, stop, cut off and damage five nodes under load for minutes; `-- --chaos-seed N` decides on the faults."""
    session.install("-e", ".[tests]")
    options = ("-n", "0", "-m", "system", "-v", "-s", "--chaos-seconds", "180")
    session.run("python", "-m", "pytest", "tests/chaos", *options, *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Look for new counter-examples, for hours: 5,000 random examples a property; `-- tests/log` for a part.

    Among them is a mixed cluster of 30 that loses packets: `-- tests/soak --soak-seconds 600`.
    """
    session.install("-e", ".[tests]")
    unlimited = ("-n", "0", "-m", "system or not system", "-o", "timeout=0", "-o", "faulthandler_timeout=0")
    cluster = ("--soak-seconds", "600")
    environment = {"HYPOTHESIS_PROFILE": "long"}
    session.run("python", "-m", "pytest", "-v", *unlimited, *cluster, *(session.posargs or ["tests"]), env=environment)


@nox.session
def cycles(session: nox.Session) -> None:
    """Have clients come to a node and leave it 10,000 times on each backend, the node killed and stopped meanwhile."""
    session.install("-e", ".[tests]")
    options = ("-n", "0", "-v", "-s", "-o", "timeout=0", "-o", "faulthandler_timeout=0", "--cycles", "10000")
    session.run("python", "-m", "pytest", "tests/cycles", *options, *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Give a million hostile inputs to everything that reads bytes; `-- packets --cases 5000000 --seed 2` for more."""
    session.install("-e", ".[fuzz,tests]")
    session.run("python", "-m", "fuzz", *session.posargs)


@nox.session
def holds(session: nox.Session) -> None:
    """Measure how long hostile input holds a node's loop, and fail above 10 ms; `-- filters events` for some cases."""
    session.install("-e", ".[tests]")
    session.run("python", "-m", "fuzz.holds", *session.posargs)

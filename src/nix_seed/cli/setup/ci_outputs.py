"""The input ``outputs`` of CI steps: a seed's job keeps what it builds, and ``use`` serves it.

``nix-seed ci served`` tells what later steps took of that.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from nix_seed.cli.lazily import lazily
from nix_seed.cli.options import state_directory
from nix_seed.cli.outputs.options import branch_at_hand
from nix_seed.cli.say import answer
from nix_seed.cli.setup.ci_job import CiJob
from nix_seed.cli.setup.ci_report import served_summary, served_text
from nix_seed.core import canonical_json
from nix_seed.core.errors import CouldNotCheck, NixSeedError
from nix_seed.core.files import cache_directory, explained
from nix_seed.core.processes import own_command
from nix_seed.core.values import dataclass
from nix_seed.formats.oci.reference import Reference
from nix_seed.setup.ci_host import CiHost
from nix_seed.setup.rules.ci_inputs import parse_switch

with lazily():
    from nix_seed.outputs import server
    from nix_seed.release import load
    from nix_seed.setup import ci_outputs, ci_seed


_NO_POLICY: Final = "there is no trust.toml, which says whose outputs may be taken"
_HOURS: Final = 6  # GitHub's longest job
_PATIENCE: Final = 30  # seconds
_LOOPBACK: Final = re.compile(r"http://127\.0\.0\.1:([0-9]{1,5})\Z")
_LONGEST: Final = 1 << 20  # bytes of its answer
SERVED_AT: Final = "NIX_SEED_SERVED"
"""The variable by which a later step finds what serves kept outputs."""


def wanted(job: CiJob) -> bool:
    """Whether the job takes and keeps outputs; ``InputError`` for what is no switch."""
    return parse_switch(job.options["kept_outputs"] or "false", "outputs")


def keep_outputs(
    job: CiJob, publication: ci_seed.Publication | None, result: ci_seed.SeedResult
) -> ci_outputs.OutputsResult | None:
    """Build the project's outputs in its seed, and keep what is new, where that is asked.

    Who may not publish neither builds nor keeps. Seeds are as good without: whatever goes wrong is
    a warning.
    """
    if not wanted(job) or publication is None:
        return None
    if job.policy is None or publication.attester is None:
        reason = _NO_POLICY if job.policy is None else "nobody signs them: signing is none"
        job.host.annotate("notice", "Outputs are not kept", reason)
        return None

    work = ci_outputs.OutputsJob(
        load.verifiers_of(job.policy, job.stores, state_directory()),
        job.repository,
        Reference.parse(result.reference),
        publication.tree,
        publication.attester,
        result.system,
        cache_directory(),
        job.policy.policy.licences,
        branch_at_hand(),
    )
    try:
        return work.make()
    except NixSeedError as error:
        reason = f"{error.message} ({error.hint})" if error.hint else error.message
        job.host.annotate("warning", "Outputs are not kept", reason)
        return None


@dataclass(frozen=True, slots=True)
class ServedOutputs:
    """A binary cache at *url*, which signs by *key*; what it does it tells in the file *log*."""

    place: str
    url: str
    key: str
    log: Path

    def settings(self, alone: bool) -> str:
        """Return the lines of nix.conf that name it: *alone*, or beside the caches there are."""
        extra = "" if alone else "extra-"
        lines = {
            f"{extra}substituters": self.url,
            f"{extra}trusted-public-keys": self.key,
            "substitute": "true",
            "fallback": "true",
            "narinfo-cache-negative-ttl": "0",
        }
        return "\n".join(f"{name} = {value}" for name, value in lines.items())


def serve_outputs(job: CiJob) -> ServedOutputs | None:
    """Start what serves kept outputs to the steps that follow, where that is asked.

    It is on loopback, reads and never writes, and ends with the job, or after some hours. Without
    it everything is built: whatever goes wrong is a notice.
    """
    if not wanted(job):
        return None
    try:
        return _serve(job)
    except NixSeedError as error:
        job.host.annotate("notice", "Outputs are not taken", error.message)
        return None


def _serve(job: CiJob) -> ServedOutputs:
    policy, place = job.flake.policy, str(job.repository)
    if policy is None:
        raise CouldNotCheck(_NO_POLICY)
    arguments = ["outputs", "serve", place, "--policy", str(policy.absolute()), "--port", "0"]
    arguments += ["--hours", str(_HOURS), "--state", str(state_directory().absolute())]
    ca_file = job.options["ca_file"]
    arguments += ["--ca-file", ca_file] if ca_file else []
    # Not by its environment, which every build of this user could read.
    arguments += ["--username", job.user, "--password-stdin"] if job.token else []
    with explained("starting the cache of outputs"):
        handle, name = tempfile.mkstemp(".log", "outputs-", os.environ.get("RUNNER_TEMP") or None)
        with open(handle, "w") as log:
            process = subprocess.Popen(
                own_command(arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(f"{job.token}\n" if job.token else "")
    lines = [process.stdout.readline().split() for _ in range(2)]
    if [each[:1] for each in lines] != [["serving:"], ["key:"]]:
        process.wait(_PATIENCE)
        raise CouldNotCheck(f"no outputs are served from {place}: {Path(name).read_text().strip()}")
    return ServedOutputs(place, lines[0][1], lines[1][1], Path(name))


def tell_served() -> None:
    """Say on the run's page what later steps took; that nothing was served is an answer as well."""
    told = _ask_served(os.environ.get(SERVED_AT, ""))
    CiHost().add_summary(served_summary(told))
    answer({} if told is None else told, served_text(told))


def _ask_served(url: str) -> dict[str, Any] | None:
    """Return what the cache at *url* tells, None where there is none; it is of this machine."""
    found = _LOOPBACK.match(url)
    if found is None:
        return None
    connection = HTTPConnection("127.0.0.1", int(found[1]), timeout=_PATIENCE)
    try:
        connection.request("GET", server.SERVED)
        told = canonical_json.loads(connection.getresponse().read(_LONGEST), label=url)
        kinds = {"taken": int, "bytes": int, "millis": int, "reasons": list}
        if isinstance(told, dict) and all(type(told.get(n)) is k for n, k in kinds.items()):
            return told
    except (OSError, OverflowError, HTTPException, NixSeedError):
        pass
    finally:
        connection.close()
    return None

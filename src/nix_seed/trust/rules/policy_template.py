"""The policies that ``policy init`` and ``init`` write: short, commented, to be edited."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from nix_seed.core.digests import Digest
from nix_seed.core.values import dataclass


@dataclass(frozen=True, slots=True)
class Workflow:
    """A job that signs by its certificate; *repository* as in ``CertificateIdentity``.

    *about* is the comment above it, *where* pairs such as ``("operator", "github.com")``.
    """

    id: str
    about: str
    issuer: str
    subject: str
    repository: str
    where: tuple[tuple[str, str], ...]

    @property
    def identity(self) -> str:
        """The keys of a policy that name it."""
        lines = f'issuer = "{self.issuer}"\nsubject = "{self.subject}"\n'
        return lines + (f'repository = "{self.repository}"\n' if self.repository else "")


_HEAD = """\
# Whom to believe about this project's images, and how many of them.
# Check it with `nix-seed policy check`; docs/verify.md explains every key.

version = 1
epoch = {epoch:<27}# raise it with every change
expires = {expires:%Y-%m-%dT00:00:00Z}     # nobody trusts it unawares after that
systems = [{systems}]
{source}{accepts}
[quorum]
threshold = {threshold}                      # so many builders must say the same ...
distinct = ["operator"]            # ... no two of which share an operator
logs = {logs}                           # transparency logs that must hold each word
{promoters}witnesses = 0                      # witnesses under each log's checkpoint

[built]
requireBuiltHere = false           # true: nothing may come from a binary cache
requireSandbox = false
refuseReusedLayers = false

"""

_HOSTED = (
    Workflow(
        "github",
        "A workflow on GitHub, by the identity in its Sigstore certificate.",
        "https://token.actions.githubusercontent.com",
        "https://github.com/{}/.github/workflows/seed.yml@refs/heads/main",
        "",
        (("operator", "github.com"), ("provider", "azure"), ("jurisdiction", "US")),
    ),
    Workflow(
        "gitlab",
        "A pipeline on GitLab.",
        "https://gitlab.com",
        "https://gitlab.com/{}//.gitlab-ci.yml@refs/heads/main",
        "",
        (("operator", "gitlab.com"), ("provider", "gcp"), ("jurisdiction", "US")),
    ),
)

_PROMOTERS = """\
promoters = 1                      # so many of those below must sign a release
"""

_PROMOTER = """\
# Who releases: the workflow's last job, once every system's quorum is met.
[[promoters]]
"""

_PROMOTER_KEY = """\
# Who releases, with a key of its own, once every system's quorum is met.
[[promoters]]
id = "{id}"
key = \"\"\"
{pem}\"\"\"

"""

_REKOR = """\
# Sigstore's public log, with the key that its trusted root gives.
[[logs]]
id = "rekor"
kind = "rekor-v1"
origin = "rekor.sigstore.dev"
url = "https://rekor.sigstore.dev"
key = "{key}"
operator = "sigstore.dev"

"""

_SIGSTORE = """\
# Judges the certificates of those above: the public Sigstore's trusted root, or your own's.
# `cosign trusted-root create` writes one. The file lies beside this one.
[sigstore]
trustedRoot = "trusted_root.json"

"""

_KEY = """\
# A builder with a key of its own: `nix-seed key generate` makes one.
[[builders]]
id = "{id}"
operator = "{id}"
key = \"\"\"
{pem}\"\"\"
# systems = ["x86_64-linux"]       # all of the above, unless said
# notBefore = 2026-01-01T00:00:00Z
# revokedAt = 2026-06-01T00:00:00Z # what is proved to be older still counts

"""


_LOG = """\
# What `nix-seed attest` writes to and `nix-seed verify` demands. A URL would do as well.
[[logs]]
id = "log"
kind = "tiles"
origin = "{origin}"
key = "{key}"
url = "{url}"

"""


@dataclass(frozen=True, slots=True)
class PolicyTemplate:
    """What a new policy is to say; *repository* adds a builder on GitHub and one on GitLab.

    *keys* and *promoters* are pairs of (id, PEM); *log* is the place and verifier key of a tile
    log, *rekor_key* the public Rekor's. *workflows* build, and promote; so do the keys of
    *promoters*. *accepts* are earlier policies, each with its number of systems, and *before* is
    who was one of *workflows* by them: another name of one, which counts for no majority.
    """

    expires: datetime
    systems: Sequence[str]
    repository: str | None = None
    source: str | None = None
    keys: Sequence[tuple[str, str]] = ()
    log: tuple[str, str] | None = None
    workflows: Sequence[Workflow] = ()
    rekor_key: str | None = None
    promoters: Sequence[tuple[str, str]] = ()
    epoch: int = 1
    accepts: Sequence[tuple[Digest, int]] = ()
    before: Workflow | None = None

    def render(self) -> str:
        """Return the policy; its threshold is a majority of the builders."""
        return "".join(self._parts()).rstrip() + "\n"

    def _parts(self) -> Iterator[str]:
        named = [*self.workflows, *([self.before] if self.before else [])]
        hosted = [
            replace(each, subject=each.subject.format(self.repository))
            for each in (_HOSTED if self.repository else ())
        ]
        number = len(self.keys) + len(self.workflows) + len(hosted)
        earlier = "".join(f'  {{policy = "{p}", systems = {n}}},\n' for p, n in self.accepts)
        yield _HEAD.format(
            expires=self.expires,
            systems=", ".join(f'"{system}"' for system in self.systems),
            source=f'source = "{self.source}"\n' if self.source else "",
            epoch=self.epoch,
            accepts=f"# Earlier policies, whose releases still stand.\naccepts = [\n{earlier}]\n"
            if earlier
            else "",
            threshold=number // 2 + 1,
            logs=(self.log is not None) + (self.rekor_key is not None),
            promoters=_PROMOTERS if self.workflows or self.promoters else "",
        )
        for each in (*hosted, *named):
            yield f'# {each.about}\n[[builders]]\nid = "{each.id}"\n{each.identity}'
            yield "".join(f'{name} = "{value}"\n' for name, value in each.where) + "\n"
        if self.repository or self.workflows:
            yield _SIGSTORE
        yield from (_KEY.format(id=name, pem=pem) for name, pem in self.keys)
        if self.log is not None:
            place, key = self.log
            yield _LOG.format(url=place, key=key, origin=key.partition("+")[0])
        if self.rekor_key is not None:
            yield _REKOR.format(key=self.rekor_key)
        for each in named:
            yield f'{_PROMOTER}id = "{each.id}"\n{each.identity}\n'
        yield from (_PROMOTER_KEY.format(id=name, pem=pem) for name, pem in self.promoters)

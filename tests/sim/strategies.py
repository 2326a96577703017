"""What an adversary does with what it controls: plans, not noise.

Each strategy takes a scene and a ``Power`` and returns what the victim is shown. A registry that is
not controlled shows everything to everyone; one that is shows each what the adversary likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nix_seed.core.digests import Digest
from nix_seed.core.errors import NixSeedError
from nix_seed.formats.intoto.bundle import Bundle
from nix_seed.formats.intoto.statement import (
    PAYLOAD_TYPE,
    PROMOTION_TYPE,
    Commit,
    Envelope,
    PromotionPredicate,
    promotion_statement,
)
from nix_seed.formats.oci.manifest import ANNOTATION_SYSTEM, About, Index, MediaType
from nix_seed.release.records import MEMBER_TYPE, attach_documents, attach_record, record_subject
from nix_seed.release.rules.tree import Evidence, build_release
from nix_seed.trust.attestations import (
    commit_subject,
    gather,
    list_bundle,
    list_document,
    promotions,
)
from nix_seed.trust.sign import log_signed
from sim.scene import SOURCE, Scene, TinyImage
from sim.transports import MemoryLog, MemoryStore

__all__ = ["STRATEGIES", "Attack", "Power", "Shown", "Strategy", "used_by"]


@dataclass(frozen=True, slots=True)
class Power:
    """What the adversary controls: how many of each, and whether the registry."""

    builders: int
    logs: int
    promoters: int
    registry: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """What the victim sees: a registry, logs, and the tag *latest* there."""

    store: MemoryStore
    logs: Sequence[MemoryLog]


@dataclass(frozen=True, slots=True)
class Attack:
    """A scene under attack, on *commit*; *old* was released before it."""

    scene: Scene
    power: Power
    commit: Commit
    old: Commit

    @property
    def builders(self) -> tuple[str, ...]:
        """Whose keys are stolen."""
        return tuple(self.scene.cast.builders)[: self.power.builders]

    @property
    def promoters(self) -> tuple[str, ...]:
        """Whose keys are stolen."""
        return tuple(self.scene.cast.promoters)[: self.power.promoters]

    def view(self, *hidden: Digest) -> MemoryStore:
        """What the victim will be shown: all there is, but for what may be *hidden*."""
        if not self.power.registry:
            return self.scene.store
        store = self.scene.store.copy()
        for subject in hidden:
            store.hide(subject)
        return store

    def backdoored(self) -> Mapping[str, TinyImage]:
        """The release with a backdoor in one system's image."""
        good = self.scene.truth[self.commit]
        system = next(iter(good))
        return {**good, system: TinyImage.of(f"backdoor in {self.commit}", system)}

    def sign_record(
        self,
        store: MemoryStore,
        images: Mapping[str, TinyImage],
        who: Iterable[str],
        logs: Sequence[MemoryLog] | None = None,
        **changes: object,
    ) -> PromotionPredicate:
        """Sign, log and publish a record over *images* by hand, and move ``latest``."""
        scene = self.scene
        for image in images.values():
            image.put(store)
        release = build_release(self.commit, {s: (i.nar_hash, i.digest) for s, i in images.items()})
        evidence = Evidence(release, ())
        about = About(SOURCE, str(self.commit)).annotations()
        index = Index(tuple(images[s].descriptor for s in sorted(images)), about).dump()
        said = PromotionPredicate(
            SOURCE,
            self.commit,
            release.root,
            release.head.size,
            Digest.of(index),
            scene.cast.policy.digest,
            scene.cast.policy.epoch,
            evidence.digest,
            (),
        )
        said = replace(said, **changes)  # type: ignore[arg-type]
        payload = promotion_statement(said).dump()
        for name in who:
            signed = scene.cast.promoters[name].sign(PAYLOAD_TYPE, payload)
            chosen = scene.logs if logs is None else logs
            bundles = [b.dump() for b in log_signed(signed, chosen)] or [signed.bundle.dump()]
            attach_record(store, said, len(index), bundles)
        attach_documents(store, Digest.of(payload), release, evidence)
        store.put_manifest(index, MediaType.INDEX, "latest")
        store.put_manifest(index, MediaType.INDEX, str(self.commit))
        return said

    def tempt(self, store: MemoryStore) -> None:
        """Have honest promoters, who know only this *store*, promote what they find there."""
        for name in self.scene.cast.promoters:
            try:
                self.scene.promote(name, self.commit, store)
            except NixSeedError:
                return

    def everything_of(self, commit: Commit) -> list[Digest]:
        """Every subject under which honest words about *commit* lie."""
        found = [image.digest for image in self.scene.truth[commit].values()]
        for each in promotions(gather([self.scene.store], [commit.key])):
            payload = Bundle.parse(each.text, "x").envelope.payload
            found.append(Digest.of(payload))
        return [commit.key, *found]


Strategy = Callable[[Attack], Shown]


def stolen_keys(attack: Attack) -> Shown:
    """Attest and promote a backdoor with every stolen key; hide who says otherwise."""
    store = attack.view(*attack.everything_of(attack.commit))
    images = attack.backdoored()
    attack.scene.attest(attack.builders, images.values(), attack.commit, store)
    attack.sign_record(store, images, attack.promoters)
    return Shown(store, attack.scene.logs)


def tempted_promoters(attack: Attack) -> Shown:
    """The same before anyone else has built, and the honest promoters are asked to sign."""
    store = attack.view(*attack.everything_of(attack.commit))
    images = attack.backdoored()
    attack.scene.attest(attack.builders, images.values(), attack.commit, store)
    attack.tempt(store)
    return Shown(store, attack.scene.logs)


def private_logs(attack: Attack) -> Shown:
    """As with stolen keys, but in histories that controlled logs show to the victim alone."""
    scene, power = attack.scene, attack.power
    store = attack.view(*attack.everything_of(attack.commit))
    forks = [log.fork() for log in scene.logs[: power.logs]]
    images = attack.backdoored()
    if len(forks) >= scene.cast.terms.needed:
        scene.attest(attack.builders, images.values(), attack.commit, store, forks)
    attack.sign_record(store, images, attack.promoters, forks)
    return Shown(store, [*forks, *scene.logs[power.logs :]])


def second_root(attack: Attack) -> Shown:
    """Leave the honest release where it is, and sign another beside it."""
    store = attack.view(*(i.digest for i in attack.scene.images(attack.commit)))
    images = attack.backdoored()
    attack.scene.attest(attack.builders, images.values(), attack.commit, store)
    attack.sign_record(store, images, attack.promoters)
    return Shown(store, attack.scene.logs)


def replayed_release(attack: Attack) -> Shown:
    """Give out an older release, with known holes, as that of the commit that is asked for."""
    scene = attack.scene
    store = attack.view(*attack.everything_of(attack.commit))
    images = scene.truth[attack.old]
    for subject in (attack.old.key, *(image.digest for image in images.values())):
        for item in tuple(store.listed.get(subject, {}).values()):
            store.listed.setdefault(attack.commit.key, {})[item.digest] = item
    for each in promotions(gather([store], [attack.old.key])):
        list_bundle(store, commit_subject(attack.commit), each.text, PROMOTION_TYPE)
    scene.attest(attack.builders, images.values(), attack.commit, store)
    attack.sign_record(store, images, attack.promoters)
    return Shown(store, scene.logs)


def impersonation(attack: Attack) -> Shown:
    """Make few keys look like many: other names, other keys, transplanted signatures."""
    scene = attack.scene
    store = attack.view(*attack.everything_of(attack.commit))
    images = attack.backdoored()
    scene.attest(attack.builders, images.values(), attack.commit, store)
    keys = [scene.cast.builders[name] for name in attack.builders] or [scene.cast.stranger]
    for name in set(scene.cast.builders) - set(attack.builders):
        for image in images.values():
            for key in (scene.cast.stranger, keys[0]):
                signed = scene.sign_build(name, image, attack.commit, key)
                scene.attach(signed, image, attack.commit, store)
            _transplant(attack, name, image, store)
    attack.sign_record(store, images, attack.promoters)
    said = attack.sign_record(store, images, attack.promoters)
    payload = promotion_statement(said).dump()
    stranger = scene.cast.stranger.sign(PAYLOAD_TYPE, payload)
    attach_record(store, said, 1, [b.dump() for b in log_signed(stranger, scene.logs)])
    return Shown(store, scene.logs)


def _transplant(attack: Attack, name: str, image: TinyImage, store: MemoryStore) -> None:
    """Put the honest signature of *name* under what it did not say."""
    scene = attack.scene
    honest = scene.truth[attack.commit][image.system]
    true = scene.sign_build(name, honest, attack.commit)
    false = scene.sign_build(name, image, attack.commit, scene.cast.stranger)
    envelope = Envelope(PAYLOAD_TYPE, false.envelope.payload, true.envelope.signatures)
    scene.attach(replace(true, envelope=envelope), image, attack.commit, store)


def incomplete_release(attack: Attack) -> Shown:
    """Release one system and keep the other: its users go without their fixes."""
    store = attack.view(*attack.everything_of(attack.commit))
    good = attack.scene.truth[attack.commit]
    one = dict([next(iter(good.items()))])
    attack.scene.attest(attack.builders, one.values(), attack.commit, store)
    attack.sign_record(store, one, attack.promoters)
    return Shown(store, attack.scene.logs)


def swapped_documents(attack: Attack) -> Shown:
    """Sign nothing: exchange what the registry serves, and move the tags."""
    store = attack.view()
    images = attack.backdoored()
    for image in images.values():
        image.put(store)
    index = Index(tuple(images[s].descriptor for s in sorted(images))).dump()
    for tag in ("latest", str(attack.commit)):
        store.put_manifest(index, MediaType.INDEX, tag)
    release = build_release(attack.commit, {s: (i.nar_hash, i.digest) for s, i in images.items()})
    for each in promotions(gather([store], [attack.commit.key])):
        record = Digest.of(Bundle.parse(each.text, "x").envelope.payload)
        if attack.power.registry:
            store.hide(record)
        for system in images:
            text = release.proof(system).dump()
            where = {ANNOTATION_SYSTEM: system}
            list_document(store, record_subject(record), text, MEMBER_TYPE, where)
    for good in attack.scene.images(attack.commit):
        bad = images[good.system]
        for item in tuple(store.listed.get(good.digest, {}).values()):
            store.listed.setdefault(bad.digest, {})[item.digest] = item
    return Shown(store, attack.scene.logs)


def foreign_policy(attack: Attack) -> Shown:
    """Promote by a policy of the adversary's own, or under a claim of another epoch."""
    store = attack.view(*attack.everything_of(attack.commit))
    images = attack.backdoored()
    attack.scene.attest(attack.builders, images.values(), attack.commit, store)
    attack.sign_record(store, images, attack.promoters, policy=Digest.of(b"mine"))
    attack.sign_record(store, images, attack.promoters, epoch=9)
    return Shown(store, attack.scene.logs)


def rolled_back(attack: Attack) -> Shown:
    """Forget the commit: its records, its attestations, and the controlled logs' last leaves."""
    scene, power = attack.scene, attack.power
    store = attack.view(*attack.everything_of(attack.commit))
    images = scene.truth[attack.old]
    about = About(SOURCE, str(attack.old)).annotations()
    index = Index(tuple(images[s].descriptor for s in sorted(images)), about).dump()
    for tag in ("latest", str(attack.commit)):
        store.put_manifest(index, MediaType.INDEX, tag)
    old = [log.fork(size=1) for log in scene.logs[: power.logs]]
    return Shown(store, [*old, *scene.logs[power.logs :]])


def unlogged(attack: Attack) -> Shown:
    """Sign, and let no log know."""
    store = attack.view(*attack.everything_of(attack.commit))
    images = attack.backdoored()
    for image in images.values():
        image.put(store)
        for name in attack.builders:
            bundle = attack.scene.sign_build(name, image, attack.commit).bundle.dump()
            list_bundle(store, image.descriptor, bundle, PROMOTION_TYPE)
            list_bundle(store, commit_subject(attack.commit), bundle, PROMOTION_TYPE)
    attack.sign_record(store, images, attack.promoters, ())
    return Shown(store, attack.scene.logs)


_KEYS = ("builders", "promoters", "registry")
_USES: dict[Strategy, tuple[str, ...]] = {
    stolen_keys: _KEYS,
    tempted_promoters: ("builders", "registry"),
    private_logs: ("builders", "logs", "promoters", "registry"),
    second_root: _KEYS,
    replayed_release: _KEYS,
    impersonation: _KEYS,
    incomplete_release: _KEYS,
    swapped_documents: ("registry",),
    foreign_policy: _KEYS,
    rolled_back: ("logs", "registry"),
    unlogged: _KEYS,
}
STRATEGIES: dict[str, Strategy] = {each.__name__.replace("_", " "): each for each in _USES}


def used_by(strategy: str, power: Power) -> Power:
    """Return *power* without what *strategy* makes no use of: both play alike."""
    used = _USES[STRATEGIES[strategy]]
    return Power(
        power.builders if "builders" in used else 0,
        power.logs if "logs" in used else 0,
        power.promoters if "promoters" in used else 0,
        power.registry and "registry" in used,
    )

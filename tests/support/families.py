"""Real families of registries, each by what a public report says it answers."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from support.quirks import INDEX, Query, Quirk, Reply, page, refuse

Go = Callable[[], Reply]


@dataclass(frozen=True, slots=True)
class Family:
    """A *quirk* of real registries, with the public *report* of it.

    *api*: it has the referrers API; *server* are further members of it. *refused* gives, for a
    verb that cannot be done there, a part of what is said.
    """

    name: str
    report: str
    quirk: Quirk
    api: bool = False
    refused: tuple[tuple[str, str], ...] = ()
    server: Mapping[str, Any] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {}
_GITHUB = "https://github.com/"


def family(report: str, *, api: bool = False, **refused: str) -> Callable[[Quirk], Quirk]:
    """Enter a quirk under its own name."""

    def put(quirk: Quirk) -> Quirk:
        name = quirk.__name__.replace("_", "-")
        assert name not in FAMILIES
        FAMILIES[name] = Family(name, _GITHUB + report, quirk, api, tuple(refused.items()))
        return quirk

    return put


@family("opencontainers/distribution-spec/pull/563")
def none(query: Query, go: Go) -> Reply:
    return go()


@family("opencontainers/distribution-spec/issues/359", api=True)
def none_with_the_api(query: Query, go: Go) -> Reply:
    return go()


@family("helm/helm/issues/31567")
def quay_refuses_readers_of_what_is_not_there_yet(query: Query, go: Go) -> Reply:
    if query.method in ("HEAD", "GET") and not query.server.exists(query.repository):
        return go() if "push" in query.actions else refuse(401, "UNAUTHORIZED")
    return go()


@family("google/go-containerregistry/pull/1691")
def artifactory_forbids_absent_tags(query: Query, go: Go) -> Reply:
    reply = go()
    return refuse(403, "DENIED") if query.is_tag and reply.status == 404 else reply


@family("quay/quay/pull/3071")
def quay_has_no_list_for_an_unknown_manifest(query: Query, go: Go) -> Reply:
    return refuse(400, "MANIFEST_INVALID") if query.kind == "referrers" else go()


@family("goharbor/harbor/issues/18418")
def harbor_wants_a_login_for_referrers(query: Query, go: Go) -> Reply:
    return refuse(401, "UNAUTHORIZED") if query.kind == "referrers" else go()


@family("ocx-sh/ocx/issues/106")
def referrers_forbidden(query: Query, go: Go) -> Reply:
    return refuse(403, "DENIED") if query.kind == "referrers" else go()


@family("google/go-containerregistry/issues/1962")
def artifactory_finds_referrers_not_acceptable(query: Query, go: Go) -> Reply:
    return Reply(406) if query.kind == "referrers" else go()


@family("oras-project/rust-oci-client/pull/259")
def referrers_not_allowed(query: Query, go: Go) -> Reply:
    return refuse(405, "UNSUPPORTED") if query.kind == "referrers" else go()


@family("docker/roadmap/issues/724")
def referrers_not_implemented(query: Query, go: Go) -> Reply:
    return Reply(501) if query.kind == "referrers" else go()


@family("sigstore/sigstore-js/pull/1187")
def a_false_200_for_referrers(query: Query, go: Go) -> Reply:
    return page(200) if query.kind == "referrers" else go()


@family("spring-projects/spring-boot/issues/45358")
def an_error_document_with_200_for_referrers(query: Query, go: Go) -> Reply:
    if query.kind != "referrers":
        return go()
    return replace(refuse(404, "NOT_FOUND"), status=200)


@family("distribution/distribution/issues/1186")
def null_for_lists(query: Query, go: Go) -> Reply:
    if query.kind == "referrers":
        return Reply(200, {"Content-Type": INDEX}, b"null")
    if query.kind == "tags" and not query.server.exists(query.repository):
        body = json.dumps({"name": query.repository, "tags": None}).encode()
        return Reply(200, {"Content-Type": "application/json"}, body)
    return go()


@family("artifacthub/hub/issues/4785")
def ghcr_leads_elsewhere_for_referrers(query: Query, go: Go) -> Reply:
    if query.kind != "referrers":
        return go()
    # The name is another host's to whoever compares origins; the port is this registry's.
    where = query.server.host.replace("127.0.0.1", "localhost")
    return Reply(303, {"Location": f"http://{where}/v2/limited/manifests/too-many"})


def _limited(quirk: Quirk) -> Quirk:
    def answer(query: Query, go: Go) -> Reply:
        return Reply(429) if query.repository == "limited" else quirk(query, go)

    return answer


@family("goharbor/harbor/pull/23237", api=True, verify="answered 503", attest="answered 503")
def referrers_out_of_order(query: Query, go: Go) -> Reply:
    return Reply(503) if query.kind == "referrers" else go()


@family("oras-project/oras-go/issues/1396")
def gitlab_takes_the_fallback_tag_for_the_digest(query: Query, go: Go) -> Reply:
    if query.is_tag and query.name.startswith("sha256-") and len(query.name) == 71:
        return query.server.regular(replace(query, name=query.name.replace("-", ":", 1)))
    return go()


def _taken(query: Query) -> bool:
    return (
        query.method == "PUT"
        and query.is_tag
        and (query.repository, query.name) in query.server.tags
    )


@family("sigstore/cosign/issues/313", attest="exempt the tags sha256-\\*")
def ecr_without_the_api_has_immutable_tags(query: Query, go: Go) -> Reply:
    return refuse(400, "TAG_INVALID", "The image tag is immutable") if _taken(query) else go()


@family("aws-observability/aws-otel-python-instrumentation/pull/837", api=True)
def ecr_has_immutable_tags(query: Query, go: Go) -> Reply:
    return refuse(400, "TAG_INVALID", "The image tag is immutable") if _taken(query) else go()


@family("goharbor/harbor/issues/17332", api=True)
def harbor_has_immutable_tags(query: Query, go: Go) -> Reply:
    return refuse(412, "PRECONDITION", "configured as immutable") if _taken(query) else go()


@family("actions/attest-build-provenance/issues/80", attest="exempt the tags sha256-\\*")
def google_has_immutable_tags(query: Query, go: Go) -> Reply:
    return refuse(409, "DENIED", "tag is immutable") if _taken(query) else go()


@family("containers/image/issues/381")
def quay_answers_202_to_a_manifest(query: Query, go: Go) -> Reply:
    reply = go()
    took = query.method == "PUT" and query.kind == "manifests" and reply.status == 201
    return replace(reply, status=202) if took else reply


@family("moby/moby/pull/10403")
def a_manifest_is_answered_200(query: Query, go: Go) -> Reply:
    reply = go()
    took = query.method == "PUT" and query.kind == "manifests" and reply.status == 201
    return Reply(200) if took else reply


@family("pulp/pulp_container/issues/2199")
def pulp_answers_204_to_a_chunk(query: Query, go: Go) -> Reply:
    reply = go()
    return replace(reply, status=204) if query.method == "PATCH" else reply


@family("aws/containers-roadmap/issues/1931")
def ecr_names_no_digest(query: Query, go: Go) -> Reply:
    return go().but(Docker_Content_Digest=None)


@family("ahmetb/serverless-registry-proxy/issues/10")
def cloud_run_strips_lengths(query: Query, go: Go) -> Reply:
    return go().but(X_No_Length="1") if query.method == "HEAD" else go()


@family("harrisonwang/wharf/pull/11")
def a_head_of_length_zero(query: Query, go: Go) -> Reply:
    reply = go()
    if query.method == "HEAD" and query.kind == "manifests" and reply.status == 200:
        return reply.but(Content_Length="0")
    return reply


@family("bazel-contrib/rules_oci/issues/720")
def ecr_answers_400_to_head(query: Query, go: Go) -> Reply:
    return Reply(400) if query.method == "HEAD" and query.kind == "manifests" else go()


@family("distribution/distribution/issues/4667")
def ranges_are_ignored(query: Query, go: Go) -> Reply:
    kept = {name: text for name, text in query.headers.items() if name != "range"}
    return query.server.regular(replace(query, headers=kept)) if query.kind == "blobs" else go()


@family("google/go-containerregistry/pull/1406")
def a_mount_is_denied(query: Query, go: Go) -> Reply:
    return refuse(401, "UNAUTHORIZED") if "mount=" in query else go()


@family("containerd/containerd/pull/14118")
def a_mount_is_forbidden(query: Query, go: Go) -> Reply:
    return refuse(403, "DENIED") if "mount=" in query else go()


@family("goharbor/harbor/issues/22078")
def harbor_finds_a_mounts_source_invalid(query: Query, go: Go) -> Reply:
    return refuse(400, "BAD_REQUEST") if "mount=" in query else go()


@family("deis/registry/issues/84")
def replicas_forget_uploads(query: Query, go: Go) -> Reply:
    first = sum(seen.method == "PUT" and seen.kind == "blobs" for seen in query.server.seen) % 2
    if query.method == "PUT" and query.kind == "blobs" and first:
        return refuse(404, "BLOB_UPLOAD_UNKNOWN")
    return go()


@family("go-gitea/gitea/issues/31861")
def gitea_refuses_to_look_for_blobs(query: Query, go: Go) -> Reply:
    if (
        query.method == "HEAD"
        and query.kind == "blobs"
        and not query.server.exists(query.repository)
    ):
        return refuse(401, "UNAUTHORIZED")
    return go()


@family("ambient-code/platform/issues/669")
def quay_refuses_blobs_of_what_is_not_there(query: Query, go: Go) -> Reply:
    if query.method == "HEAD" and query.kind == "blobs":
        return go() if query.server.exists(query.repository) else refuse(401, "UNAUTHORIZED")
    return go()


@family("goharbor/harbor/issues/23015")
def azure_takes_no_large_blob_at_once(query: Query, go: Go) -> Reply:
    much = query.method == "PUT" and query.kind == "blobs" and query.body
    return page(413, "<html>Request Entity Too Large</html>") if much else go()


@family(
    "mulgadc/spinifex/pull/400",
    push="create the repository first",
)
def ecr_makes_no_repository(query: Query, go: Go) -> Reply:
    return refuse(404, "NAME_UNKNOWN") if query.method == "POST" else go()


@family("goharbor/harbor/issues/12005", push="only read from")
def a_mirror_takes_nothing(query: Query, go: Go) -> Reply:
    return refuse(405, "UNSUPPORTED") if query.method == "POST" else go()


@family("distribution/distribution/issues/4324")
def no_list_of_tags(query: Query, go: Go) -> Reply:
    return refuse(404, "NAME_UNKNOWN") if query.kind == "tags" else go()


@family("distribution/distribution/issues/3848")
def a_proxy_strips_headers(query: Query, go: Go) -> Reply:
    return go().but(Docker_Content_Digest=None, Content_Type=None)


@family("project-zot/zot/issues/2299", api=True)
def zot_decodes_no_colon(query: Query, go: Go) -> Reply:
    # Not in that report, but seen with the real one of August 2026: `sha256%3A…` is a tag to it.
    asked = query.url.partition("?")[0].lower()
    if "%3a" not in asked or query.kind not in ("manifests", "referrers"):
        return go()
    return query.server.regular(replace(query, name=query.name.replace(":", "%3A")))


@family("regclient/regclient/pull/801", api=True)
def api_without_digests(query: Query, go: Go) -> Reply:
    return go().but(Docker_Content_Digest=None)


@family("sigstore/cosign/issues/4641", api=True)
def the_api_says_nothing_of_types(query: Query, go: Go) -> Reply:
    reply = go()
    if query.kind != "referrers" or reply.status != 200:
        return reply
    value = json.loads(reply.body)
    for item in value["manifests"]:
        item.pop("artifactType", None)
    return replace(reply, body=json.dumps(value).encode())


FAMILIES["ghcr-leads-elsewhere-for-referrers"] = replace(
    FAMILIES["ghcr-leads-elsewhere-for-referrers"],
    quirk=_limited(ghcr_leads_elsewhere_for_referrers),
)


def _storage(query: Query) -> Reply:
    """Lead to the storage behind."""
    where = f"{query.server.storage}/{query.repository}/{query.kind}/{query.name}"
    return Reply(307, {"Location": where})


@family("moby/moby/issues/50065")
def storage_takes_no_head(query: Query, go: Go) -> Reply:
    reads = query.method in ("GET", "HEAD") and query.kind in ("manifests", "blobs")
    return _storage(query) if reads and go().status == 200 else go()


@family("containerd/stargz-snapshotter/pull/167")
def ghcrs_addresses_expire(query: Query, go: Go) -> Reply:
    if query.method != "GET" or query.kind != "blobs" or go().status != 200:
        return go()
    asked = sum(seen.name == query.name and seen.method == "GET" for seen in query.server.seen)
    reply = _storage(query)
    expired = reply.headers["Location"].replace("/blobs/", "/blobs/expired-")
    return reply.but(Location=expired) if asked == 1 else reply


@family("ocx-sh/ocx/issues/272")
def uploads_go_to_another_host(query: Query, go: Go) -> Reply:
    reply = go()
    if query.method not in ("POST", "PATCH") or reply.status != 202:
        return reply
    path = reply.headers["Location"].removeprefix("/v2/")
    return reply.but(Location=f"{query.server.storage}/{path}")


@family("distribution/distribution/issues/2225")
def upload_addresses_are_whole(query: Query, go: Go) -> Reply:
    reply = go()
    where = reply.headers.get("Location", "")
    return reply.but(Location=f"http://{query.server.host}{where}") if where else reply


@family("distribution/distribution/pull/475")
def what_arrived_is_always_said_to_be_nothing(query: Query, go: Go) -> Reply:
    return go().but(Range="0-0") if query.method == "PATCH" else go()


@family("triggerdotdev/trigger.dev/issues/1636")
def cloudflare_knows_no_reason(query: Query, go: Go) -> Reply:
    sent = sum(seen.method == "PUT" and seen.kind == "blobs" for seen in query.server.seen)
    if query.method == "PUT" and query.kind == "blobs" and sent % 3 == 1:
        return page(520, "<html>Web server is returning an unknown error</html>")
    return go()


@family("CodesWhat/drydock/issues/343")
def docker_hub_limits_what_is_asked(query: Query, go: Go) -> Reply:
    if query.kind == "manifests" and len(query.server.seen) % 3 == 0:
        return refuse(429, "TOOMANYREQUESTS").but(Retry_After="0")
    return go()


@family("quay/quay/pull/1310")
def documents_come_compressed(query: Query, go: Go) -> Reply:
    reply = go()
    if query.method != "GET" or query.kind == "blobs" or reply.status != 200:
        return reply
    return replace(reply, body=gzip.compress(reply.body)).but(Content_Encoding="gzip")


@family("distribution/distribution/issues/2395")
def the_header_names_another_digest(query: Query, go: Go) -> Reply:
    reply = go()
    if query.kind != "manifests" or reply.status != 200:
        return reply
    return reply.but(Docker_Content_Digest=f"sha256:{'ab' * 32}")


@family("heroku/docker-registry-client/pull/11")
def quay_links_pages_without_brackets(query: Query, go: Go) -> Reply:
    reply = go()
    if query.kind != "tags" or reply.status != 200:
        return reply
    tags = json.loads(reply.body)["tags"]
    at = int((re.search(r"next_page=([0-9]+)", query.url) or [0, 0])[1])
    body = json.dumps({"name": query.repository, "tags": tags[at : at + 1]}).encode()
    more = f'/v2/{query.repository}/tags/list?next_page={at + 1}; rel="next"'
    return replace(reply, body=body).but(Link=more if at + 1 < len(tags) else None)


@family("anchore/stereoscope/pull/695")
def ranges_are_not_satisfiable(query: Query, go: Go) -> Reply:
    return Reply(416) if query.kind == "blobs" and "range" in query.headers else go()


# They answer as any; what they say before is of their own.
for _name, _report, _server in (
    (
        "nexus-names-no-scope",
        "sonatype/nexus-public/issues/659",
        {"challenge": lambda said: said.partition(",scope=")[0]},
    ),
    (
        "azure-calls-it-an-access-token",
        "Azure/acr/pull/50",
        {"token": lambda said: {"access_token": said["token"]}},
    ),
    (
        "ibm-quotes-nothing-in-its-challenge",
        "ceph/ceph/pull/69900",
        {"challenge": lambda said: said.replace('"', "").replace(",service", ", service")},
    ),
    (
        "a-proxy-offers-kerberos-first",
        "google/go-containerregistry/pull/1075",
        {"challenge": lambda said: f'Negotiate, Basic realm="x", {said}'},
    ),
    (
        "artifactory-hides-what-a-stranger-may-not-see",
        "gradle/gradle/issues/4740",
        {"hides": 404},
    ),
    ("only-the-front-door-challenges", "project-zot/zot/pull/89", {"hides": 401}),
):
    FAMILIES[_name] = Family(_name, _GITHUB + _report, none, server=_server)


@family("GoogleContainerTools/kaniko/issues/298")
def huawei_names_digests_without_their_algorithm(query: Query, go: Go) -> Reply:
    reply = go()
    digest = reply.headers.get("Docker-Content-Digest")
    return reply.but(Docker_Content_Digest=digest.partition(":")[2]) if digest else reply


@family("oras-project/rust-oci-client/pull/152")
def digests_of_another_algorithm(query: Query, go: Go) -> Reply:
    reply = go()
    if "Docker-Content-Digest" not in reply.headers:
        return reply
    return reply.but(Docker_Content_Digest=f"sha512:{hashlib.sha512(reply.body).hexdigest()}")


@family("quay/quay/pull/1310")
def red_hat_compresses_blobs_on_the_way(query: Query, go: Go) -> Reply:
    reply = go()
    if query.method != "GET" or query.kind != "blobs" or reply.status not in (200, 206):
        return reply
    return replace(reply, body=gzip.compress(reply.body)).but(Content_Encoding="gzip")


@family("moby/moby/issues/17595")
def pulp_labels_what_is_compressed(query: Query, go: Go) -> Reply:
    return go().but(Content_Encoding="x-gzip") if query.kind == "blobs" else go()


@family("chainguard-dev/registry-redirect/pull/9")
def pages_go_on_at_the_host_behind_a_proxy(query: Query, go: Go) -> Reply:
    reply = FAMILIES["quay-links-pages-without-brackets"].quirk(query, go)
    link = reply.headers.get("Link")
    return (
        reply.but(Link=f"<http://registry.internal:5000{link.replace(';', '>;')}")
        if link
        else reply
    )

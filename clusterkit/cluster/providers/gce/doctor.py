"""What can be wrong with a project of Google's before the first machine: asked, never changed.

Which permissions the credentials have is asked of the Resource Manager, which tells all at once:
cloud.google.com/resource-manager/reference/rest/v1/projects/testIamPermissions.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from clusterkit.cluster.cloud.api import Finding
from clusterkit.cluster.providers.gce import network as networks
from clusterkit.cluster.providers.gce import scopes, words
from clusterkit.cluster.providers.gce.found import last
from clusterkit.cluster.providers.gce.words import ApiError
from clusterkit.errors import ClusterkitError

if TYPE_CHECKING:
    from clusterkit.cluster.providers.gce.client import Client

#: What clusterkit needs of a project; docs/gce-role.yaml is a role of just these.
PERMISSIONS = (
    "compute.acceleratorTypes.list",
    "compute.addresses.delete",
    "compute.addresses.list",
    "compute.disks.create",
    "compute.disks.delete",
    "compute.disks.list",
    "compute.disks.setLabels",
    "compute.disks.useReadOnly",
    "compute.firewalls.create",
    "compute.firewalls.delete",
    "compute.firewalls.get",
    "compute.firewalls.list",
    "compute.firewalls.update",
    "compute.globalAddresses.delete",
    "compute.globalOperations.get",
    "compute.globalOperations.list",
    "compute.images.create",
    "compute.images.delete",
    "compute.images.get",
    "compute.images.getFromFamily",
    "compute.images.list",
    "compute.images.setLabels",
    "compute.images.useReadOnly",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.list",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.setTags",
    "compute.instances.start",
    "compute.instances.stop",
    "compute.machineTypes.list",
    "compute.networks.get",
    "compute.networks.updatePolicy",
    "compute.projects.get",
    "compute.regionOperations.get",
    "compute.regions.get",
    "compute.regions.list",
    "compute.resourcePolicies.create",
    "compute.resourcePolicies.delete",
    "compute.resourcePolicies.get",
    "compute.resourcePolicies.list",
    "compute.resourcePolicies.use",
    "compute.subnetworks.get",
    "compute.subnetworks.list",
    "compute.subnetworks.use",
    "compute.subnetworks.useExternalIp",
    "compute.zoneOperations.get",
    "compute.zones.list",
)
#: Where credentials come from, by the module of google-auth that has them; never what they are.
_KINDS = {
    "google.oauth2.credentials": "a user's (`gcloud auth application-default login`)",
    "google.oauth2.service_account": "a service account's key file",
    "google.auth.compute_engine.credentials": "the service account of this machine at Google",
    "google.auth.external_account": "an identity of another provider (workload identity)",
    "google.auth.external_account_authorized_user": "a login with another provider's identity",
    "google.auth.impersonated_credentials": "a service account that is impersonated",
}
_MANAGER = "https://cloudresourcemanager.googleapis.com"
#: Compute Engine, in the catalogue of prices.
_COMPUTE = "services/6F81-5844-456A"
#: Seconds that a clock may be wrong; Google refuses what service accounts sign from minutes on.
_SKEW = 60.0
#: Seconds for the Resource Manager to answer.
_READ = 30.0
#: Addresses of a subnetwork that are Google's own.
_RESERVED = 4


def examine(
    client: Client, network: str | None = None, subnetwork: str | None = None
) -> Iterator[Finding]:
    """All findings, the ones that others depend on first. Raises nothing.

    `network` and `subnetwork` are the settings' own, where they name any.
    """
    sdk = _sdk()
    yield sdk
    if sdk.verdict == "bad":
        return
    yield _credentials(client)
    account = _account(client)
    yield account
    if account.verdict == "bad":
        return
    checks: list[Callable[[], Sequence[Finding]]] = [
        lambda: [_region(client)],
        lambda: [_network(client, network, subnetwork)],
        lambda: permissions(client),
        lambda: [_catalogue(client)],
    ]
    with ThreadPoolExecutor(max_workers=len(checks)) as pool:
        for findings in pool.map(lambda check: check(), checks):
            yield from findings


def permissions(client: Client) -> list[Finding]:
    """Our clock, and the permissions that are missing; both are told by one answer."""
    import requests
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession

    base = (client.endpoint or _MANAGER).rstrip("/")
    url = f"{base}/v1/projects/{client.project}:testIamPermissions"
    session: Any = AuthorizedSession(client.credentials)  # type: ignore[no-untyped-call]
    try:
        with session:
            answer = session.post(url, json={"permissions": list(PERMISSIONS)}, timeout=_READ)
    except (requests.RequestException, GoogleAuthError) as error:
        told = f"Google did not answer which there are: {words.short(str(error))}"
        return [Finding("permissions", "unknown", told)]
    return [_clock(str(answer.headers.get("Date", ""))), _permitted(client, answer)]


def _sdk() -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    told, missing = [], []
    for package in ("google-cloud-compute", "google-cloud-billing", "google-auth"):
        try:
            told.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if not missing:
        return Finding("SDK", "good", ", ".join(told))
    absent = f"not installed: {', '.join(missing)}"
    fatal = missing != ["google-cloud-billing"]  # without it only prices are not known
    advice = "`pip install 'clusterkit[gce]'` installs all that is needed."
    return Finding("SDK", "bad" if fatal else "unknown", absent, advice)


def _credentials(client: Client) -> Finding:
    if client.endpoint:
        return Finding("credentials", "good", f"none: {client.endpoint} is asked without any")
    made: Any = client.credentials
    kinds = (_KINDS.get(one.__module__) for one in type(made).__mro__)
    told = next(filter(None, kinds), f"of the kind {type(made).__name__}")
    info = (made.get_cred_info() if hasattr(made, "get_cred_info") else None) or {}
    who = info.get("principal") or getattr(made, "service_account_email", "")
    if who and who != "default":
        told += f", {who}"
    if "/" in info.get("credential_source", ""):
        told += f", from {info['credential_source']}"
    advice = ""
    if type(made).__module__ == "google.oauth2.credentials" and not made.quota_project_id:
        advice = f"{_quota_project(client)} lets prices and permissions be asked, too."
    return Finding("credentials", "good", told, advice)


def _account(client: Client) -> Finding:
    """The project: whether it is there, may be used, and is paid for."""
    try:
        told = client.call("projects", "get")
    except ClusterkitError as error:
        found = _bad(client, "account", error)
        try:
            if isinstance(error, ApiError) and scopes.all_the_same(client, error):
                return replace(found, verdict="unknown")
        except ClusterkitError as trouble:
            found = _bad(client, "account", trouble)
        return replace(found, verdict="bad")
    # `id` is Compute Engine's own; the project's number stands in its service account's name.
    number = re.match(r"(\d+)-", str(told.default_service_account))
    more = f" (number {number[1]})" if number else ""
    return Finding("account", "good", f"project {told.name}{more}: billing and API are on")


def _region(client: Client) -> Finding:
    name = client.region
    try:
        told = client.call("regions", "get", region=name)
    except ClusterkitError as error:
        if isinstance(error, ApiError) and error.status in (400, 404) and not error.lacking:
            advice = "`gcloud compute regions list` shows those that there are."
            return Finding("region", "bad", error.words, advice)
        return _bad(client, "region", error)
    if str(told.status) != "UP":
        return Finding("region", "bad", f"{name} is {told.status}", "Name another `region:`.")
    zones = ", ".join(sorted(last(one) for one in told.zones))
    return Finding("region", "good", f"{name} is up" + (f": {zones}" if zones else ""))


def flaw(client: Client, network: str | None, subnetwork: str | None) -> str:
    """Why machines can never be put into the network of the settings; "" also when not known."""
    try:
        found = _looked(client, network, subnetwork, lambda _: Finding("network", "good", ""))
        if found.verdict != "bad":
            return ""
        # Another endpoint than Google's may know nothing of networks, and need none.
        if client.endpoint and not client.pages("subnetworks", "list", region=client.region):
            return ""
    except ClusterkitError:
        return ""
    return f"{found.words} {found.advice}"


def _network(client: Client, network: str | None, subnetwork: str | None) -> Finding:
    try:
        return _looked(client, network, subnetwork, partial(_addresses, client))
    except ClusterkitError as error:
        return _bad(client, "network", error)


def _looked(
    client: Client,
    network: str | None,
    subnetwork: str | None,
    there: Callable[[Any], Finding],
) -> Finding:
    """`there` says more of the subnetwork. Raises ClusterkitError where none can be looked at."""
    try:
        if subnetwork is not None:
            path = networks.subnetwork_path(client, subnetwork)
            part = path.split("/")
            where = {"project": part[1], "region": part[3]}
            found = client.call("subnetworks", "get", subnetwork=part[5], **where)
            theirs = last(str(found.network))
            if network is not None and last(network) != theirs:
                told = f"the subnetwork {subnetwork} is of {theirs}, not of {last(network)}"
                return Finding("network", "bad", told, "Correct `network:` in the settings.")
            return there(found)
        path = networks.path_of(client, network, None)
        project, name = path.split("/")[1], last(path)
        whole = client.call("networks", "get", project=project, network=name)
        if "auto_create_subnetworks" in whole and not whole.auto_create_subnetworks:
            told = f"{name} has subnetworks that were made by hand (custom mode)"
            advice = "Name the one to take as `subnetwork:` in the settings."
            return Finding("network", "bad", told, advice)
        some = client.pages("subnetworks", "list", project=project, region=client.region)
    except ClusterkitError as error:
        if isinstance(error, ApiError) and error.status == 404 and not error.lacking:
            advice = _network_advice(client, network, subnetwork)
            return Finding("network", "bad", error.words, advice)
        raise
    mine = [one for one in some if str(one.network).endswith(path)]
    if not mine:
        told = f"{name} has no subnetwork in {client.region}"
        return Finding("network", "bad", told, "Name another `network:`, or a `subnetwork:`.")
    return there(mine[0])


def _network_advice(client: Client, network: str | None, subnetwork: str | None) -> str:
    if subnetwork is None and network in (None, "default"):
        return (
            "`gcloud compute networks create default --subnet-mode=auto --project "
            f"{client.project}` makes it (it costs nothing), or name a `network:` in the settings."
        )
    kind = "networks" if subnetwork is None else "networks subnets"
    return (
        f"`gcloud compute {kind} list --project {client.project}` shows those that there are: "
        "correct the settings."
    )


def _addresses(client: Client, subnetwork: Any) -> Finding:
    """How many addresses are free, as far as machines of this project use them."""
    name = f"{last(str(subnetwork.network))}, subnetwork {subnetwork.name}"
    told = f"{name} in {last(str(subnetwork.region))}: {subnetwork.ip_cidr_range}"
    own = "/".join(str(subnetwork.self_link).split("/")[-6:])
    try:
        size = ipaddress.ip_network(str(subnetwork.ip_cidr_range)).num_addresses - _RESERVED
        used = sum(
            str(nic.subnetwork).endswith(own)
            for _, have in client.pages("instances", "aggregated_list")
            for one in have.instances
            for nic in one.network_interfaces
        )
    except (ClusterkitError, ValueError) as error:
        return Finding("network", "unknown", f"{told}; what is free is not known: {error}")
    if used >= size:
        advice = "Name another `subnetwork:`, or end what uses them."
        return Finding("network", "bad", f"{told}: no address is free", advice)
    return Finding("network", "good", f"{told}, {size - used} of {size} addresses free")


def _permitted(client: Client, answer: Any) -> Finding:
    try:
        said = answer.json()
    except ValueError:
        said = {}
    if answer.status_code != 200 or not isinstance(said, dict):
        error = said.get("error") if isinstance(said, dict) else None
        why = words.short(str(error["message"])) if isinstance(error, dict) else ""
        told = f"not known: the answer was {answer.status_code} {answer.reason}. {why}".strip()
        return Finding("permissions", "unknown", told, _manager_advice(client, why))
    missing = [one for one in PERMISSIONS if one not in said.get("permissions", ())]
    if missing:
        told = f"{len(missing)} of {len(PERMISSIONS)} are missing: {', '.join(missing)}"
        return Finding("permissions", "bad", told, _grant(client))
    return Finding("permissions", "good", f"all {len(PERMISSIONS)} that clusterkit needs")


def _manager_advice(client: Client, said: str) -> str:
    if client.endpoint or not said:
        return ""
    if "quota project" in said:
        return f"{_quota_project(client)} lets it be asked."
    return (
        f"`gcloud services enable cloudresourcemanager.googleapis.com --project {client.project}` "
        "lets it be asked; clusterkit works without it."
    )


def _quota_project(client: Client) -> str:
    return f"`gcloud auth application-default set-quota-project {client.project}`"


def _grant(client: Client) -> str:
    project = client.project
    return (
        f"An owner of the project gives them: `gcloud iam roles create clusterkit --project "
        f"{project} --file docs/gce-role.yaml`, then `gcloud projects add-iam-policy-binding "
        f"{project} --member user:YOU@EXAMPLE.COM --role projects/{project}/roles/clusterkit` "
        "(`serviceAccount:` instead of `user:` for a service account)."
    )


def _clock(date: str) -> Finding:
    """Our clock against the date of an answer that is a moment old."""
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return Finding("clock", "unknown", "Google's answer had no date")
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)
    off = (datetime.now(UTC) - theirs).total_seconds()
    if abs(off) > _SKEW:
        told = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} Google's"
        return Finding("clock", "bad", told, "`timedatectl set-ntp true` lets it be set.")
    return Finding("clock", "good", f"within {max(1.0, abs(off)):.0f} s of Google's")


def _catalogue(client: Client) -> Finding:
    """Whether prices can be asked for; machines start without them."""
    try:
        client.catalogue("list_skus", parent=_COMPUTE, page_size=1)
    except ClusterkitError as error:
        return replace(_bad(client, "prices", error), verdict="unknown")
    return Finding("prices", "good", "the Cloud Billing Catalog answers")


def _lacks(error: ClusterkitError) -> bool:
    """Whether another endpoint than Google's does not have the call."""
    return isinstance(error, ApiError) and bool(error.lacking)


def _bad(client: Client, subject: str, error: ClusterkitError) -> Finding:
    """A finding of an error; "bad" where it is known that machines could not be started."""
    if not isinstance(error, ApiError) or _lacks(error):
        return Finding(subject, "unknown", str(error))
    slow = words.asks_to_slow_down(error.status, error.code)
    told = "" if slow else words.advice(error.status, error.code, error.said, client.project)
    if "quota project" in error.said:
        told = f"{_quota_project(client)} says whose limits count."
    elif "authentication scopes" in error.said:
        told = (
            "The machine's access scopes do not reach: `gcloud compute instances "
            "set-service-account NAME --scopes cloud-platform`, while it is stopped."
        )
    elif "roles/compute.admin" in told:
        told = f"{told} {_grant(client)}"
    fatal = error.status in (401, 403) and not slow
    return Finding(subject, "bad" if fatal else "unknown", error.words, told)

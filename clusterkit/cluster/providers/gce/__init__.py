"""Google Compute Engine: the provider, and the way to a region. The SDK is imported when used.

client     the one door to the API: patience, errors, operations
login      whose credentials are used, and the SDK
endpoint   another Compute Engine than Google's, which may know a part of it
words      what Google said, and what to do about it; pure
gcloud     what Google's own command line was told
cloud      `Cloud` for GCE: which of the following does what
launches   machines that are made
machines   machines that there are: listed, switched on and off, ended
network    what machines need first: the claim of a name, the door, a placement policy
found      what Google answers, as clusterkit's nouns; pure
scopes     what is in the zones of a region
resources  all that carries a cluster's label, and its deletion
images     images by name, and those that were saved
offers     machine types and zones
series     what a machine type's name tells
catalog    what prices and quotas are asked of
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from clusterkit.cluster.cloud.api import NoCredentials, NoRegion
from clusterkit.cluster.cloud.provider import CloudProvider
from clusterkit.cluster.cloud_values import gce_endpoint
from clusterkit.cluster.providers.gce import resources
from clusterkit.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.cluster.cloud.api import Cloud
    from clusterkit.cluster.spec import GceSpec

#: Where another Compute Engine than Google's answers; as the SDKs' own variables, for all commands.
ENDPOINT = "CLUSTERKIT_GCE_ENDPOINT"


_NO_REGION = (
    "Google needs a region: write `region:` into the settings (us-central1, for example), or set "
    "CLOUDSDK_COMPUTE_REGION, or `gcloud config set compute/region REGION`"
)


class GceProvider(CloudProvider):
    """A cluster of Google's machines."""

    name: ClassVar[str] = "gce"
    looked_for: ClassVar[tuple[str, ...]] = resources.PLURALS


def connect(spec: GceSpec, say: Callable[[str], None] | None = None) -> Cloud:
    """The region of the settings, or gcloud's. Asks Google nothing yet.

    `say` is told, once, when Google asks to slow down. Raises ClusterError without the SDK or
    credentials, UsageError without a project or a region, or for an endpoint that is no address.
    """
    from clusterkit.cluster.providers.gce import gcloud
    from clusterkit.cluster.providers.gce.client import Client
    from clusterkit.cluster.providers.gce.cloud import Choices, GceCloud

    told = gcloud.told(os.environ, Path.home())
    region = spec.region or told.region
    try:
        client = Client(
            region,
            spec.project or told.project or None,
            endpoint=spec.endpoint or _endpoint(os.environ.get(ENDPOINT, "").strip()),
            credentials=str(spec.credentials) if spec.credentials is not None else None,
            say=say,
        )
    except (NoRegion, NoCredentials) as error:
        if region:
            raise
        raise NoRegion(f"{_NO_REGION}.\n{error}") from error
    if not region:
        raise NoRegion(_NO_REGION)
    choices = Choices(
        spec.network, spec.subnetwork, spec.disk_type, spec.max_run, spec.connect == "public"
    )
    return GceCloud(client, choices)


def _endpoint(named: str) -> str | None:
    try:
        return gce_endpoint(named) if named else None
    except ValueError as error:
        raise UsageError(f"{ENDPOINT}: {error}") from error

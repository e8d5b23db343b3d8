"""Amazon EC2: the provider, and the way to a region. boto3 is imported when it is used.

client     the one door to the API: credentials, patience, errors
words      what AWS said, and what to do about it; pure
cloud      `Cloud` for EC2: which of the following does what
launches   machines: launched, switched on and off, ended
network    what machines need first: the key pair, the door, a placement group
found      what AWS answers, as clusterkit's nouns; pure
resources  all that carries a cluster's label, and its deletion
images     images by name, and those that were saved
offers     machine types and zones
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from clusterkit.cluster.cloud.provider import CloudProvider
from clusterkit.cluster.providers.ec2 import resources

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterkit.cluster.cloud.api import Cloud
    from clusterkit.cluster.spec import Ec2Spec


class Ec2Provider(CloudProvider):
    """A cluster of EC2 instances."""

    name: ClassVar[str] = "ec2"
    looked_for: ClassVar[tuple[str, ...]] = resources.PLURALS


def connect(spec: Ec2Spec, say: Callable[[str], None] | None = None) -> Cloud:
    """The region of the settings, or of the profile. Asks AWS nothing yet.

    `say` is told, once, when AWS asks to slow down. Raises ClusterError without boto3, UsageError
    for a profile or a region that there is not.
    """
    from clusterkit.cluster.providers.ec2.client import Client
    from clusterkit.cluster.providers.ec2.cloud import Ec2Cloud

    client = Client(spec.region, spec.profile, say=say)
    return Ec2Cloud(client, subnet=spec.subnet, public=spec.connect == "public")

"""What prices and quotas are asked of: the Cloud Billing Catalog, and the limits of a project.

Each is asked once. The catalogue of Compute Engine has tens of thousands of SKUs; those of other
regions are left out as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from clusterkit.cluster.cloud.api import MachineType
from clusterkit.cluster.providers.gce.client import Client

#: Compute Engine, in the catalogue.
_SERVICE = "services/6F81-5844-456A"
_PAGE = 5000
#: Where an SKU is sold that is sold everywhere.
_EVERYWHERE = ("global",)

Limits = Sequence[tuple[str, float, float]]


class Catalog:
    """Of one region. `types` answers with machine types by name, as `Cloud.machine_types` does."""

    def __init__(
        self, client: Client, types: Callable[[Collection[str]], Mapping[str, MachineType]]
    ) -> None:
        self._client, self.machine_types = client, types
        self.region, self.project = client.region, client.project

    def skus(self) -> Sequence[Mapping[str, Any]]:
        """The SKUs that the region is served by, as JSON of Cloud Billing v1."""
        return self._skus

    def region_quotas(self) -> Limits:
        """Metric, limit and use, of the region."""
        return _limits(self._client.call("regions", "get", region=self.region))

    def project_quotas(self) -> Limits:
        """The same, of the project."""
        return _limits(self._client.call("projects", "get"))

    @cached_property
    def _skus(self) -> Sequence[Mapping[str, Any]]:
        area = self.region.partition("-")[0]
        places = {self.region, area, *_EVERYWHERE}
        found: list[Mapping[str, Any]] = []
        token = ""
        while True:
            answer = self._client.catalogue(
                "list_skus", parent=_SERVICE, page_size=_PAGE, page_token=token
            )
            found += [_json(one) for one in answer.skus if places & set(one.service_regions)]
            token = answer.next_page_token
            if not token:
                return found


def _limits(said: Any) -> Limits:
    return [(str(one.metric), float(one.limit), float(one.usage)) for one in said.quotas]


def _json(sku: Any) -> Mapping[str, Any]:
    from google.protobuf.json_format import MessageToDict

    made: Mapping[str, Any] = MessageToDict(type(sku).pb(sku))
    return made

"""Which clouds there are, and a connection to one, with no cluster needed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from clusterkit.cluster.cloud.api import Cloud
from clusterkit.cluster.spec import CloudSpec

#: provider -> (module, function of the settings); imported when used.
CLOUDS: Mapping[str, tuple[str, str]] = {
    "ec2": ("clusterkit.cluster.providers.ec2", "connect"),
    "gce": ("clusterkit.cluster.providers.gce", "connect"),
}


def connect(spec: CloudSpec) -> Cloud:
    """The region of `spec`, or the one that the cloud's own settings name. Asks nothing yet."""
    module, function = CLOUDS[spec.provider]
    made = getattr(importlib.import_module(module), function)(spec)
    assert isinstance(made, Cloud)
    return made


def default(provider: str, region: str | None = None) -> Cloud:
    """A cloud where no cluster is meant."""
    from clusterkit.cluster.spec import SPECS

    made = SPECS[provider].model_construct(provider=provider, region=region)
    assert isinstance(made, CloudSpec)
    return connect(made)

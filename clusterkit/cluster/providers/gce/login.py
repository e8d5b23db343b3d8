"""Whose credentials are used, and the SDK's clients that are asked with them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from clusterkit.cluster.cloud.api import NoCredentials
from clusterkit.cluster.providers.gce import words
from clusterkit.errors import ClusterError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def credentials(endpoint: str | None, file: str | None) -> tuple[Credentials, str | None]:
    """The credentials, and the project that they name."""
    try:
        import google.auth
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

        # google-auth may be there for another's sake; importing all of the SDK takes long.
        if find_spec("google.cloud.compute_v1") is None:
            raise ImportError("google.cloud.compute_v1")  # noqa: TRY301 - as if it were imported
    except ImportError as error:
        raise ClusterError(
            "the provider gce needs google-cloud-compute, which is not installed: "
            "pip install 'clusterkit[gce]'"
        ) from error
    if endpoint:
        return _anonymous(AnonymousCredentials), None
    try:
        if file is not None:
            load: Any = google.auth.load_credentials_from_file
            made, project = load(file, scopes=[_SCOPE])
        else:
            made, project = google.auth.default(scopes=[_SCOPE])
    except DefaultCredentialsError as error:
        kind = NoCredentials if file is None else ClusterError
        raise kind(words.credentials(str(error))) from error
    except (GoogleAuthError, OSError) as error:
        raise ClusterError(words.credentials(str(error))) from error
    return made, project


def _anonymous(kind: Any) -> Credentials:
    """Nobody's. Where an endpoint wants somebody's, its words are told, not google-auth's."""

    class Nobody(kind):  # type: ignore[misc]
        def refresh(self, _: object) -> None:
            """There is nothing to renew."""

    made: Credentials = Nobody()
    return made


def sdk(service: str) -> Any:
    """The SDK's client of a service, as "zone_operations"; "catalog" is Cloud Billing's."""
    if service == "catalog":
        try:
            from google.cloud import billing_v1
        except ImportError as error:
            raise ClusterError(
                "prices need google-cloud-billing, which is not installed: "
                "pip install 'clusterkit[gce]'"
            ) from error
        return billing_v1.CloudCatalogClient
    from google.cloud import compute_v1

    return getattr(compute_v1, "".join(part.title() for part in service.split("_")) + "Client")

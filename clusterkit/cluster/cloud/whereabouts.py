"""Where a cluster is: its settings, its folder, and the region and account it was made in."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

from clusterkit.cluster.access import Identity
from clusterkit.cluster.cloud import known
from clusterkit.cluster.cloud import place as places
from clusterkit.cluster.cloud.api import Cloud
from clusterkit.cluster.cloud.clock import Clock
from clusterkit.cluster.cloud.intents import Intents
from clusterkit.cluster.cloud.place import Place
from clusterkit.cluster.providers import Say
from clusterkit.cluster.spec import CloudSpec
from clusterkit.errors import ClusterError


class Whereabouts:
    """What all parts of a cloud's provider share. `cloud` and `clock` are given by tests."""

    def __init__(
        self,
        settings: CloudSpec,
        identity: Identity,
        folder: Path,
        cloud: Cloud | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings, self.identity, self.folder = settings, identity, folder
        self.cluster = identity.cluster
        self.clock = clock or Clock()
        self.intents = Intents(folder, self.clock)
        self._given = cloud
        self._say: Say = lambda _: None

    def tell(self, say: Say) -> None:
        """Who is told from now on what the user should know about waiting."""
        self._say = say
        if "cloud" in self.__dict__:  # else it is told when it is first used
            self.cloud.tell(say)

    @cached_property
    def cloud(self) -> Cloud:
        """The region that the cluster is in; for a new one, that of the settings.

        Raises ClusterError when the credentials are another account's than those it was made with.
        """
        made = self._given
        if made is None:
            place = self.place
            settings = self.settings
            made = known.connect(settings.at(place.region, place.account) if place else settings)
        made.tell(self._say)
        if self.place is None:
            return made
        account = made.account()
        if account != self.place.account:
            raise ClusterError(
                f"cluster {self.cluster!r} is in the account {self.place.account}, but the present "
                f"credentials are for {account}. Use those of {self.place.account}."
            )
        return made

    @property
    def place(self) -> Place | None:
        return places.read(self.folder, self.identity.id)

    def require_its_region(self) -> None:
        """Whatever the settings say by now, it can be ended where it is; it cannot grow there."""
        wished, place = self.settings.region, self.place
        if place is not None and wished and wished != place.region:
            raise ClusterError(
                f"cluster {self.cluster!r} is in {place.region}, but the settings say {wished}. "
                f"Change them back; or `clusterkit stop {self.cluster}` ends it there, then it can "
                "begin anew elsewhere."
            )

    def remember(self, allow: tuple[str, ...]) -> None:
        """Keep the region, the account and who else may log in, before anything is made.

        An empty `allow` changes nothing of that.
        """
        place = self.place
        if place is None:
            account = self.cloud.account()
            place = Place(self.identity.id, self.cloud.region, account, allow)
            places.write(self.folder, place)
        elif allow and allow != place.allow:
            places.write(self.folder, replace(place, allow=allow))

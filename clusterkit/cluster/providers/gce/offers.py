"""Machine types, with GPUs that are attached to them, and the zones that have them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from clusterkit.cluster.cloud.api import MachineType
from clusterkit.cluster.providers.gce import scopes, series
from clusterkit.cluster.providers.gce.client import Client
from clusterkit.cluster.providers.gce.prices import built_in
from clusterkit.cluster.providers.gce.words import ApiError
from clusterkit.errors import UsageError

#: What the vendors call the GPUs; others are told as Google does.
_MODELS: Mapping[str, str] = {
    "nvidia-tesla-t4": "NVIDIA T4",
    "nvidia-tesla-v100": "NVIDIA V100",
    "nvidia-tesla-p100": "NVIDIA P100",
    "nvidia-tesla-p4": "NVIDIA P4",
    "nvidia-tesla-a100": "NVIDIA A100 40GB",
    "nvidia-a100-80gb": "NVIDIA A100 80GB",
    "nvidia-l4": "NVIDIA L4",
    "nvidia-h100-80gb": "NVIDIA H100 80GB",
    "nvidia-h100-mega-80gb": "NVIDIA H100 80GB",
    "nvidia-h200-141gb": "NVIDIA H200 141GB",
    "nvidia-b200": "NVIDIA B200",
}


def parts(name: str) -> tuple[str, str, int]:
    """Machine type, GPU and how many of `n1-standard-8+nvidia-tesla-t4:1`; "" and 0 without."""
    type_, _, more = name.partition("+")
    gpu, _, count = more.partition(":")
    return type_, gpu, int(count or 1) if gpu else 0


def zones(client: Client) -> tuple[str, ...]:
    """The zones of the region that are up, sorted. Raises UsageError where there is no region."""
    told = scopes.listed(client)
    if told is None:
        return scopes.answering(client)
    known = set(map(scopes.region_of, told))
    if client.region not in known:
        raise UsageError(
            f"{client.region} is no region that the project {client.project} can use"
            f"{_near(client.region, known)}"
        )
    return tuple(
        sorted(
            str(one.name)
            for one in told
            if scopes.region_of(one) == client.region and str(one.status) in ("UP", "")
        )
    )


def machine_types(
    client: Client, names: Collection[str], there: Collection[str]
) -> dict[str, MachineType]:
    """The types by name, each with those of the zones `there` that have it and its GPUs.

    Raises UsageError that names all that the region does not have, with near names.
    """
    if not names:
        return {}
    types = _by_zone(client, "machine_types", there)
    if types is None:
        return {name: _named(name, there) for name in names}
    wants_gpus = any(parts(name)[1] for name in names)
    gpus = _by_zone(client, "accelerator_types", there) if wants_gpus else {}
    made, missing = {}, []
    for name in sorted(set(names)):
        type_, gpu, count = parts(name)
        found = {zone: have[type_] for zone, have in types.items() if type_ in have}
        if not found:
            every = {one for have in types.values() for one in have}
            missing.append(f"{type_}{_near(type_, every)}")
            continue
        if gpu and gpus is not None:
            with_gpu = {zone for zone, have in gpus.items() if gpu in have}
            if not with_gpu:
                every = {one for have in gpus.values() for one in have}
                missing.append(f"{gpu}{_near(gpu, every)}")
                continue
            most = max(int(gpus[zone][gpu].maximum_cards_per_instance) for zone in with_gpu)
            if 0 < most < count:
                missing.append(f"{name} (a machine has {most} of {gpu} at most)")
                continue
            found = {zone: one for zone, one in found.items() if zone in with_gpu}
        made[name] = _machine_type(name, gpu, count, found, next(_any(types, type_)))
    if missing:
        told = "; ".join(dict.fromkeys(missing))
        raise UsageError(f"{client.region} does not have these machine types or GPUs: {told}")
    return made


def _machine_type(
    name: str, gpu: str, count: int, found: Mapping[str, Any], said: Any
) -> MachineType:
    own = next(iter(said.accelerators), None)  # of families that have their GPUs built in
    named = _named(name, found)
    if own is not None and not gpu:
        gpu, count = str(own.guest_accelerator_type), int(own.guest_accelerator_count)
    elif not gpu and named.gpus:  # another endpoint may not tell them
        return replace(named, memory=int(said.memory_mb))
    return MachineType(
        name=name,
        cpus=int(said.guest_cpus) or named.cpus,
        memory=int(said.memory_mb),
        arch="arm64" if str(said.architecture) == "ARM64" else "x86_64",
        gpus=count,
        gpu=_MODELS.get(gpu, gpu),
        zones=tuple(sorted(found)),
    )


def _named(name: str, zones: Collection[str]) -> MachineType:
    """A type as its name tells."""
    type_, gpu, count = parts(name)
    said = series.described(type_)
    gpu, count = gpu or built_in(type_)[0], count or said.gpus
    told = tuple(sorted(zones))
    return replace(said, name=name, gpus=count, gpu=_MODELS.get(gpu, gpu), zones=told)


def _any(types: Mapping[str, Mapping[str, Any]], name: str) -> Any:
    return (have[name] for have in types.values() if name in have)


def _by_zone(
    client: Client, service: str, there: Collection[str]
) -> dict[str, dict[str, Any]] | None:
    """Zone -> name -> what a zone has. A list of all zones of the world would have many pages.

    None: another endpoint than Google's tells nothing of it.
    """

    def one(zone: str) -> dict[str, Any]:
        return {str(one.name): one for one in client.pages(service, "list", zone=zone)}

    try:
        with ThreadPoolExecutor(max(1, len(there))) as pool:
            found = dict(zip(there, pool.map(one, there), strict=True))
    except ApiError as error:
        if not client.lacks(error, "machine types are taken as the settings name them"):
            raise
        return None
    return None if client.endpoint and not any(found.values()) else found


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    return f" (near are: {', '.join(near)})" if near else ""

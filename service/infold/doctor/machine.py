"""What the machine gives: devices, cores, memory, descriptors, a place for the cache."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

from infold.doctor.findings import Finding, bad, ok, shown_bytes, warn
from infold.errors import InfoldError
from infold.rest.descriptors import RESERVED, connections_within
from infold.rest.starting import room_for_bodies
from infold.runtime import Placement, choose_device
from infold.runtime.cgroups import memory_limit, memory_used
from infold.runtime.cores import cores_of_process
from infold.runtime.memory import host_bytes, machine_bytes
from infold.runtime.options import Device
from infold.settings import Settings

__all__ = ["check_cache", "check_cpu", "check_descriptors", "check_device", "check_memory"]

MACHINE = Path("/")
FULL = 0.9  # of the limit of memory
LEAST_FREE_BYTES = 16 * 2**20
TEMPORARY = ("/tmp", "/var/tmp", "/usr/tmp")


def check_device(settings: Settings) -> tuple[list[Finding], Placement | None]:
    """The device that models would run on, with what keeps CUDA from being it; None for none."""
    try:
        placement = choose_device(settings.device, settings.gpu_id, settings.gpu_memory_bytes)
    except InfoldError as failure:
        remedy = "mend that, or start with --device cpu (INFOLD_DEVICE)"
        return [bad("device", str(failure), remedy, asked=str(settings.device))], None
    text = f"{placement.device} ({placement.why})"
    found = [ok("device", text, asked=str(settings.device), device=str(placement.device), why=placement.why)]
    if settings.device is Device.CPU:  # what it would be if it were asked for
        other = choose_device(Device.AUTO, settings.gpu_id, settings.gpu_memory_bytes)
        is_there = other.device.is_gpu
        why = "there is one that works; --device cuda takes it" if is_there else other.why
        found.append(ok("cuda", why, is_usable=is_there, why=other.why))
    return found, placement


def check_cpu(settings: Settings, root: Path = MACHINE) -> list[Finding]:
    """Cores of the machine, of the scheduler and of the cgroup, and what sessions make of them."""
    cores = cores_of_process(root)
    each = cores.each(settings.workers)
    facts = {
        "host": cores.host,
        "affinity": cores.affinity,
        "quota": None if cores.quota is None else cores.quota.value,
        "quota_file": None if cores.quota is None else str(cores.quota.file),
        "cores": cores.count,
        "workers": settings.workers,
        "cores_a_worker": each,
    }
    quota = "no quota" if cores.quota is None else f"quota {cores.quota.value:.4g} ({cores.quota.file})"
    runs = f"{each} run{'s' if each > 1 else ''} at once of 1 thread, unless a model's plan says otherwise"
    whose = f"each of {settings.workers} workers: " if settings.workers > 1 else ""
    text = f"host {cores.host}, affinity {cores.affinity}, {quota}; {whose}{runs}"
    if settings.workers > cores.count:
        remedy = f"--workers {cores.count} (INFOLD_WORKERS), or a larger quota"
        text = f"{settings.workers} workers share {cores.count} core{'s' if cores.count > 1 else ''}; {text}"
        return [warn("cpu", text, remedy, **facts)]
    return [ok("cpu", text, **facts)]


def check_memory(settings: Settings, root: Path = MACHINE) -> list[Finding]:
    """Memory of the machine and of the cgroup, and settings that promise more."""
    limit, used, host = memory_limit(root), memory_used(root), host_bytes()
    there = machine_bytes(root)
    bodies = room_for_bodies(settings, root)
    facts = {
        "host_bytes": host,
        "limit_bytes": None if limit is None else int(limit.value),
        "limit_file": None if limit is None else str(limit.file),
        "used_bytes": None if used is None else int(used.value),
        "in_flight_bytes": bodies,
    }
    bound = "no limit" if limit is None else f"limit {shown_bytes(limit.value)} ({limit.file})"
    taken = "" if used is None else f", {shown_bytes(used.value)} used now"
    text = f"host {shown_bytes(host)}, {bound}{taken}; bodies up to {shown_bytes(bodies)}"
    found = [ok("memory", text, **facts)]
    if limit is not None and used is not None and used.value > FULL * there:
        remedy = "a larger limit, or fewer models"
        found = [warn("memory", f"nearly all of it is used; {text}", remedy, **facts)]
    promised = {"max_in_flight_bytes": bodies, "load_memory_bytes": settings.load_memory_bytes}
    for name, asked in promised.items():
        if asked > there:
            text = f"{name} is {shown_bytes(asked)}, and there are {shown_bytes(there)}"
            found.append(warn("memory", text, f"lower INFOLD_{name.upper()}, or leave it out"))
    return found


def check_descriptors(settings: Settings) -> list[Finding]:
    """How many connections the limit of open files is enough for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(1, settings.max_connections // settings.workers)
    highest = wanted + RESERVED if hard == resource.RLIM_INFINITY else hard
    fitting = connections_within(wanted, highest)
    facts = {"soft": soft, "hard": hard, "wanted_connections": wanted, "connections": fitting}
    whose = " a worker" if settings.workers > 1 else ""
    shown = "no limit" if hard == resource.RLIM_INFINITY else f"{hard}"
    if fitting < wanted:
        text = f"hard limit {shown}: enough for {fitting} of {wanted} connections{whose}"
        remedy = f"raise the hard limit (ulimit -n) to {wanted + RESERVED}, or lower INFOLD_MAX_CONNECTIONS"
        return [warn("descriptors", text, remedy, **facts)]
    return [ok("descriptors", f"hard limit {shown}: enough for {wanted} connections{whose}", **facts)]


def check_cache(settings: Settings) -> list[Finding]:
    """Whether what is learnt of models outlives the process; nothing is written to find out."""
    folder = settings.cache_folder
    if folder is None:
        return [_not_kept("its user has no home", settings)]
    near = folder.absolute()
    while not os.path.lexists(near) and near != near.parent:
        near = near.parent
    facts = {"folder": str(folder), "exists": near == folder.absolute()}
    if not near.is_dir() or not os.access(near, os.W_OK | os.X_OK):
        return [_not_kept(f"{near} cannot be written", settings)]
    free = shutil.disk_usage(near).free
    text = f"{folder} can be written, {shown_bytes(free)} free"
    if free < LEAST_FREE_BYTES:
        remedy = "make room there, or set --cache-dir (INFOLD_CACHE_DIR) to another place"
        return [warn("cache", f"there is hardly any room; {text}", remedy, **facts, free_bytes=free)]
    return [ok("cache", text, **facts, free_bytes=free)]


def _not_kept(why: str, settings: Settings) -> Finding:
    has_other = any(os.access(each, os.W_OK | os.X_OK) for each in TEMPORARY)
    instead = "a temporary folder is taken" if has_other else "nothing is kept"
    text = f"{settings.cache_dir}: {why}; {instead}, and every start tries and measures each model anew"
    return warn("cache", text, "mount a volume there, or set --cache-dir (INFOLD_CACHE_DIR) to one")

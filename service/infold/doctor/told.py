"""What the service was told: settings that are not as by default, where they come from, and misspelt ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

from infold.doctor.findings import Finding, ok, warn
from infold.settings import PREFIX, Settings, variables

__all__ = ["check_settings"]

# What Kubernetes sets in every container for a Service of that name.
SERVICE_LINK = re.compile(rf"{PREFIX}(.*_)?(SERVICE_HOST|SERVICE_PORT.*|PORT_\d+_.*)")
SECRET = re.compile(r"//[^/@\s]*@")


def check_settings(settings: Settings, flags: Collection[str]) -> list[Finding]:
    """Each setting that differs from its default, and each variable that is no setting.

    Args:
        settings: As the service would have them.
        flags: Names of those that were given on the command line.
    """
    found = [
        ok("setting", f"{name} = {_shown(value)} ({origin})", name=name, value=_shown(value), origin=origin)
        for name, field in Settings.model_fields.items()
        if (value := getattr(settings, name)) != field.default
        for origin in ["command line" if name in flags else f"{PREFIX}{name.upper()}"]
    ]
    return [*(found or [ok("setting", "all as by default")]), *_misspelt()]


def _misspelt() -> list[Finding]:
    bare = [name.upper() for name in Settings.model_fields]
    strange = [name for name in sorted(variables()) if name.removeprefix(PREFIX) not in bare]
    links = [name for name in strange if SERVICE_LINK.fullmatch(name)]
    found = []
    for name in strange:
        if name not in links:
            near = difflib.get_close_matches(name.removeprefix(PREFIX), bare, 1)
            known = f"is {PREFIX}{near[0]} meant?" if near else ""
            remedy = known or "take it away; docs/configuration.md has all settings"
            found.append(
                warn("setting", f"{name} is set, and is no setting: it has no effect", remedy, name=name)
            )
    if links:
        text = (
            f"{links[0]} and {len(links)} in all come from a Kubernetes Service whose name begins with infold"
        )
        remedy = "nothing; enableServiceLinks: false in the pod takes them away"
        found.append(warn("setting", text, remedy, names=links))
    return found


def _shown(value: object) -> str:
    text = SECRET.sub("//...@", str(value))
    return text or "''"

"""Protocol-free serving: what is on disk, what should be loaded, and how requests share a session.

Knows neither HTTP nor ONNX graphs. Four nouns carry it: repository, manager,
batcher, session; their deciding parts are pure functions of snapshots and of
a number for a clock.
"""

from infold.serving.batch_queue import BatchQueue, Ticket
from infold.serving.batcher import Batcher
from infold.serving.catalogue import ALL, Catalogue, ModelState
from infold.serving.events import Observer, Shadowed, SilentObserver, Spent
from infold.serving.following import follow
from infold.serving.images import MAX_PICTURES
from infold.serving.lifecycle import Servable, State
from infold.serving.manager import ModelManager
from infold.serving.reading import Reading
from infold.serving.repository import ModelRepository, ModelVersion
from infold.serving.runners import Runners, clock
from infold.serving.took import Took
from infold.serving.trial import Trial
from infold.serving.versions import Load, Unload, plan
from infold.serving.watching import Watch
from infold.serving.work import Asked, Work

__all__ = [
    "ALL",
    "MAX_PICTURES",
    "Asked",
    "BatchQueue",
    "Batcher",
    "Catalogue",
    "Load",
    "ModelManager",
    "ModelRepository",
    "ModelState",
    "ModelVersion",
    "Observer",
    "Reading",
    "Runners",
    "Servable",
    "Shadowed",
    "SilentObserver",
    "Spent",
    "State",
    "Ticket",
    "Took",
    "Trial",
    "Unload",
    "Watch",
    "Work",
    "clock",
    "follow",
    "plan",
]

"""What the application builder can be told, and what it says of what it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infold.cluster.arguments import NOT_HERE, Arguments, OfIngress, OfModel, Replicas, arguments_of
from infold.cluster.one_model import Wish
from infold.errors import ConfigError
from infold.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "ray.md").read_text()


def test_a_command_line_can_name_models() -> None:
    """`serve run ... models=digits,iris` has nothing but strings."""
    found = arguments_of({"repository": "models", "models": "digits, iris", "device": "auto"})
    assert sorted(found.models) == ["digits", "iris"]
    assert found.repository == str(Path("models").absolute())


def test_a_model_without_options_is_one_with_the_usual() -> None:
    """As YAML has it: a name, a colon, and nothing."""
    assert arguments_of({"models": {"digits": None}}).models["digits"] == OfModel()


def test_a_url_stays_as_it_is() -> None:
    """It is no path."""
    assert arguments_of({"repository": "s3://bucket/models"}).repository == "s3://bucket/models"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"repo": "x"}, "repo: there is no such argument"),
        ({"models": {"m": {"max_replica": 3}}}, "models.m.max_replica: there is no such argument"),
        ({"models": {"m": {"num_cpus": -1}}}, "models.m.num_cpus: Input should be greater than"),
        ({"models": {"m": {"min_replicas": 3, "max_replicas": 2}}}, "models.m.max_replicas: 2 is less"),
        ({"models": {"m": {"versions": "newest"}}}, "models.m.versions: must be 'latest'"),
        ({"models": {"m": {"settings": {"port": 1}}}}, "models.m.settings.port: is not infold's to say here"),
        ({"models": {"../m": {}}}, "models.../m: is no name for a model here"),
        ({"models": {"Ingress": {}}}, "models.Ingress: is no name for a model here"),
        ({"ingress": {"min_replicas": 0}}, "ingress.min_replicas: must be at least 1"),
        ({"settings": {"deadline": 3}}, "settings.deadline: there is no such setting"),
        ({"settings": {"deadline_s": -3}}, "settings.deadline_s: Input should be greater than 0, not -3"),
        ({"device": "cuda", "models": ["m"]}, "models.m.num_gpus: device is cuda"),
        ({"device": "gpu"}, "device: Input should be 'cpu', 'cuda', 'tensorrt' or 'auto', not 'gpu'"),
    ],
)
def test_what_makes_no_sense_is_named(given: dict[str, Any], said: str) -> None:
    """Whoever wrote the config finds the key."""
    with pytest.raises(ConfigError, match=f"^{said}"):
        arguments_of(given)


def test_a_setting_of_the_environment_that_is_not_for_here_has_no_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node's INFOLD_WORKERS would give each replica a part of its cores."""
    from infold.cluster.arguments import settings_of

    monkeypatch.setenv("INFOLD_WORKERS", "4")
    monkeypatch.setenv("INFOLD_TLS_CERT", "/nowhere")
    monkeypatch.setenv("INFOLD_DEADLINE_S", "3")
    found = settings_of({})
    assert (found.workers, found.tls_cert, found.deadline_s) == (1, None, 3)


def test_what_is_not_for_here_is_a_setting() -> None:
    """A setting that is renamed is renamed here."""
    assert NOT_HERE.keys() <= Settings.model_fields.keys()


def test_a_wish_names_the_key_that_nobody_knows() -> None:
    """A typo in a user_config is no silent default."""
    assert Wish.of({"versions": [2, 1], "revision": 7}) == Wish((1, 2))
    assert Wish.of(None) == Wish()
    with pytest.raises(ConfigError, match=r"^user_config.version: unknown"):
        Wish.of({"version": 1})


@pytest.mark.parametrize("kind", [Arguments, Replicas, OfModel, OfIngress])
def test_every_argument_has_its_row(kind: type[Any]) -> None:
    """docs/ray.md lists what there is."""
    for name in kind.model_fields:
        assert f"`{name}`" in PAGE, name

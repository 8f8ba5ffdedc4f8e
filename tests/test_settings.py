"""Settings as they are read from the environment."""

import pytest

from infold.errors import ConfigError
from infold.settings import Settings


@pytest.mark.parametrize("link", ["tcp://10.0.0.1:8080", "udp://[fd00::1]:53"])
def test_a_service_of_kubernetes_is_no_port(monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    """Services named `infold` and `infold-observe` set these in every pod beside them."""
    monkeypatch.setenv("INFOLD_PORT", link)
    monkeypatch.setenv("INFOLD_OBSERVE_PORT", link)
    settings = Settings.read()
    assert (settings.port, settings.observe_port) == (8080, None)
    assert Settings.read(port=9).port == 9


@pytest.mark.parametrize("name", ["INFOLD_PORT", "INFOLD_OBSERVE_PORT"])
@pytest.mark.parametrize("text", ["http", "80800", "-1", "x tcp://"])
def test_whatever_else_is_no_port_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    """It names the variable."""
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError, match=name):
        Settings.read()

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.serving import Load, State, Unload, plan
from infold.serving.versions import fallbacks, wanted

policies = st.sampled_from(["latest", "latest:1", "latest:2", "all", (1, 3)])


def settle(
    found: set[int], held: dict[int, State], policy: str | tuple[int, ...], bad: set[int]
) -> list[object]:
    """Carry out the plan until it is quiet, versions in `bad` failing to load."""
    actions: list[object] = []
    while action := plan(found, held, policy):
        actions.append(action)
        assert len(actions) < 50, "the plan does not come to rest"
        if isinstance(action, Load):
            held[action.version] = State.FAILED if action.version in bad else State.READY
        else:
            held[action.version] = State.UNLOADED
    return actions


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("latest", [4]), ("latest:2", [4, 3]), ("all", [4, 3, 1]), ((1, 3, 9), [3, 1])],
)
def test_a_policy_names_the_versions_it_wants(policy: str | tuple[int, ...], expected: list[int]) -> None:
    """Numbers count, not names or dates; versions that are not there are not wanted."""
    assert wanted({1, 3, 4}, policy) == expected


def test_a_new_version_is_loaded_before_the_old_one_goes() -> None:
    """A model is never without a version that answers."""
    actions = settle({1, 2}, {1: State.READY}, "latest", bad=set())
    assert actions == [Load(2), Unload(1)]


def test_the_old_version_stays_when_the_new_one_fails() -> None:
    """A corrupt upload must not take the model down."""
    held = {1: State.READY}
    actions = settle({1, 2}, held, "latest", bad={2})
    assert actions == [Load(2)]
    assert held[1] is State.READY


def test_while_a_version_loads_nothing_is_unloaded() -> None:
    """Its outcome is not known yet."""
    assert plan({1, 2}, {1: State.READY, 2: State.LOADING}, "latest") is None


def test_a_model_that_has_vanished_is_unloaded() -> None:
    """Nothing on disk means nothing is wanted."""
    assert plan(set(), {1: State.READY}, "latest") == Unload(1)


@given(st.sets(st.integers(1, 5)), st.sets(st.integers(1, 5)), policies, st.sets(st.integers(1, 5)))
def test_the_plan_always_comes_to_rest_and_serves_what_it_can(
    found: set[int], ready: set[int], policy: str | tuple[int, ...], bad: set[int]
) -> None:
    """From any state: all wanted versions are tried, and if one works nothing unwanted is left."""
    held = dict.fromkeys(ready, State.READY)
    settle(found, held, policy, bad)
    aspired = set(wanted(found, policy))
    assert aspired <= set(held)
    serving = {version for version, state in held.items() if state is State.READY}
    assert len(serving) <= len(aspired)
    assert serving == aspired or not aspired <= serving
    assert bool(serving) or not (aspired and ready)


@given(
    st.sets(st.integers(1, 5)),
    st.dictionaries(st.integers(1, 5), st.sampled_from([State.READY, State.FAILED, State.UNLOADED])),
    policies,
    st.sets(st.integers(1, 5)),
    st.sets(st.integers(1, 5)),
)
def test_what_has_changed_is_loaded_once_and_the_plan_comes_to_rest(
    found: set[int],
    held: dict[int, State],
    policy: str | tuple[int, ...],
    changed: set[int],
    bad: set[int],
) -> None:
    """If it is wanted; one that does not load leaves what answered before."""
    aspired = set(wanted(found, policy))
    before, left, loads = dict(held), set(changed), list[int]()
    for _ in range(50):
        match plan(found, held, policy, left):
            case Load(version):
                loads.append(version)
                left.discard(version)
                if version not in bad:
                    held[version] = State.READY
                elif held.get(version) is not State.READY:
                    held[version] = State.FAILED
            case Unload(version):
                assert held[version] is State.READY
                held[version] = State.UNLOADED
            case None:
                break
    else:
        pytest.fail("the plan does not come to rest")
    new = {version for version in aspired if before.get(version) in (None, State.UNLOADED)}
    tried = new | (aspired & changed)
    assert sorted(each for each in loads if each in aspired) == sorted(tried)
    assert set(loads) - aspired <= set(fallbacks(found, policy))
    assert len(loads) == len(set(loads))
    assert plan(found, held, policy, left) is None
    for version in aspired:
        was_ready = before.get(version) is State.READY
        has_failed = before.get(version) is State.FAILED and version not in changed
        assert (held[version] is State.READY) == (was_ready or not (version in bad or has_failed))
    serving = {version for version, state in held.items() if state is State.READY}
    assert len(serving) <= len(aspired)
    assert serving == aspired or not aspired <= serving
    assert serving or not aspired or State.READY not in before.values()


def test_a_changed_version_that_nobody_wants_is_not_loaded() -> None:
    """Nor one that is not there any more."""
    held = {1: State.UNLOADED, 2: State.READY, 3: State.FAILED}
    assert plan({1, 2}, held, "latest", changed={1, 3}) is None
    assert plan({1, 2}, held, "latest", changed={1, 2}) == Load(2)

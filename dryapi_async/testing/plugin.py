"""A pytest plugin: the simulated service and a client of it as fixtures, and a mark that makes the clock jump.

pytest finds it by itself. It costs next to nothing: where no test asks for a fixture, neither the client
nor the simulator is imported, nor anything that they need.

The service runs in the loop that runs the test, if anyio's plugin or pytest-asyncio (0.26 or newer, in either mode) does so, and else in a
thread of its own.
"""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from importlib import import_module
from inspect import iscoroutinefunction
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from dryapi_async import Client
    from dryapi_async.simulator import Simulator
    from dryapi_async.testing.service import Service

CLOCK_MARK: Final = "dryapi_jumping_clock"
_MARKS: Final = (
    "dryapi_simulator(**options): options of the fixture's Simulator, such as tier='basic' or duration=600",
    "dryapi_client(**options): options of the fixture's Client, such as journal='jobs.db'",
    f"{CLOCK_MARK}: run this async test in a loop whose clock jumps to the next timer in place of sleeping",
)
_ASYNCIO_FIXTURES: Final = "dryapi_async.testing.asyncio_fixtures"
_LOOP_FACTORIES: Final = "dryapi_async.testing.loop_factories"
_IN_ANYIO, _IN_THREAD = "_dryapi_service_in_anyio_loop", "_dryapi_service_in_thread"
_NO_RUNNER: Final = (
    "This async test has no runner: mark it @pytest.mark.anyio, or pip install pytest-asyncio and mark it @pytest.mark.asyncio."
)
_OLD_RUNNER: Final = (
    "This async test needs pytest-asyncio 0.26 or newer (pip install -U pytest-asyncio), or @pytest.mark.anyio in its place."
)
_SERVICE: Final = pytest.StashKey["Service"]()


@pytest.fixture
def dryapi_simulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> "Simulator":
    """Serve the simulated service, for this test alone.

    `DRYAPI_API_KEY`, `DRYAPI_BASE_URL` and `DRYAPI_WEBHOOK_SECRET` lead to it meanwhile, so that clients which the tested code makes by
    itself are its, too. Results are small files, and a job takes 10 ms (where the clock jumps, as long as the service's own);
    ``@pytest.mark.dryapi_simulator(duration=2, tier="basic")`` says otherwise, for a test, a class or a module.
    """
    served: Service = request.getfixturevalue(_find_host(request))
    request.node.stash[_SERVICE] = served
    _import_service().lead_environment(monkeypatch, served.simulator, _read_options(request, "dryapi_simulator"))
    return served.simulator


@pytest.fixture
def dryapi_client(request: pytest.FixtureRequest, dryapi_simulator: "Simulator") -> "Client":
    """Open a client of the test's simulator; it reads a job every 10 ms (where the clock jumps, as it does by itself).

    ``@pytest.mark.dryapi_client(journal="jobs.db")`` gives it options. A test that is no coroutine finishes its calls in ``asyncio.run``.
    """
    del dryapi_simulator  # it is up
    if _is_coroutine(request) and _find_host(request) == _IN_THREAD:
        pytest.fail(_NO_RUNNER if request.node.get_closest_marker("asyncio") is None else _OLD_RUNNER, pytrace=False)
    client: Client = request.node.stash[_SERVICE].open_client(_read_options(request, "dryapi_client"))
    return client


# --- where it is served


def _is_coroutine(request: pytest.FixtureRequest) -> bool:
    function = getattr(request.node, "obj", None)
    return iscoroutinefunction(getattr(getattr(function, "hypothesis", None), "inner_test", function))


def _find_host(request: pytest.FixtureRequest) -> str:
    """Name the fixture that serves where this test runs: a server in a loop that stands still would never answer."""
    if not _is_coroutine(request):
        return _IN_THREAD
    in_anyio = "anyio_backend" in request.fixturenames
    plugins = request.config.pluginmanager
    if not plugins.has_plugin("asyncio") or (mark := request.node.get_closest_marker("asyncio")) is None:
        return _IN_ANYIO if in_anyio else _IN_THREAD
    if in_anyio:
        pytest.fail("anyio and pytest-asyncio would both run this test, each in its own loop: set asyncio_mode = strict", pytrace=False)
    if not plugins.has_plugin(_ASYNCIO_FIXTURES):
        return _IN_THREAD
    return _name_asyncio_fixture(mark.kwargs.get("loop_scope") or mark.kwargs.get("scope") or _read_loop_scope(request.config))


def _name_asyncio_fixture(scope: str) -> str:
    return f"_dryapi_service_in_{scope}_loop"


def _import_service() -> Any:
    return import_module("dryapi_async.testing.service")


def _read_options(request: pytest.FixtureRequest, mark: str) -> dict[str, Any]:
    """Put the options of a test's marks together: its own before its class's before its module's."""
    options: dict[str, Any] = {}
    for found in request.node.iter_markers(mark):
        if found.args:
            pytest.fail(f"@pytest.mark.{mark} takes options by name", pytrace=False)
        options = {**found.kwargs, **options}
    return options


async def _serve(request: pytest.FixtureRequest) -> "AsyncGenerator[Service]":
    service = _import_service()
    if request.node.get_closest_marker(CLOCK_MARK) is not None:
        service.check_jumping()
    async with service.serve_here(_read_options(request, "dryapi_simulator")) as served:
        yield served


@pytest.fixture(name=_IN_ANYIO)
async def _serve_in_anyio(request: pytest.FixtureRequest, anyio_backend_name: str) -> "AsyncGenerator[Service]":
    if anyio_backend_name != "asyncio":
        pytest.skip(f"dryapi_async runs on asyncio, not on {anyio_backend_name}")
    async for served in _serve(request):
        yield served


@pytest.fixture(name=_IN_THREAD)
def _serve_in_thread(request: pytest.FixtureRequest) -> "Generator[Service]":
    if request.node.get_closest_marker(CLOCK_MARK) is not None:
        pytest.fail(f"{CLOCK_MARK} needs an async test that anyio's plugin or pytest-asyncio runs", pytrace=False)
    with _import_service().serve_in_thread(_read_options(request, "dryapi_simulator")) as served:
        yield served


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what anyio would run on trio, which it does by itself where trio is installed: the client is asyncio's."""
    left_out = [item for item in items if "dryapi_simulator" in _names(item) and _backend(item) == "trio"]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Import what the fixtures need before the first test that uses them: no test's own time has it."""
    if any("dryapi_simulator" in _names(item) for item in session.items):
        _import_service()


def _names(item: pytest.Item) -> list[str]:
    return item.fixturenames if isinstance(item, pytest.Function) else []


def _backend(item: pytest.Item) -> object:
    parameters: Mapping[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    backend: Any = parameters.get("anyio_backend")
    return backend if isinstance(backend, str | None) else backend[0]


# --- pytest-asyncio


def pytest_configure(config: pytest.Config) -> None:
    """Make the marks known, and, where pytest-asyncio is, the fixtures that it runs."""
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)
    if config.pluginmanager.has_plugin("asyncio") and _read_loop_scope(config):
        config.pluginmanager.register(_make_asyncio_fixtures(), _ASYNCIO_FIXTURES)


def _read_loop_scope(config: pytest.Config) -> str:
    """Read whose loop runs pytest-asyncio's tests; empty where it is too old to say."""
    try:
        return str(config.getini("asyncio_default_test_loop_scope"))
    except ValueError:
        return ""


def _make_asyncio_fixtures() -> ModuleType:
    """Make a fixture for each loop that pytest-asyncio may run a test in."""
    fixtures = ModuleType(_ASYNCIO_FIXTURES)
    for scope in ("function", "class", "module", "package", "session"):
        setattr(fixtures, scope, _make_asyncio_fixture(scope))
    return fixtures


def _make_asyncio_fixture(scope: str) -> object:
    # pytest-asyncio writes its notes on the function itself, so each fixture needs one of its own.
    async def serve(request: pytest.FixtureRequest) -> "AsyncGenerator[Service]":
        async for served in _serve(request):
            yield served

    return import_module("pytest_asyncio").fixture(serve, loop_scope=scope, name=_name_asyncio_fixture(scope))


# --- the clock


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Generator[None]:
    """Let the loop of a marked test jump: by anyio's own parameter, or pytest-asyncio's own hook."""
    plugins = metafunc.config.pluginmanager
    if metafunc.definition.get_closest_marker(CLOCK_MARK) is not None:
        if hasattr(plugins.hook, "pytest_asyncio_loop_factories") and not plugins.has_plugin(_LOOP_FACTORIES):
            plugins.register(_LoopFactories(), _LOOP_FACTORIES)
        if "anyio_backend" in metafunc.fixturenames:
            backend = ("asyncio", {"loop_factory": _find_jumping_loop()})
            metafunc.definition.add_marker(pytest.mark.parametrize("anyio_backend", [backend], ids=["jumping"], scope="module"))
    yield


class _LoopFactories:
    """pytest-asyncio's hook. Once it is there it answers for all tests, so it comes with the first marked one."""

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_asyncio_loop_factories(self, item: pytest.Item) -> "Mapping[str, Callable[[], AbstractEventLoop]]":
        """Name the one loop that runs a test."""
        if item.get_closest_marker(CLOCK_MARK) is not None:
            return {"jumping": _find_jumping_loop()}
        return {"asyncio": import_module("asyncio").new_event_loop}


def _find_jumping_loop() -> "Callable[[], AbstractEventLoop]":
    loop: Callable[[], AbstractEventLoop] = import_module("dryapi_async.testing.clock").JumpingLoop
    return loop


# --- what a failed test says


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show with a failed test what was asked of its simulator, and how often that was charged."""
    report: pytest.TestReport = (yield).get_result()
    served = item.stash.get(_SERVICE, None)
    if served is not None and report.when == "call" and report.failed:
        report.sections.append((f"dryapi_simulator: charged {served.simulator.jobs_billed} times", served.describe_requests()))
        if unmet := served.describe_unmet_faults():
            report.sections.append(("dryapi_simulator: faults", unmet))

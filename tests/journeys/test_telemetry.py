"""P34: OpenTelemetry's spans and metrics, out of events; tested with its own exporters in memory, over real sockets."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk comes with the extra dev")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from dryapi_async import Client, JobFailedError, SubmissionUnknownError
from dryapi_async.events import Event, tell_each
from dryapi_async.simulator import Fault, Simulator
from dryapi_async.telemetry import Telemetry

from ..conftest import FOX, PNG, edit, give_up, make_client, make_sim, seen, until

pytestmark = pytest.mark.anyio


class Watched:
    """A telemetry whose spans and metrics stay in memory, and a tracer of the user's own."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        spans = TracerProvider()
        spans.add_span_processor(SimpleSpanProcessor(exporter or self._exporter))
        self._metrics = MeterProvider(metric_readers=[self._reader])
        self.tracer: Tracer = spans.get_tracer("the user's")
        self.hook = Telemetry(tracer_provider=spans, meter_provider=self._metrics)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()

    def find(self, name: str) -> ReadableSpan:
        (found,) = (one for one in self.spans if one.name == name)
        return found

    def tree(self) -> list[str]:
        """Give each span below its parent, in the order in which they began."""
        below: dict[int | None, list[ReadableSpan]] = {}
        for one in sorted(self.spans, key=lambda span: span.start_time or 0):
            below.setdefault(None if one.parent is None else one.parent.span_id, []).append(one)

        def walk(parent: int | None, depth: int) -> Iterator[str]:
            for one in below.get(parent, []):
                yield "  " * depth + one.name
                assert one.context is not None
                yield from walk(one.context.span_id, depth + 1)

        return list(walk(None, 0))

    def points(self, name: str) -> list[tuple[dict[str, Any], float]]:
        """Give a metric's attributes and values; of a histogram its sums."""
        data = self._reader.get_metrics_data()
        found: list[tuple[dict[str, Any], float]] = []
        for metric in (one for part in data.resource_metrics for scope in part.scope_metrics for one in scope.metrics) if data else ():
            if metric.name == name:
                for point in metric.data.data_points:
                    assert isinstance(point, NumberDataPoint | HistogramDataPoint)
                    found.append((dict(point.attributes or {}), point.value if isinstance(point, NumberDataPoint) else point.sum))
        return found

    def close(self) -> None:
        self._metrics.shutdown()


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.close()


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def where(sim: Simulator) -> dict[str, Any]:
    """Give the attributes that say whom a request to the API went to."""
    host, _, port = sim.url.removeprefix("http://").partition(":")
    return {"server.address": host, "server.port": int(port)}


async def test_p34_a_call_is_a_tree_of_spans_below_the_users_own(sim: Simulator, tmp_path: Path, watched: Watched) -> None:
    async with make_client(sim, on_event=watched.hook) as client:
        with watched.tracer.start_as_current_span("mine") as mine:
            path = await client.call(FOX).save(tmp_path / "fox.png")
            assert trace.get_current_span() is mine
    assert watched.tree() == [
        "mine",
        "  call txt2img",
        "    submit txt2img",
        "      POST txt2img",
        "    wait txt2img",
        "    download",
        "      GET result",
    ]
    (job,) = sim.jobs
    assert attributes_of(watched.find("call txt2img")) == {"dryapi.operation": "txt2img"}
    assert attributes_of(watched.find("submit txt2img")) == {"dryapi.operation": "txt2img", "dryapi.request_id": job}
    reads = len(seen(sim, "request-status"))
    assert reads
    assert attributes_of(watched.find("wait txt2img")) == {
        "dryapi.operation": "txt2img", "dryapi.request_id": job, "dryapi.job.state": "done", "dryapi.job.status_reads": reads
    }  # fmt: skip
    assert attributes_of(watched.find("download")) == {"dryapi.request_id": job}
    post = watched.find("POST txt2img")
    assert (post.kind, post.instrumentation_scope.name if post.instrumentation_scope else "") == (SpanKind.CLIENT, "dryapi_async")
    assert attributes_of(post) == {
        "http.request.method": "POST", "http.response.status_code": 200, "dryapi.operation": "txt2img", **where(sim)
    }  # fmt: skip
    file = attributes_of(watched.find("GET result"))
    assert (file["http.request.method"], file["http.response.status_code"], file["dryapi.request_id"]) == ("GET", 200, job)
    assert all(one.status.status_code is StatusCode.UNSET for one in watched.spans)
    assert watched.points("dryapi.client.status_reads") == [({}, reads)]
    moved = {point["network.io.direction"]: count for point, count in watched.points("dryapi.client.io")}
    assert moved == {"transmit": seen(sim, "txt2img")[0].body_size, "receive": moved["receive"]}
    assert moved["receive"] > path.stat().st_size
    ((waited_for, seconds),) = watched.points("dryapi.client.job.wait")
    assert (waited_for, seconds) == ({"dryapi.operation": "txt2img"}, pytest.approx(2, abs=1.5))
    assert watched.points("dryapi.client.rate_limited") == watched.points("dryapi.client.submits.unknown") == []


async def test_p34_a_429_then_success(sim: Simulator, watched: Watched) -> None:
    async with make_client(sim, on_event=watched.hook) as client:
        sim.script("txt2img", Fault.rate_limited(retry_after=3))
        await client.call(FOX)
    assert watched.tree() == ["call txt2img", "  submit txt2img", "    POST txt2img", "    POST txt2img"]
    first, second = (one for one in watched.spans if one.name == "POST txt2img")
    assert attributes_of(first) == {
        "http.request.method": "POST", "http.response.status_code": 429, "error.type": "429", "dryapi.operation": "txt2img", **where(sim)
    }  # fmt: skip
    assert first.status.status_code is StatusCode.ERROR
    assert attributes_of(second)["http.request.resend_count"] == 1
    assert watched.find("submit txt2img").status.status_code is StatusCode.UNSET
    assert watched.points("dryapi.client.rate_limited") == [({"dryapi.operation": "txt2img"}, 1)]
    ((lane, seconds),) = watched.points("dryapi.client.limit.wait")
    assert (lane, seconds) == ({"dryapi.lane": "txt2img"}, pytest.approx(3.3, abs=0.4))
    durations = {point.get("error.type"): point for point, _ in watched.points("http.client.request.duration")}
    assert set(durations) == {None, "429"}
    assert durations[None] == {"http.request.method": "POST", "http.response.status_code": 200, **where(sim)}


async def test_p34_a_submit_whose_fate_is_unknown(sim: Simulator, watched: Watched) -> None:
    async with make_client(sim, on_event=watched.hook) as client:
        sim.script("txt2img", Fault.reset())
        with pytest.raises(SubmissionUnknownError):
            await client.call(FOX).result()
    assert watched.tree() == ["call txt2img", "  submit txt2img", "    POST txt2img"]
    for name in ("call txt2img", "submit txt2img"):
        assert attributes_of(watched.find(name))["error.type"] == "SubmissionUnknownError"
        assert watched.find(name).status.status_code is StatusCode.ERROR
    post = attributes_of(watched.find("POST txt2img"))
    assert post["error.type"] in {"ServerDisconnectedError", "ClientOSError"}
    assert "http.response.status_code" not in post
    assert watched.points("dryapi.client.submits.unknown") == [({"dryapi.operation": "txt2img"}, 1)]


async def test_p34_a_job_that_fails(sim: Simulator, watched: Watched) -> None:
    async with make_client(sim, on_event=watched.hook) as client:
        sim.script("txt2img", Fault.job_error())
        with pytest.raises(JobFailedError):
            await client.call(FOX).result()
    wait = watched.find("wait txt2img")
    assert attributes_of(wait)["dryapi.job.state"] == "error"
    for span in (wait, watched.find("call txt2img")):
        assert (attributes_of(span)["error.type"], span.status.status_code) == ("JobFailedError", StatusCode.ERROR)
    assert watched.find("submit txt2img").status.status_code is StatusCode.UNSET
    ((waited_for, _),) = watched.points("dryapi.client.job.wait")
    assert waited_for == {"dryapi.operation": "txt2img", "error.type": "JobFailedError"}


async def test_p34_downloads_have_their_own_attempts(sim: Simulator, tmp_path: Path, watched: Watched) -> None:
    async with make_client(sim, on_event=watched.hook) as client:
        one, other = await asyncio.gather(client.call(FOX).result(), edit(client, image=PNG).result())
        watched._exporter.clear()
        sim.script("storage", Fault.status(503))
        await asyncio.gather(one.save(tmp_path / "one.png"), other.save(tmp_path / "other.png"))
    assert sorted(watched.tree()) == sorted(["download", "  GET result", "  GET result", "download", "  GET result"])
    by_id = {span.context.span_id: span for span in watched.spans if span.context is not None}
    for file in (span for span in watched.spans if span.name == "GET result"):
        assert file.parent is not None
        assert attributes_of(file)["dryapi.request_id"] == attributes_of(by_id[file.parent.span_id])["dryapi.request_id"]


async def test_p34_downloads_of_one_job_at_once_have_each_their_own_attempts(sim: Simulator, tmp_path: Path, watched: Watched) -> None:
    async with make_client(sim, on_event=watched.hook) as client:
        image = await client.call(FOX).result()
        watched._exporter.clear()
        sim.script("storage", Fault.status(503))
        await asyncio.gather(image.save(tmp_path / "one.png"), image.save(tmp_path / "other.png"), image.read())
    one = ["download", "  GET result"]
    assert watched.tree() in ([*one, "  GET result", *one, *one], [*one, *one, "  GET result", *one], [*one, *one, *one, "  GET result"])


async def test_p34_two_calls_at_once_keep_their_parents(sim: Simulator, tmp_path: Path, watched: Watched) -> None:
    async def draw(name: str) -> None:
        with watched.tracer.start_as_current_span(name) as mine:
            await client.call(FOX).save(tmp_path / f"{name}.png")
            assert trace.get_current_span() is mine

    async with make_client(sim, on_event=watched.hook) as client:
        await asyncio.gather(draw("one"), draw("other"))
        below = ["  call txt2img", "    submit txt2img", "      POST txt2img", "    wait txt2img", "    download", "      GET result"]
        assert sorted(watched.tree()) == sorted(["one", *below, "other", *below])
        for name in ("one", "other"):
            trace_of = watched.find(name).get_span_context().trace_id
            ours = [span for span in watched.spans if span.get_span_context().trace_id == trace_of]
            assert len({attributes_of(span).get("dryapi.request_id") for span in ours} - {None}) == 1


async def test_p34_a_stream_leaves_no_span_in_its_readers_context(sim: Simulator, watched: Watched) -> None:
    async with make_client(sim, on_event=watched.hook) as client:
        with watched.tracer.start_as_current_span("mine") as mine:
            job = await client.call(FOX)
            async for _ in job.updates():
                assert trace.get_current_span() is mine
            async for _ in (await job.result()).stream():
                assert trace.get_current_span() is mine
    below = ["  call txt2img", "    submit txt2img", "      POST txt2img", "  wait txt2img", "  download", "    GET result"]
    assert watched.tree() == ["mine", *below]


async def test_p34_who_goes_away_is_no_error(sim: Simulator, watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    async with make_client(sim, on_event=watched.hook) as client:
        sim.hold()
        task = asyncio.create_task(client.call(FOX).result())
        await until(lambda: seen(sim, "request-status"))
        await give_up(task)
        call = client.call(FOX)
        call.send(None)
        # Closed from another context than it was begun in.
        await asyncio.create_task(_close(call))
    for name in ("wait txt2img", "call txt2img"):
        spans = [one for one in watched.spans if one.name == name]
        assert all(attributes_of(one)["dryapi.cancelled"] for one in spans)
        assert all(one.status.status_code is StatusCode.UNSET for one in spans)
        assert len(spans) == 1 + (name == "call txt2img")
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def _close(call: Any) -> None:
    call.close()


class _Broken(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise OSError(f"no collector for {len(spans)} spans")


async def test_p34_an_exporter_that_raises_breaks_no_call(sim: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = Watched(_Broken())
    async with make_client(sim, on_event=broken.hook) as client:
        assert (await client.call(FOX).save(tmp_path / "fox.png")).exists()
    broken.close()
    assert sim.jobs_billed == 1
    assert any("no collector" in (record.exc_text or record.getMessage()) or record.exc_info for record in caplog.records)


async def test_p34_a_hook_of_ones_own_hears_the_same(sim: Simulator, watched: Watched) -> None:
    events: list[Event] = []
    async with make_client(sim, on_event=tell_each(watched.hook, events.append)) as client:
        await client.balance()
    assert watched.tree() == ["call balance", "  GET balance"]
    assert len(events) == 3


async def test_p34_attempts_can_be_left_to_aiohttps_instrumentation(sim: Simulator, watched: Watched) -> None:
    provider = TracerProvider()
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    current: list[str] = []

    def look(_: Event) -> None:
        current.append(getattr(trace.get_current_span(), "name", ""))

    async with make_client(sim, on_event=tell_each(Telemetry(tracer_provider=provider, attempts=False), look)) as client:
        await client.call(FOX)
    assert [one.name for one in exporter.get_finished_spans()] == ["submit txt2img", "call txt2img"]
    # Where aiohttp sends, the submit is the current span: another's spans become its children.
    assert "submit txt2img" in current


async def test_p34_no_span_or_metric_has_a_secret(tmp_path: Path, watched: Watched) -> None:
    async with make_sim(key="7|a-secret-key-of-someone") as sim, make_client(sim, on_event=watched.hook) as client:
        sim.script("img2img", Fault.rate_limited(retry_after=1))
        sim.script("storage", Fault.status(403), Fault.truncate())
        await edit(client, image=PNG, prompt="a very private prompt").save(tmp_path / "private-name.png")
        await client.balance()
        said = "".join(one.to_json() for one in watched.spans) + str(watched._reader.get_metrics_data())
        links = [one.path for one in sim.storage_requests]
    assert links
    assert "img2img" in said
    for secret in ("a-secret-key", "very private", "private-name", "signature", "Signature", *links):
        assert secret not in said


async def test_p34_nothing_stays_of_spans_that_have_ended(sim: Simulator, tmp_path: Path, watched: Watched) -> None:
    async with make_client(sim, on_event=watched.hook) as client:
        await asyncio.gather(*(client.call(FOX).save(tmp_path / f"{number}.png") for number in range(10)))
        job = await client.call(FOX)
        await asyncio.gather(job.result(), job.result())
    assert (watched.hook._open, watched.hook._waits, watched.hook._downloads) == ({}, {}, {})


def test_without_opentelemetry_the_extra_is_named() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None\nimport dryapi_async.telemetry"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'dryapi-async[otel]'" in done.stderr.splitlines()[-1]


def test_the_client_imports_no_opentelemetry() -> None:
    code = "import sys, dryapi_async.client; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_hook_is_taken_as_one() -> None:
    assert Client("1|some-key-or-other", on_event=Telemetry()).with_options(api_key="2|some-key-or-other")
    assert logging.getLogger("dryapi_async").handlers == []

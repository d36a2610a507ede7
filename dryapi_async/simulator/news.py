"""Tell of what happens to jobs: over the push channel and by webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dryapi_async.simulator.agenda import Agenda, Moment
from dryapi_async.simulator.push import EVENT
from dryapi_async.simulator.statuses import results
from dryapi_async.simulator.webhooks import Webhooks

if TYPE_CHECKING:
    import asyncio
    import random
    import ssl as ssl_module

    from dryapi_async.simulator.account import Account
    from dryapi_async.simulator.jobs import Change, SimJob


class News:
    """Follows the jobs that somebody wants to hear of."""

    def __init__(
        self,
        account: Account,
        rng: random.Random,
        loop: asyncio.AbstractEventLoop,
        *,
        url: str | None,
        secret: str | None,
        ssl: ssl_module.SSLContext | None,
    ) -> None:
        self.webhooks: Webhooks = Webhooks(account, rng, url=url, secret=secret, ssl=ssl)
        self._account = account
        self._push = account.push
        self._agenda = Agenda(loop, self._tell)
        account.board.listeners.append(self._note)
        account.push.on_subscribe = self._follow_all

    async def close(self) -> None:
        """Tell nothing more."""
        self._agenda.stop()
        if self._note in self._account.board.listeners:
            self._account.board.listeners.remove(self._note)
        await self.webhooks.close()

    def _note(self, job: SimJob, change: Change) -> None:
        if change == "made":
            if self._push.subscribed or self.webhooks.wants(job):
                self._follow(job, job.created)
        elif job.followed or self._push.subscribed or self.webhooks.wants(job):
            self._tell(job, "ended" if change == "moved" else "progress")

    def _follow(self, job: SimJob, since: float) -> None:
        job.followed = True
        self._agenda.follow(job, self._push.steps, since=since)

    def _follow_all(self) -> None:
        now = self._account.clock()
        for job in self._account.board.jobs.values():
            if not job.followed and now < job.ends:
                self._follow(job, now)

    def _tell(self, job: SimJob, moment: Moment) -> None:
        self.webhooks.tell(job, moment)
        push = self._push
        # Failures are never pushed: they are told by webhook and by status reads only.
        if push.muted or not push.subscribed or (moment == "ended" and job.failing):
            return
        done = moment == "ended"
        progress = job.progress(self._account.clock())
        message: dict[str, Any] = {"request_id": job.request_id, "status": "done" if done else "processing", "progress": f"{progress:.2f}"}
        if done and (link := results(self._account, job)["result_url"]) is not None:
            message["result_url"] = link
        if not done and push.preview is not None:
            message["preview"] = push.preview
        push.send(EVENT, message)

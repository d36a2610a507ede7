"""An embedded stand-in for the dryAPI / deAPI inference service: real sockets, real files, faults on request.

It answers from its own table of the wire contract and shares no code with the client, so that a mistake of one isn't
repeated by the other. Pictures, sounds and texts are stand-ins (see :mod:`dryapi_async.simulator.media`).
"""

from dryapi_async.simulator.faults import Fault, Scripted
from dryapi_async.simulator.jobs import SimJob
from dryapi_async.simulator.models import SimModel, stock_models
from dryapi_async.simulator.received import Received, ReceivedFile
from dryapi_async.simulator.server import Simulator
from dryapi_async.simulator.variants import VARIANTS

__all__ = ["VARIANTS", "Fault", "Received", "ReceivedFile", "Scripted", "SimJob", "SimModel", "Simulator", "stock_models"]

"""A program that stands for `vllm`: it takes `vllm serve`'s arguments, answers as the mock endpoint, has a worker.

What it was called with stands in the file $FAKE_VLLM_CALL, its worker's process id in $FAKE_VLLM_WORKER. Arguments that
the real one does not know make it fail in the real one's ways: --die, --stall.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from aiohttp import web
from mock_endpoint import Endpoint, Faults

# As vLLM 0.32 writes it, with two engines.
METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="a model, of two {{engines}}"}} 3.0
vllm:num_requests_running{{engine="1",model_name="a model, of two {{engines}}"}} 4.0
vllm:num_requests_waiting{{engine="0",model_name="m"}} 2.0
vllm:num_requests_waiting_by_reason{{engine="0",model_name="m",reason="capacity"}} 2.0
vllm:prompt_tokens_total{{engine="0",model_name="m"}} 900.0
vllm:generation_tokens_total{{engine="0",model_name="m"}} 1.2e+03
vllm:request_success_total{{engine="0",finished_reason="stop",model_name="m"}} {answered}.0
vllm:request_success_total{{engine="0",finished_reason="length",model_name="m"}} 0.0
vllm:request_success_created{{engine="0",finished_reason="stop",model_name="m"}} 1.7953651742400527e+09
vllm:kv_cache_usage_perc{{engine="0",model_name="m"}} 0.25
vllm:e2e_request_latency_seconds_sum NaN
"""

_FAILURE = """\
(VllmWorker-0 pid=7) ERROR 11-22 16:27:02 [executor.py:953] Traceback (most recent call last):
(VllmWorker-0 pid=7) ERROR 11-22 16:27:02 [executor.py:953] torch.OutOfMemoryError: CUDA out of memory: tried [much]
(APIServer pid=5) Traceback (most recent call last):
(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above.
"""


def main() -> None:
    arguments = sys.argv[1:]
    Path(os.environ["FAKE_VLLM_CALL"]).write_text(json.dumps(arguments), encoding="utf-8")
    if "--die" in arguments:
        print(_FAILURE + "\n".join(f"(APIServer pid=5) frame {number}" for number in range(40)))
        sys.exit(3)
    if "--stall" in arguments:
        print("(EngineCore pid=7) INFO 11-22 16:26:36 [core.py:133] Loading weights", flush=True)
        time.sleep(60)
    worker = subprocess.Popen(["sleep", "600"])
    Path(os.environ["FAKE_VLLM_WORKER"]).write_text(str(worker.pid), encoding="utf-8")
    endpoint = Endpoint(Faults())
    application = endpoint.application()

    async def metrics(_request: web.Request) -> web.Response:
        return web.Response(text=METRICS.format(answered=endpoint.requests))

    application.router.add_get("/metrics", metrics)
    value = dict(itertools.pairwise(arguments))
    web.run_app(application, host=value["--host"], port=int(value["--port"]), print=None)


if __name__ == "__main__":
    main()

"""Native Triton: the server that the wheel of nvidia-pytriton carries, with its Python backend."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path

CONFIG = """
name: "null"
backend: "python"
max_batch_size: 32
input [ { name: "pcm" data_type: TYPE_INT16 dims: [ -1 ] } ]
output [ { name: "p" data_type: TYPE_FP32 dims: [ 9 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
dynamic_batching { max_queue_delay_microseconds: 5000 preferred_batch_size: [ 8, 16, 32 ] }
"""
MODEL = """
import sys
sys.path.insert(0, {here!r})
import triton_python_backend_utils as backend
from null_model import infer


class TritonPythonModel:
    def execute(self, requests):
        batch = [backend.get_input_tensor_by_name(one, "pcm").as_numpy()[0] for one in requests]
        return [backend.InferenceResponse([backend.Tensor("p", y[None])]) for y in infer(batch)]
"""

if __name__ == "__main__":
    port = int(sys.argv[1])
    here = Path(__file__).resolve().parent
    packages = Path(sysconfig.get_paths()["purelib"])
    home = Path(sys.prefix) / "tritonserver"
    if not home.exists():
        shutil.copytree(packages / "pytriton/tritonserver", home)
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        # The stub has to lie beside libtriton_python.so.
        stub = home / f"python_backend_stubs/{version}/triton_python_backend_stub"
        shutil.copy(stub, home / "backends/python")
    model = home / "models/null"
    (model / "1").mkdir(parents=True, exist_ok=True)
    (model / "config.pbtxt").write_text(CONFIG)
    (model / "1/model.py").write_text(MODEL.format(here=str(here)))
    os.environ["LD_LIBRARY_PATH"] = str(packages / "nvidia_pytriton.libs")
    os.environ["PYTHONPATH"] = str(packages)
    os.environ["PATH"] = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    flags = {
        "grpc-address": "127.0.0.1",
        "grpc-port": port,
        "http-address": "127.0.0.1",
        "http-port": port + 1,
        "metrics-port": port + 2,
        "model-repository": home / "models",
        "backend-directory": home / "backends",
        "cache-directory": home / "caches",
    }
    command = [str(home / "bin/tritonserver"), *(f"--{key}={flags[key]}" for key in flags)]
    os.execv(command[0], command)

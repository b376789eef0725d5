"""TorchServe over HTTP; needs Java 17 (Debian: default-jre-headless)."""

import os
import subprocess
import sys
from pathlib import Path

CONFIG = """
inference_address=http://127.0.0.1:{port}
management_address=http://127.0.0.1:{management}
metrics_address=http://127.0.0.1:{metrics}
grpc_inference_address=127.0.0.1
grpc_inference_port={grpc}
grpc_management_address=127.0.0.1
grpc_management_port={grpc_management}
disable_token_authorization=true
job_queue_size=1000
model_store={store}
load_models=null.mar
models={{"null":{{"1.0":{{"defaultVersion":true,"marName":"null.mar","minWorkers":1,"maxWorkers":1,\
"batchSize":32,"maxBatchDelay":5,"responseTimeout":60}}}}}}
"""
HANDLER = """
import null_model


class Null:
    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        bodies = [bytes(one.get("body") or one.get("data")) for one in data]
        return [answer.tobytes() for answer in null_model.infer(bodies)]
"""

if __name__ == "__main__":
    port = int(sys.argv[1])
    here = Path(__file__).resolve().parent
    home = Path(sys.prefix) / "home"
    home.mkdir(exist_ok=True)
    (home / "handler.py").write_text(HANDLER)
    binaries = Path(sys.prefix) / "bin"
    os.environ["PATH"] = f"{binaries}:{os.environ['PATH']}"
    names = ("management", "metrics", "grpc", "grpc_management")
    ports = {name: port + number for number, name in enumerate(names, 1)}
    (home / "config.properties").write_text(CONFIG.format(port=port, store=home, **ports))
    subprocess.run(
        [
            *(binaries / "torch-model-archiver", "--model-name", "null", "--version", "1.0"),
            *("--handler", home / "handler.py", "--extra-files", here / "null_model.py"),
            *("--export-path", home, "--force"),
        ],
        check=True,
    )
    os.chdir(home)
    flags = ["--foreground", "--ncs", "--ts-config", "config.properties", "--disable-token-auth"]
    os.execv(binaries / "torchserve", ["torchserve", *flags])

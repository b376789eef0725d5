"""What an installed server is made of."""

import subprocess
import sys
import zipfile

import pytest


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The server's wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        check=True,
        capture_output=True,
    )
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_exactly_its_three_packages(wheel):
    roots = {name.split("/")[0] for name in wheel.namelist()}

    packages = {root for root in roots if not root.endswith(".dist-info")}
    assert packages == {"server", "batcher", "speechemotion"}


def test_the_wheel_brings_the_demo_model_with_its_card(wheel):
    names = set(wheel.namelist())

    for file in ("config.yaml", "model.pt", "tokens.txt", "MODEL_CARD.md"):
        assert f"server/engine/demo/{file}" in names


def test_importing_the_server_without_a_model_does_not_import_torch():
    code = "import sys, server.app, server.engine.fake; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

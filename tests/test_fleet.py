"""Composing configurations, and what is generated from the protos; without starting anything."""

import json
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from fleet.api import compile_protos, without_comments
from fleet.companions import companions
from fleet.compose import HTTP, SHORT, BadEdit, apply, compose, find, to_yaml
from fleet.edge import make_certificates
from fleet.local import Fleet
from fleet.openapi import to_openapi
from fleet.plan import HOST, Program, default_ports, place
from fleet.ports import beside, taken
from fleet.process import first_of
from fleet.strict import to_lua

VARIANTS = sorted(file.stem for file in Path("envoy/variants").glob("*.yaml"))


@pytest.fixture(scope="module")
def protos() -> FileDescriptorSet:
    return compile_protos()


class TestEdits:
    @pytest.fixture
    def config(self) -> dict:
        return {"filters": [{"name": "a.b", "x": {"y": 1}}, {"name": "c"}], "plain": {"k": 1}}

    def test_a_list_is_entered_by_name(self, config):
        apply(config, {"at": "filters/a.b/x", "merge": {"z": 2}})

        assert config["filters"][0] == {"name": "a.b", "x": {"y": 1, "z": 2}}

    def test_an_element_goes_before_the_one_that_is_named_or_to_the_end(self, config):
        apply(config, {"at": "filters", "before": "c", "insert": [{"name": "b"}]})
        apply(config, {"at": "filters", "insert": [{"name": "d"}]})

        assert [one["name"] for one in config["filters"]] == ["a.b", "b", "c", "d"]

    def test_a_value_is_replaced_as_a_whole(self, config):
        apply(config, {"at": "plain/k", "set": {"new": True}})

        assert config["plain"] == {"k": {"new": True}}

    def test_what_an_anchor_repeats_is_changed_in_one_place_only(self):
        routes = {one["name"]: one for one in find(compose(["hedge"]), f"{SHORT['HOST']}/routes")}

        hedged = [name for name, one in routes.items() if "per_try_timeout" in json.dumps(one)]
        assert hedged == ["unary"]

    @pytest.mark.parametrize("at", ["nowhere", "filters/nobody", "filters/7/x", "plain/k/deeper"])
    def test_a_place_that_is_not_there_is_an_error(self, config, at):
        with pytest.raises(BadEdit):
            apply(config, {"at": at, "merge": {}})


def test_our_file_is_what_is_composed_of_no_variants():
    assert find(compose([]), f"{HTTP}/stat_prefix") == "ingress"


def test_a_composed_configuration_says_the_same_as_yaml_without_anchors():
    import yaml

    text = to_yaml(compose([]))

    assert yaml.safe_load(text) == compose([])
    assert "&" not in text.replace("&&", "")


def test_the_descriptors_that_the_transcoder_reads_are_those_of_the_protos(protos):
    committed = FileDescriptorSet.FromString(Path("envoy/api.binpb").read_bytes())

    assert committed == without_comments(protos), "run `make api`"


def test_the_filter_of_unknown_names_is_that_of_the_protos(protos):
    committed = Path("envoy/strict.lua").read_text()

    assert committed == to_lua(protos), "run `make api`"


def test_the_openapi_file_is_that_of_the_protos(protos):
    committed = json.loads(Path("envoy/openapi.json").read_text())

    assert committed == to_openapi(protos), "run `make api`"


def test_every_reference_of_the_openapi_file_leads_somewhere(protos):
    document = to_openapi(protos)
    text = json.dumps(document)
    schemas, responses = document["components"]["schemas"], document["components"]["responses"]

    for part in text.split('"$ref": "#/components/')[1:]:
        kind, _, name = part.partition('"')[0].partition("/")
        assert name in {"schemas": schemas, "responses": responses}[kind]


@pytest.mark.envoy
@pytest.mark.parametrize("words", ["", *VARIANTS, "edge mtls", "canary kubernetes"])
def test_envoy_accepts_the_file_and_each_variant_as_they_are_printed(words, tmp_path, monkeypatch):
    (tmp_path / "envoy").symlink_to(Path("envoy").absolute())
    monkeypatch.chdir(tmp_path)
    make_certificates(Path("build/fleet/certs"))
    Path("my.yaml").write_text(to_yaml(compose(words.split())))

    envoy = str(Path(sys.executable).with_name("envoy"))
    command = [envoy, "--mode", "validate", "-c", "my.yaml", "-l", "warning", "--base-id", "7"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked.returncode == 0, checked.stderr
    assert "eprecated" not in checked.stderr


@pytest.mark.parametrize("words", [["weights", "orca"], ["zones", "edge", "weights"]])
def test_variants_that_undo_each_other_are_not_composed(words):
    with pytest.raises(BadEdit, match="exclude each other: "):
        compose(words)


def test_what_a_machine_lacks_is_left_out_with_a_word():
    nothing, skipped = companions(default_ports(3), Path("x"), which=lambda _: None)
    both, none = companions(default_ports(3), Path("x"), which=lambda name: f"/bin/{name}")

    assert (nothing, sorted(skipped)) == ([], ["prometheus", "redis"])
    assert ([one.name for one in both], none) == (["redis", "prometheus"], {})


def test_everything_that_a_fleet_listens_on_is_on_loopback(tmp_path):
    config = compose([])
    place(config, default_ports(3), tmp_path)
    programs, _ = companions(default_ports(3), tmp_path, which=lambda name: name)

    assert '"address": "0.0.0.0"' not in json.dumps(config)
    listeners = find(config, "static_resources/listeners")
    addresses = [one["address"]["socket_address"]["address"] for one in listeners]
    assert set(addresses) == {"127.0.0.1"}
    assert all(one.address.startswith("127.0.0.1:") for one in programs)


def fleet_command(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleet", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words",
    [
        ["--variant", "nope"],
        ["--variant", "kubernetes"],
        ["--replicas", "0"],
        ["--replicas", "-1"],
        ["--replicas", "1", "--variant", "canary"],
        ["--profile", "x"],
    ],
)
def test_a_fleet_that_makes_no_sense_is_refused_before_anything_starts(words):
    ended = fleet_command("up", *words)

    assert ended.returncode == 2
    assert f"error: argument {words[0]}: " in ended.stderr.splitlines()[-1]


def test_ports_of_others_are_named():
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        ports = replace(default_ports(0), door=port)

        assert port in taken(ports)

    assert port not in taken(ports)


@pytest.mark.parametrize("line", ["No such flag: --nope", '{"event": "No such flag: --nope"}'])
async def test_what_could_not_start_says_so_in_its_own_words(tmp_path, line):
    words = (sys.executable, "-c", f"import sys; sys.exit({line!r})")
    program = Program("replica-1", words, f"{HOST}:1", f"tcp://{HOST}:1")
    lines: list[str] = []
    ports = beside(1)
    fleet = Fleet(tmp_path, ports, compose([]), replicas=[program], write=lines.append)

    with pytest.raises(ExceptionGroup) as failure:
        await fleet.__aenter__()

    assert str(first_of(failure.value)).endswith("before it was ready: No such flag: --nope")


async def test_keys_that_callers_use_are_for_nobody_else_to_read(tmp_path):
    file = tmp_path / "envoy.json"
    file.touch(mode=0o644)
    dies = Program("replica-1", (sys.executable, "-c", ""), f"{HOST}:1", f"tcp://{HOST}:1")
    fleet = Fleet(tmp_path, beside(1), compose([]), replicas=[dies], write=print)

    with pytest.raises(ExceptionGroup):
        await fleet.__aenter__()

    assert file.stat().st_mode & 0o777 == 0o600
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("variant", ["", *VARIANTS])
def test_every_variant_looks_at_headers_before_it_routes(variant):
    config = compose([variant] if variant else [])
    routes = [one["name"] for one in find(config, f"{SHORT['HOST']}/routes")]
    removed = find(config, f"{HTTP}/early_header_mutation_extensions/0/typed_config/mutations")

    assert routes[:2] == ["bad-deadline", "bad-encoding"]
    assert {"remove": "grpc-status"} in removed

"""The load report: what balancers read is what the device did."""

import math

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from server.telemetry.load import MEMORY, TRAILER, LoadMeter, LoadReport

DOUBLES = {6: "rps_fractional", 7: "eps", 9: "application_utilization"}


@pytest.fixture
def orca():
    """Reads xds.data.orca.v3.OrcaLoadReport as its owners define it, by field number."""
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="xds", syntax="proto3")
    message = file.message_type.add(name="OrcaLoadReport")
    for number, name in DOUBLES.items():
        message.field.add(name=name, number=number, type=1, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("xds.OrcaLoadReport"))


def test_a_report_is_the_protobuf_message_that_balancers_expect(orca):
    report = LoadReport(utterances=12.5, errors=0.5, utilization=0.75)

    read = orca.FromString(report.to_bytes())

    assert (read.rps_fractional, read.eps, read.application_utilization) == (12.5, 0.5, 0.75)


def test_a_replica_that_never_ran_says_nothing():
    assert LoadMeter().report(100.0, 0.0) is None


def test_a_replica_that_was_idle_for_long_says_nothing():
    meter = LoadMeter()
    meter.batch_ran(4, 0.1, now=100.0)

    assert meter.report(100.0 + 30 * MEMORY, 0.0) is None


@pytest.mark.parametrize("pause", [0.0, 1.0, 5.0])
def test_the_weight_is_what_a_second_of_the_device_is_good_for_at_any_time(pause):
    meter = LoadMeter()
    for number in range(10):
        meter.batch_ran(4, 0.1, now=100.0 + number)

    report = meter.report(109.0 + pause, drain_time=0.0)

    assert report.utterances / report.utilization == pytest.approx(4 / 0.1)


def test_a_device_that_is_always_busy_has_utilisation_1():
    meter = LoadMeter()
    for number in range(1000):
        meter.batch_ran(1, 0.05, now=100.0 + 0.05 * number)

    assert meter.report(150.0, 0.0).utilization == pytest.approx(1.0, rel=0.05)


def test_two_devices_that_are_always_busy_have_utilisation_1_together():
    meter = LoadMeter(devices=2)
    for number in range(1000):
        meter.batch_ran(1, 0.1, now=100.0 + 0.05 * number)

    assert meter.report(150.0, 0.0).utilization == pytest.approx(1.0, rel=0.05)


def test_work_that_waits_counts_as_load():
    meter = LoadMeter()
    meter.batch_ran(1, 0.1, now=100.0)

    idle, busy = meter.report(100.0, 0.0), meter.report(100.0, 2.0)

    assert busy.utilization - idle.utilization == pytest.approx(2.0)


def test_faults_are_reported_and_forgotten():
    meter = LoadMeter()
    meter.batch_ran(1, 0.1, now=100.0)
    meter.failed(now=100.0)

    at_once, later = meter.report(100.0, 0.0), meter.report(100.0 + MEMORY, 0.0)

    assert at_once.errors == pytest.approx(1 / MEMORY)
    assert later.errors == pytest.approx(at_once.errors / math.e)


def test_the_trailer_is_the_binary_one_that_grpc_and_envoy_read():
    assert TRAILER == "endpoint-load-metrics-bin"

from grpclib.const import Status

from proglog_trio.rpc.calls.status_code import StatusCode


def test_every_status_of_grpc_has_its_number() -> None:
    assert {code.name: code.value for code in StatusCode} == {status.name: status.value for status in Status}


def test_a_number_that_grpc_has_not_given_out_is_unknown() -> None:
    assert StatusCode(17) is StatusCode.UNKNOWN
    assert StatusCode(-1) is StatusCode.UNKNOWN


def test_it_compares_with_numbers() -> None:
    assert {7: "seven"}[StatusCode.PERMISSION_DENIED] == "seven"

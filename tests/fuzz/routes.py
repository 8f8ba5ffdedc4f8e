"""Paths of both protocols with anything in them, and what is asked beside inference."""

from __future__ import annotations

from hypothesis import strategies as st

from fuzz.asking import Request

__all__ = ["NAMES", "PATHS", "VERBS", "addresses", "observation"]

RIGHT = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'
GET = b"GET"

# Every verb is sent to every one of these.
VERBS = b"GET HEAD POST PUT PATCH DELETE OPTIONS TRACE".split()
PATHS = b"""
/ /v2 /v2/ /v2/health/live /v2/health/ready /v2/models /v2/models/echo_float /v2/models/echo_float/ready
/v2/models/echo_float/infer /v2/models/echo_float/versions/1 /v2/models/echo_float/versions/1/ready
/v2/models/echo_float/versions/1/infer /v2/models/echo_float/config /v2/models/echo_float/stats
/v2/models/stats /v2/repository/index /v2/repository/models/spare/load /v2/repository/models/spare/unload
/v2/logging /v2/trace/setting /v2/systemsharedmemory/status /v2/models/echo_float/generate
/v1/models/echo_float /v1/models/echo_float:predict /v1/models/echo_float/metadata
/v1/models/echo_float/versions/1:predict /metrics /docs /openapi.json /docs/assets/index.css
""".split()

NAMES = b"""
echo_float spare nothing .. . %2e%2e ..%2f..%2fetc %00 a%00b %ff%fe * %c3%bc %e2%80%ae a%0d%0aset-cookie:%20b
%25 ~ $(id) models %zz % a;b a?b a%3fb a%23b - _ echo_float%20 ECHO_FLOAT versions
""".split()
NAMES += [b"x" * 129, b"x" * 9000]
VERSIONS = [b"", b"9" * 30, *b"1 2 0 -1 01 1.0 x %31 latest %d9%a1 1e0".split()]
OBSERVED = b"""
/v2/models/stats /v2/models/echo_float/stats /v2/models/nothing/stats /v2/models/echo_float/versions/1/stats
/metrics /metrics/ /v2/logging /v2/trace/setting /v2/systemsharedmemory/status /v2/health/ready /docs
/v2/systemsharedmemory/region/a/register /v2/cudasharedmemory/region/a/unregister /openapi.json
/v2/models/echo_float/generate_stream /docs/assets/%00 /docs/assets/..%2f..%2f..%2fetc%2fpasswd
/ // /v2/ /v1
""".split()
LABELS = [b"stable", b"", b"..", b"%00", b"x" * 5000]


@st.composite
def addresses(draw: st.DrawFn) -> Request:
    """Every path of both protocols with any model, version and label in it, right or not."""
    name, version, label = (draw(st.sampled_from(each)) for each in (NAMES, VERSIONS, LABELS))
    middle = draw(st.sampled_from([b"", b"/versions/" + version, b"/labels/" + label]))
    ends = [b"", b"//", *b"/ /ready /config /stats /infer /generate /trace/setting /infer/".split()]
    v1_ends = [b"", *b":predict :classify :regress /metadata :explain /infer /".split()]
    dialect = draw(st.sampled_from([b"/v2", b"/v1"]))
    end = draw(st.sampled_from(ends if dialect == b"/v2" else v1_ends))
    query = draw(st.sampled_from([b"", b"?a=b", b"?", b"?%00=%ff&&="]))
    target = dialect + b"/models/" + name + middle + end + query
    if draw(st.booleans()):
        return Request(target, method=GET)
    return Request(target, draw(st.sampled_from([RIGHT, b"{}", b""])))


@st.composite
def observation(draw: st.DrawFn) -> Request:
    """Statistics, metrics, settings of logs and traces, shared memory: asked for in ways right and wrong."""
    targets = [*OBSERVED, b"/docs/assets/" + b"a" * 5000]
    target = draw(st.sampled_from(targets))
    types = [b"*/*", b"text/plain", b"application/openmetrics-text", b"\xff"]
    headers = [(b"accept", draw(st.sampled_from(types)))]
    if draw(st.booleans()):
        odd = [b"-", b"a" * 128, b"a" * 129, b"\xff", b"a b", b"..", b"\t", b'"}{"', b"%0d%0a"]
        headers.append((b"x-request-id", draw(st.sampled_from(odd))))
    if draw(st.booleans()):
        return Request(target, method=GET, headers=tuple(headers))
    bodies = [
        b"x",
        b"{}",
        b'{"log_verbose_level":-1}',
        b'{"log_file":"/etc/passwd"}',
        b'{"trace_level":null}',
    ]
    return Request(target, draw(st.sampled_from(bodies)), headers=tuple(headers))

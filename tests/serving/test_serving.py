"""`lsbillm serve`: HTTP answers are those of the pipelines, whatever is sent and whoever disconnects."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
import spacy
from corpora import run
from pipelines import trained
from spacy.language import Language
from spacy.tokens import Span, SpanGroup
from tiny import TEXTS

pytestmark = pytest.mark.any_stack

reason = "the service needs FastAPI and uvicorn, and its tests httpx: python -m pip install 'spacy-lsbillm[test]'"
for module in ("fastapi", "uvicorn", "httpx"):
    pytest.importorskip(module, reason=reason)

import httpx  # noqa: E402

from spacy_lsbillm.annotation.documents import ID  # noqa: E402
from spacy_lsbillm.annotation.piping import LOST_STATUS  # noqa: E402
from spacy_lsbillm.annotation.records import record_of  # noqa: E402
from spacy_lsbillm.errors import SettingError  # noqa: E402
from spacy_lsbillm.serving import ServingSettings, serve  # noqa: E402
from spacy_lsbillm.serving.app import App  # noqa: E402
from spacy_lsbillm.serving.served import Served  # noqa: E402
from spacy_lsbillm.serving.server import Server, bound  # noqa: E402

SMALL = ServingSettings(port=0, max_body=20_000, max_documents=40, max_length=300, max_queue=50)
# Opened by a test; a text that contains the word waits for it.
GATE = threading.Event()
SECRET = "<script>alert('x')</script>"


@Language.component("odd_in_service")
def odd(doc):
    for word in doc.text.split():
        if word == "gate":
            GATE.wait(60)
        if word == "raises":
            raise ValueError("it raises")
        if word == "infinite":
            doc.cats["odd"] = float("nan")
        if word == "loses-the-gpu":
            raise RuntimeError("CUDA error: device-side assert triggered")
    if doc.text.startswith(SECRET[:8]):
        doc.ents = [Span(doc, 0, 1, label="<b>")]
        doc.cats["<i>"] = 0.5
        doc.spans["<u>"] = SpanGroup(doc, name="<u>", spans=[doc[:2]])
    return doc


def by_rules():
    nlp = spacy.blank("xx")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "city", "pattern": name} for name in ("Paris", "Rome")])
    nlp.add_pipe("odd_in_service")
    return nlp


@contextmanager
def serving(pipelines, settings=SMALL):
    """A running service: a client, the server, and the thread it runs in."""
    app = App([Served(name, nlp, settings.max_length) for name, nlp in pipelines.items()], settings)
    server = Server(app.asgi, settings.timeout)
    with bound(settings.host, settings.port) as listening:
        address = listening.getsockname()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        # Wait until it accepts connections.
        while not server.started and thread.is_alive():
            thread.join(0.01)
        with httpx.Client(base_url=f"http://{address[0]}:{address[1]}", timeout=60) as client:
            client.app, client.server, client.thread, client.address = app, server, thread, address
            try:
                yield client
            finally:
                GATE.set()
                server.should_exit = True
                thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def pipelines(make_base):
    return {"one": trained(make_base()), "other": trained(make_base(), steps=1, unmask="0011"), "rules": by_rules()}


@pytest.fixture(scope="module")
def service(pipelines):
    with serving(pipelines) as client:
        yield client


@pytest.fixture(autouse=True)
def open_gate():
    GATE.set()
    yield
    GATE.set()


def post(service, texts, pipeline=None, mask=None, status=200):
    body = {"texts": texts, "pipeline": pipeline, "mask": mask}
    # In the form of other clients, which escape all non-ASCII characters.
    answer = service.post("/v1/annotate", content=json.dumps(body))
    assert answer.status_code == status, answer.text
    return answer.json()["documents"] if status == 200 else answer.json()["error"]


def until(condition):
    waited = threading.Event()
    for _ in range(6000):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError("it has not come about")


def metric(service, name):
    for line in service.get("/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[-1])
    return None


def records(nlp, texts):
    docs = list(nlp.pipe(texts))
    for place, doc in enumerate(docs):
        doc.user_data[ID] = place
    return [record_of(doc) for doc in docs]


def same(one, other):
    """Whether records are the same, with scores within 1e-5."""
    strict = [{**record, "cats": sorted(record["cats"])} for record in one]
    assert strict == [{**record, "cats": sorted(record["cats"])} for record in other]
    for a, b in zip(one, other, strict=True):
        assert a["cats"] == pytest.approx(b["cats"], abs=1e-5)
    return True


def test_many_at_once_get_what_each_pipeline_says_alone(service, pipelines):
    """Also while requests to one pipeline, to several and with several masks are running together."""
    wanted = [(name, TEXTS[start:] + TEXTS[:start]) for start in range(4) for name in pipelines] * 3
    expected = {
        name: {start: records(nlp, TEXTS[start:] + TEXTS[:start]) for start in range(4)}
        for name, nlp in pipelines.items()
    }
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda one: post(service, one[1], one[0]), wanted))
    for (name, texts), answer in zip(wanted, answers, strict=True):
        assert same(answer, expected[name][TEXTS.index(texts[0])])
    assert [record["id"] for record in answers[0]] == [0, 1, 2, 3]
    assert any(record["ents"] for answer in answers for record in answer)


def test_what_comes_while_another_batch_is_computed_goes_together(pipelines):
    with serving({"rules": pipelines["rules"]}) as service, ThreadPoolExecutor(9) as pool:
        GATE.clear()
        first = pool.submit(post, service, ["gate"])
        until(lambda: service.app.worker.computing)
        rest = [pool.submit(post, service, [f"to Rome {i}", "Paris"]) for i in range(8)]
        until(lambda: service.app.worker.waiting == 16)
        GATE.set()
        assert first.result()[0]["text"] == "gate"
        assert [one.result()[0]["text"] for one in rest] == [f"to Rome {i}" for i in range(8)]
        assert metric(service, 'lsbillm_batches_total{pipeline="rules"}') == 2


def test_a_mask_is_that_of_its_request_alone(service, pipelines):
    before = post(service, TEXTS, "other")
    causal = post(service, TEXTS, "other", "none")
    assert same(post(service, TEXTS, "other"), before)
    pipelines["other"].get_pipe("transformer").use_mask("none")
    try:
        assert same(causal, records(pipelines["other"], TEXTS))
    finally:
        pipelines["other"].get_pipe("transformer").use_mask(None)
    assert [record["cats"] for record in causal] != [record["cats"] for record in before]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b'{"texts": ["a"', 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 15_000, 400, "nested too deep"),
        (b"[]", 422, "is a list"),
        (b"{}", 422, "'texts' is missing"),
        (b'{"texts": "a"}', 422, "'texts' is a string"),
        (b'{"texts": ["a", null]}', 422, "texts[1] is null"),
        (b'{"texts": ["a", true]}', 422, "texts[1] is true or false"),
        (b'{"texts": ["a"], "pipeline": 3}', 422, "'pipeline' is a number"),
        (b'{"texts": ["a"], "text": ["b"]}', 422, "'text'"),
        (b'{"texts": ["a"], "pipeline": "\\ud800"}', 404, "there are: 'one', 'other', 'rules'"),
        (b'{"texts": ["a"], "mask": "from:99"}', 422, "no layer 99"),
        (b'{"texts": ["a"], "mask": "0o1"}', 422, "0o1"),
        (b'{"texts": ["a"], "mask": "none", "pipeline": "rules"}', 422, "no billm_transformer"),
        (json.dumps({"texts": ["a"] * 41}).encode(), 413, "more than the 40"),
        (b" " * 30_000, 413, "more than the 20,000 bytes"),
        (b" " * 300_000, 413, "more than the 20,000 bytes"),
    ],
)
def test_what_cannot_be_read_is_told(service, body, status, said):
    answer = service.post("/v1/annotate", content=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert len(post(service, ["still there"])) == 1


def test_a_body_without_a_length_that_never_ends_is_cut_off(service):
    endless = (b" " * 10_000 for _ in range(1_000_000))
    # Or the connection is closed while it is sending.
    with suppress(httpx.TransportError):
        assert service.post("/v1/annotate", content=endless).status_code == 413
    assert post(service, ["still there"])


def test_a_text_that_fails_fails_alone(service):
    texts = ["Paris", "it raises", "x" * 301, "half a pair \ud800", "infinite", "", " \n", "Rome"]
    found = post(service, texts, "rules")
    assert [record["id"] for record in found] == list(range(8))
    errors = [record.get("error", "") for record in found]
    assert [bool(error) for error in errors] == [False, True, True, True, True, False, False, False]
    for error, said in zip(errors[1:5], ("it raises", "301 characters", "surrogates", "nan"), strict=True):
        assert said in error
    assert [ent["label"] for ent in found[7]["ents"]] == ["city"]
    assert post(service, []) == []


def test_more_than_the_queue_holds_is_sent_away_for_a_while(pipelines):
    with serving({"rules": pipelines["rules"]}) as service, ThreadPoolExecutor(2) as pool:
        GATE.clear()
        held = pool.submit(post, service, ["gate"])
        until(lambda: service.app.worker.computing)
        waiting = pool.submit(post, service, ["Paris"] * 40)
        until(lambda: service.app.worker.waiting == 40)
        refused = service.post("/v1/annotate", json={"texts": ["Rome"] * 11})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert "queue of 50" in refused.json()["error"]
        GATE.set()
        assert len(held.result()) == 1
        assert len(waiting.result()) == 40
        assert len(post(service, ["Rome"] * 11)) == 11


def sent(address, data):
    connection = socket.create_connection(address, timeout=60)
    connection.sendall(data)
    return connection


def test_who_takes_too_long_is_told_or_hung_up_on(pipelines):
    """Half a header, half a body, and an annotation that does not finish."""
    settings = ServingSettings(port=0, timeout=0.5)
    half = b"POST /v1/annotate HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"
    with serving({"rules": pipelines["rules"]}, settings) as service:
        GATE.clear()
        connections = [sent(service.address, data) for data in (half[:20], half)]
        assert "within 0.5 seconds" in post(service, ["gate"], status=503)
        GATE.set()
        header, body = (connection.makefile("rb").read() for connection in connections)
        assert header == b""
        assert body.startswith(b"HTTP/1.1 408")
        assert b"not sent completely" in body
        assert post(service, ["Rome"])[0]["ents"]


def test_what_nobody_waits_for_any_more_is_not_annotated(pipelines):
    body = json.dumps({"texts": ["Paris"] * 30}).encode()
    request = b"POST /v1/annotate HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with serving({"rules": pipelines["rules"]}) as service, ThreadPoolExecutor(1) as pool:
        GATE.clear()
        held = pool.submit(post, service, ["gate"])
        until(lambda: service.app.worker.computing)
        connections = [sent(service.address, data) for data in (request, request[:-30], b"\x00\xff" * 100)]
        until(lambda: service.app.worker.waiting == 30)
        for connection in connections:
            connection.close()
        until(lambda: service.app.worker.waiting == 0)
        GATE.set()
        assert len(held.result()) == 1
        assert metric(service, 'lsbillm_documents_total{pipeline="rules",outcome="annotated"}') == 1
        assert metric(service, 'lsbillm_requests_total{path="/v1/annotate",status="499"}') == 2


def test_what_was_accepted_is_answered_before_it_ends(pipelines):
    with serving({"rules": pipelines["rules"]}) as service, ThreadPoolExecutor(2) as pool:
        GATE.clear()
        held = pool.submit(post, service, ["gate"])
        until(lambda: service.app.worker.computing)
        waiting = pool.submit(post, service, ["to Rome"])
        until(lambda: service.app.worker.waiting == 1)
        service.server.should_exit = True
        until(lambda: refuses(service.address))
        GATE.set()
        assert held.result()[0]["text"] == "gate"
        assert waiting.result()[0]["ents"]


def refuses(address):
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError:
        return True
    return False


def test_it_ends_when_the_gpu_is_lost(tmp_path):
    by_rules().to_disk(tmp_path / "rules")
    said = []
    with ThreadPoolExecutor(1) as pool:
        status = pool.submit(serve, {"rules": tmp_path / "rules"}, SMALL, lambda *told: said.append(told[0]))
        until(lambda: len(said) == 2 or status.done())
        assert said[0] == "Loaded 1 pipeline over 0 bases"
        with httpx.Client(base_url=said[1].split()[-1], timeout=60) as client:
            assert "CUDA error" in post(client, ["it loses-the-gpu"], status=503)
        assert status.result() == LOST_STATUS


def test_what_is_served_and_how_it_does(service, pipelines):
    post(service, ["Paris", "it raises"], "rules")
    described = service.get("/v1/pipelines").json()["pipelines"]
    assert [one["name"] for one in described] == ["one", "other", "rules"]
    assert described[1]["masks"][0]["unmask"] == "0011"
    assert "layers 2-3 bidirectional" in described[1]["masks"][0]["words"]
    assert described[0]["components"]["ner"] == ["artist", "city", "playlist"]
    assert described[2]["masks"] == []
    assert service.get("/health").json()["status"] == "ok"
    assert metric(service, 'lsbillm_documents_total{pipeline="rules",outcome="failed"}') >= 1
    assert metric(service, 'lsbillm_requests_total{path="/health",status="200"}') >= 1
    assert metric(service, "lsbillm_request_seconds_count") >= 3
    assert service.get("/nothing/here").json() == {"error": "Not Found"}
    assert service.get("/v1/annotate").status_code == 405
    assert metric(service, 'lsbillm_requests_total{path="other",status="404"}') >= 1
    # The description of the service exists, but not the pages that load scripts from other servers.
    assert "/v1/annotate" in service.get("/openapi.json").json()["paths"]
    assert service.get("/docs").status_code == 404


def test_the_page_shows_what_was_found_and_runs_nothing(service):
    empty = service.get("/")
    assert "script" not in empty.text
    assert "default-src 'none'" in empty.headers["content-security-policy"]
    found = service.post("/", data={"text": f"{SECRET} in Rome\r\nand Paris", "pipeline": "rules"})
    assert found.status_code == 200
    for raw in ("<script", "<b>", "<i>", "<u>"):
        assert raw not in found.text
    for shown in ("&lt;script", "&lt;b&gt;", "&lt;i&gt;", "&lt;u&gt;", '<option value="rules" selected>'):
        assert shown in found.text
    cities = service.post("/", data={"text": "to Rome\r\nand Paris", "pipeline": "rules"}).text
    assert cities.count("<mark") == 2
    assert '"end": 17' in cities.replace("&quot;", '"')
    assert service.post("/", data={"text": "to Paris", "pipeline": "one", "mask": "none"}).status_code == 200


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        ({"text": "x" * 301}, 200, "301 characters"),
        ({"text": "<b>", "pipeline": "<i>"}, 404, "&lt;i&gt;"),
        ({"text": "a", "mask": "<u>"}, 422, "&lt;u&gt;"),
        ({"text": "x" * 30_000}, 413, "20,000 bytes"),
        (b"text=%ff", 400, "not what the form sends"),
        (b"&".join([b"text=a"] * 100), 400, "not what the form sends"),
    ],
)
def test_the_page_says_what_is_wrong(service, sent, status, said):
    answer = service.post("/", content=sent) if isinstance(sent, bytes) else service.post("/", data=sent)
    assert answer.status_code == status
    assert said in answer.text
    assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"port": 65_536}, "--port 65536"),
        ({"max_body": 0}, "--max-body 0"),
        ({"max_documents": 0}, "--max-documents 0"),
        ({"max_queue": 10}, "--max-queue 10 is less than"),
        ({"gather_ms": -1}, "--gather-ms -1"),
        ({"gather_ms": float("nan")}, "--gather-ms nan"),
        ({"timeout": 0}, "--timeout 0"),
        ({"timeout": float("inf")}, "--timeout inf"),
    ],
)
def test_settings_that_cannot_work_are_refused(values, said):
    with pytest.raises(SettingError, match=said):
        ServingSettings(**values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    spacy.blank("xx").to_disk(folder / "rules")
    return folder


def test_what_cannot_be_served_is_told_before_anything_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(Served, "load", None)
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert f"{port} of 127.0.0.1 is in use" in told(run("lsbillm", "serve", folder / "rules", "-p", port, code=1))
    assert "cannot be listened on" in told(run("lsbillm", "serve", folder / "rules", "--host", "203.0.113.1", code=1))
    twice = run("lsbillm", "serve", folder / "rules", f"rules={folder / 'rules'}", code=1)
    assert "two pipelines have the name 'rules'" in told(twice)
    assert "'no_such'" in told(run("lsbillm", "serve", "a=no_such", code=1))
    assert "no name before its =" in told(run("lsbillm", "serve", f"={folder / 'rules'}", code=1))


def told(output):
    return " ".join(output.split())


def test_a_pipeline_that_cannot_annotate_is_told(folder):
    nlp = spacy.blank("xx")
    nlp.add_pipe("textcat")
    nlp.to_disk(folder / "untrained")
    assert "'untrained' cannot" in told(run("lsbillm", "serve", folder / "untrained", "-p", 0, code=1))


def test_the_extra_is_named_where_it_is_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "spacy_lsbillm.serving.server")
    assert "spacy-lsbillm[serve]" in told(run("lsbillm", "serve", folder / "rules", "-p", 0, code=1))


@pytest.mark.slow
def test_the_command_ends_with_status_0_when_it_is_told_to(folder):
    command = [sys.executable, "-m", "spacy", "lsbillm", "serve", f"cities={folder / 'rules'}", "--port", "0"]
    environment = {**os.environ, "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        # Whatever goes wrong, the process ends.
        watch = threading.Timer(300, process.kill)
        watch.start()
        address = next(found[0] for line in process.stdout if (found := re.findall(r"http://[\d.:]+", line)))
        answer = httpx.post(f"{address}/v1/annotate", json={"texts": ["to Rome"]})
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        watch.cancel()
    assert answer.json()["pipeline"] == "cities"

"""Whatever a file, an object or a request holds: an error of ours or a result, in bounded time; 200 cases of each.

Pictures of every format have theirs in pictures/test_decoding.py as well, names of the inbox in service/test_filing.py.
"""

import asyncio
import json
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from components.calibration.point import moved
from components.core import audit
from components.core.artefacts import read_json
from components.core.errors import DataError, RequestError, SettingsError
from components.core.signing import verify
from components.datasets.adapters import collected_rows, elpv_rows
from components.datasets.sets.lists import visa_rows
from components.datasets.truth import Index, from_table
from components.decision.bundle import Manifest, whole
from components.decision.calibration import Calibration
from components.decision.cascade import Exits, early
from components.decision.conformal import decide_one
from components.pictures.roi import region_text
from components.pipeline.params import load_params
from components.scorelog import table
from components.scorelog.spool import read_segment
from components.service.bulk import read_manifest
from components.service.settings import ServiceSettings
from components.service.uploads import read_uploads
from components.service.users import read_users
from components.storage import open_store
from tests.fuzz import FUZZ, bounded, damaged, documents, texts

GROUPS = {"left": {"n": 4, "threshold": None}, "right": {"n": 9, "threshold": 1.0, "scores": [0.5, 1.0]}}
CALIBRATION = {
    **{"alpha": 0.1, "threshold": 2.0, "n": 9, "scores": [0.1 * i for i in range(9)], "resolution": 1e-6},
    **{"false_alarm_interval": [0.05, 0.2], "confidence": 0.95, "model": "a" * 64, "rule": "split", "folds": 0},
    **{"map": {"0.5": 0.1, "0.999": 2.0}, "groups": GROUPS},
}
CASCADE = {**{k: CALIBRATION[k] for k in ("scores", "alpha", "resolution")}, "share": 0.5, "low": 0.1, "high": 2.0}
MANIFEST = {
    **{"detector": "patchcore", "dataset": "product", "groups": "left,right", "model": "a" * 64, "data": "b" * 64},
    "decoding": {"white": 4095.0, "max_pixels": 1000},
    "files": {"model.onnx": "c" * 64, "calibration.json": "d" * 64},
}
SHARDS = {"source": "photos", "images": 10, "per_shard": 4, "shards": 3}
USERS = {"users": {"ada": {"role": "viewer", "token": "a" * 64, "added": "2026-11-28"}}}
WHOLE = yaml.safe_load(Path("params.yaml").read_text())
PARAMS = {key: WHOLE[key] for key in ("data", "views", "calibration", "retrain", "seed") if key in WHOLE}
SIGNED = {"files": {"manifest.json": "a" * 64}, "key": "0" * 16, "signature": "AAAA"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@FUZZ
@given(content=texts(MANIFEST))
def test_manifest_of_a_bundle(place, content):
    put(place / "bundle" / "manifest.json", content)
    with bounded():
        assert Manifest.read(place / "bundle").version
    with bounded():
        whole(place / "bundle")


@FUZZ
@given(content=texts(CALIBRATION), score=st.floats(allow_nan=False))
def test_calibration(place, content, score):
    put(place / "calibration.json", content)
    with bounded():
        known = Calibration.read(place / "calibration.json")
        for group in (None, "left", "right", "none"):
            decided = decide_one(known.table_of(group), score)
            assert decided.decision in ("normal", "anomalous")
            assert 0 < decided.p_value <= 1


@FUZZ
@given(values=documents(CALIBRATION), alpha=st.floats(0.001, 0.5))
def test_another_threshold_of_a_damaged_calibration(values, alpha):
    with bounded():
        Calibration.of(values)
        Calibration.of(moved(values, alpha))


@FUZZ
@given(content=texts(CASCADE), score=st.floats(allow_nan=False))
def test_ways_out_of_a_cascade(place, content, score):
    put(place / "cascade.json", content)
    with bounded():
        assert early(Exits.read(place / "cascade.json").exit_of("left"), score) in ("normal", "anomalous", None)


@FUZZ
@given(content=texts(SIGNED))
def test_signatures(place, content):
    from components.core.signing import new_keys

    public = place / "sign.key.pub"
    if not public.exists():
        new_keys(place / "sign.key")
    put(place / "signed" / "signature.json", content)
    with bounded():
        verify(place / "signed", str(public))
        raise AssertionError("something passed for a signature")


@FUZZ
@given(content=texts(USERS))
def test_users(place, content):
    with bounded():
        read_users(put(place / "users.json", content))


@FUZZ
@given(content=texts(SHARDS))
def test_manifest_of_shards(place, content):
    put(place / "shards" / "manifest.json", content)
    with bounded():
        found = read_manifest(str(place / "shards"))
        assert found.images >= found.shards >= 1


@FUZZ
@given(data=st.data())
def test_params(place, data):
    value = data.draw(documents(PARAMS))
    text = yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "replace")
    bomb = b"a: &a [x, x, x, x, x, x, x, x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (b"bcdefghij"[i], b"bcdefghij"[i], b", ".join([b"*%c" % b"abcdefghi"[i]] * 8))
        for i in range(9)
    )
    odd = st.sampled_from(
        [bomb, b"a: 2026-13-45", b"[" * 5000, b"? [a]\n: 1", b"!!python/object:os.system x", b"1: 2", b"a: *b"]
    )
    content = data.draw(st.just(text) | damaged(text) | odd)
    with bounded():
        load_params(put(place / "params.yaml", content))


@FUZZ
@given(
    content=damaged(
        b"image_id,group,label,defect,role,mask,mask_rule\na/b.png,g,normal,,train,,\n"
        b"c.png,g,anomalous,x,test,m.png|n.png,as is\n"
    )
)
def test_table_of_a_retraining(place, content):
    root = put(place / "collected" / "images.csv", content).parent
    with bounded():
        for row in collected_rows(root):
            assert ".." not in Path(row.image_id).parts


@FUZZ
@given(
    content=damaged(
        b"object,split,label,image,mask\npcb,test,anomaly,pcb/1.JPG,pcb/m.png\npcb,train,normal,pcb/2.JPG,\n"
    )
)
def test_table_of_visa(place, content):
    put(place / "visa" / "pcb" / "2.JPG", b"")
    root = put(place / "visa" / "split_csv" / "1cls.csv", content).parents[1]
    with bounded():
        visa_rows(root)


@FUZZ
@given(content=damaged(b"images/cell0001.png  1.0 mono\nimages/cell0002.png  0.333 poly\n"))
def test_table_of_elpv(place, content):
    root = put(place / "elpv" / "labels.csv", content).parent
    with bounded():
        elpv_rows(root)


@FUZZ
@given(content=damaged(b"image;mask\nscratch/000.png;ground_truth/000.png\n"))
def test_table_of_masks(place, content):
    root = put(place / "masks" / "masks.csv", content).parent
    with bounded():
        from_table(root / "masks.csv", root, Index([("test/scratch/000.png", "scratch/000.png")], set()))


@FUZZ
@given(content=texts({"size": [40, 30], "polygons": [[[0, 0], [20, 0], [20, 20]], [[1, 1], [2, 1], [2, 2]]]}))
def test_region_of_interest(place, content):
    with bounded():
        region_text(str(put(place / "roi.json", content)))


def record(number: int) -> dict:
    known = dict.fromkeys(table.COLUMNS[table.SCORES])
    said = {"record_id": f"r{number}", "scored_at": f"2026-11-28T10:0{number}:00+00:00", "source": "line", "score": 1.0}
    return known | said | {"image_id": "a.png", "decision": "normal", "embedding": [0.0] * 16, "sha256": "0" * 64}


ROWS = table.encoded(table.SCORES, [record(number) for number in range(3)])


@FUZZ
@given(content=damaged(ROWS))
def test_objects_of_the_score_log(place, content):
    store, folder = open_store(str(place / "store")), "scores/source=line/day=2026-11-28/"
    store.put(f"{folder}a.parquet", content)
    with bounded():
        for found in table.read_partition(store, folder):
            assert table.stamp(found)
    with bounded():
        list(table.oldest(store, folder, strict=True))


@FUZZ
@given(content=damaged(b"".join(json.dumps(record(number)).encode() + b"\n" for number in range(3))))
def test_segments_of_the_spool(place, content):
    path = put(place / "spool" / "a.jsonl", content)
    with bounded():
        assert all(isinstance(one, dict) for one in read_segment(path))


@FUZZ
@given(content=damaged(b'{"n": 1, "chain": "00", "what": "label"}\n{"n": 2, "chain": "11"}\n'))
def test_audit_records(place, content):
    log = put(place / "audit.jsonl", content)
    with bounded():
        audit.read(log)
        audit.note(log, "label", "a", "done")
        assert audit.read(log).lines[-1]["about"] == "a"


PART = b'--b\r\nContent-Disposition: form-data; name="images"; filename="%s"\r\n\r\n%s\r\n'
FORM = PART % (b"a.png", b"bytes") + PART % (b"c.png", b"more") + b"--b--\r\n"
KINDS = [
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "image/png",
    "text/html",
    "application/octet-stream",
    "",
    "multipart/form-data; boundary=\xff",
]


@FUZZ
@given(
    body=damaged(FORM),
    kind=st.sampled_from(KINDS),
    name=st.binary(max_size=30),
    cuts=st.lists(st.integers(0, 300), max_size=3),
)
def test_bodies_of_requests(body, kind, name, cuts):
    marks = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
    parts = [body[a:b] for a, b in pairwise(marks)] or [b""]

    async def receive() -> dict:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    scope = {
        "type": "http",
        "method": "POST",
        "query_string": b"name=" + name,
        "headers": [(b"content-type", kind.encode("latin-1"))],
    }
    statuses: list[int] = []
    with bounded():
        try:
            told = asyncio.run(read_uploads(Request(scope, receive), ServiceSettings(max_upload_mb=0.001, max_files=2)))
        except RequestError as error:
            statuses.append(error.status)
            raise
        assert all("/" not in one.name and one.content for one in told.uploads)
    assert all(400 <= status < 500 for status in statuses)


def test_deep_brackets_are_damage_wherever_json_is_read(place):
    for content in (b"[" * 100_000, b'{"a":' * 100_000):
        with pytest.raises(DataError, match="is damaged"):
            read_json(put(place / "deep.json", content))
    with pytest.raises(SettingsError, match="is no YAML"):
        load_params(put(place / "deep.yaml", b"[" * 5000))

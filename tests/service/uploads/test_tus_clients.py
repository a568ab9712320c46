"""Real tus clients against a real API that is cut off and killed: the file arrives bit for bit, and once."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session
from tusclient.client import TusClient

from service.database import make_engine
from service.keys.service import create_key
from service.sessions import session_factory
from tests.support.unreliable_network import Api, Network

MIB = 1 << 20
POINTS = ("upload_written", "upload_synced", "upload_advanced", "upload_received", "upload_adopted", "upload_finished")


@pytest.fixture
def key(migrated_url: str) -> str:
    engine = make_engine(migrated_url)
    session: Session
    with session_factory(engine).begin() as session:
        created = create_key(session, "default", "test", "developer")
    engine.dispose()
    return created


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    path.write_bytes(random.Random(1).randbytes(24 * MIB + 12345))
    return path


@pytest.fixture
def api(migrated_url: str, tmp_path: Path) -> Iterator[Api]:
    started = Api(migrated_url, tmp_path)
    yield started
    started.stop()


def arrived(api: Api, key: str, file: Path) -> dict[str, Any]:
    """The one dataset that the upload has become, after looking at its bytes."""
    client = httpx.Client(base_url=f"http://127.0.0.1:{api.port}", headers={"Authorization": f"Bearer {key}"})
    (dataset,) = client.get("/v1/datasets").json()["data"]
    (upload,) = client.get("/v1/uploads").json()["data"]
    assert (upload["state"], upload["dataset"]) == ("finished", dataset["id"])
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (dataset["sha256"], dataset["bytes"], dataset["version"]) == (sha256, file.stat().st_size, 1)
    stored = [path for path in (api.folder / "storage").rglob("*") if path.is_file()]
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in stored] == [sha256]
    return dict(dataset)


@pytest.mark.parametrize("cuts", [10, pytest.param(50, marks=pytest.mark.soak)])
def test_tuspy_cut_again_and_again(api: Api, key: str, file: Path, cuts: int) -> None:
    """Broken connections, each tenth time a killed service; a cut costs at most the chunk that was on its way."""
    network = Network(api, cuts, MIB, lambda cut: api.kill() if cut % 10 == 0 else None)
    uploader = begun(network, key, file)
    uploader.chunk_size = MIB
    uploader.upload()
    network.close()
    arrived(api, key, file)
    assert (network.cuts, api.deaths) == (cuts, cuts // 10)
    assert network.offsets == sorted(network.offsets), "nothing that was acknowledged is sent again"
    headers = 1024 * (2 * len(network.offsets) + cuts)
    assert network.sent - file.stat().st_size < cuts * MIB + headers


def begun(network: Network, key: str, file: Path) -> Any:
    """tuspy, patient, with an upload that was begun before the trouble starts."""
    client = TusClient(f"{network.url}/v1/uploads", headers={"Authorization": f"Bearer {key}"})
    direct = TusClient(f"http://127.0.0.1:{network.api.port}/v1/uploads", headers=client.headers)
    metadata = {"name": "cut", "filename": file.name}
    url = direct.uploader(str(file), metadata=metadata).create_url()
    uploader = client.uploader(str(file), metadata=metadata, retries=500, retry_delay=0)
    uploader.set_url(f"{network.url}/v1/uploads/{url.rsplit('/', 1)[1]}")
    return uploader


def test_killed_at_every_point(migrated_url: str, tmp_path: Path, key: str, file: Path) -> None:
    """Each point of writing, recording and finishing kills the service once."""
    if not migrated_url.startswith("sqlite"):
        pytest.skip("more than a minute of restarts; the database makes no difference to what lies on the disk")
    wishes = ",".join(f"{point}=kill@{tmp_path}/{point}" for point in POINTS)
    api = Api(migrated_url, tmp_path, TRAINKIT_FAILPOINTS=wishes)
    over = threading.Event()

    def nurse() -> None:
        while not over.wait(0.02):
            if api.process.exitcode is not None:
                api.revive()

    nursing = threading.Thread(target=nurse)
    nursing.start()
    try:
        network = Network(api, 0, 1)
        uploader = begun(network, key, file)
        uploader.retry_delay = 1
        uploader.upload()
        network.close()
    finally:
        over.set()
        nursing.join()
    try:
        arrived(api, key, file)
        assert api.deaths >= len(POINTS) - 1
    finally:
        api.stop()


def test_tuspy_with_checksums(api: Api, key: str, file: Path) -> None:
    client = TusClient(f"http://127.0.0.1:{api.port}/v1/uploads", headers={"Authorization": f"Bearer {key}"})
    client.uploader(str(file), chunk_size=5 * MIB, upload_checksum=True, metadata={"name": "n"}).upload()
    assert arrived(api, key, file)["name"] == "n"


NODE = """
const tus = require('tus-js-client'), fs = require('fs');
const [url, key, path] = process.argv.slice(1);
new tus.Upload(fs.createReadStream(path), {
  endpoint: url + '/v1/uploads', chunkSize: 1 << 20, uploadSize: fs.statSync(path).size, retryDelays: Array(100).fill(50),
  headers: {Authorization: 'Bearer ' + key}, metadata: {name: 'js', filename: 'data.npz'},
  onError: error => { console.error(error); process.exit(1); }, onSuccess: () => process.exit(0),
}).start();
"""


def test_tus_js_client(api: Api, key: str, file: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if subprocess.run([node, "-e", "require('tus-js-client')"], capture_output=True, check=False).returncode:
        pytest.skip("node does not find tus-js-client (npm install tus-js-client, then NODE_PATH)")
    url = f"http://127.0.0.1:{api.port}"
    done = subprocess.run(
        [node, "-e", NODE, url, key, str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert arrived(api, key, file)["name"] == "js"


def test_the_example_goes_on_after_a_cut(api: Api, key: str, file: Path) -> None:
    network = Network(api, 3, 2 * MIB)
    script = Path(__file__).parents[3] / "examples" / "upload-resumable.sh"
    where = {"TRAINKIT_URL": network.url, "TRAINKIT_KEY": key, "CHUNK_BYTES": str(4 * MIB)}
    # begun beforehand: a creation that is cut is simply made again
    begun = TusClient(f"http://127.0.0.1:{api.port}/v1/uploads", headers={"Authorization": f"Bearer {key}"})
    upload = begun.uploader(str(file), metadata={"name": "sh"}).create_url()
    environment = {**os.environ, **where, "UPLOAD": f"/v1/uploads/{upload.rsplit('/', 1)[1]}"}
    done = subprocess.run(
        [script, file, "sh"], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    network.close()
    assert done.returncode == 0, done.stderr
    assert arrived(api, key, file)["id"] == done.stdout.strip()
    assert network.cuts == 3
    fresh = {**environment, **where, "UPLOAD": "", "TRAINKIT_URL": f"http://127.0.0.1:{api.port}"}
    again = subprocess.run([script, file, "sh"], env=fresh, capture_output=True, text=True, timeout=120, check=True)
    assert again.stdout.strip() == done.stdout.strip(), "the same bytes under the same name are the same dataset"

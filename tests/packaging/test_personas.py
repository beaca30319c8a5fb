"""Each kind of user, with the extras that the README names and nothing else."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from coyo_labeler.demo.cluster import start_cluster
from coyo_labeler.manifest import read_manifest
from tests.data.shards import write_labels
from tests.label.jobs import FILES
from tests.label.tars import write_tar
from tests.label.teachers import MODEL, save_teacher
from tests.packaging.conftest import PATIENCE, ROOT, Environment
from tests.pretrain.pictures import write_tinted

pytestmark = pytest.mark.packaging

Install = Callable[..., Environment]


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    path = tmp_path / "votes.csv"
    rows = [f"{image},{worker},{image % 3}" for image in range(9) for worker in ("ann", "bob")]
    path.write_text("\n".join(["image_id,worker_id,label", *rows]) + "\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\nfox\n")
    return path


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words of `label` for a small teacher and two tars."""
    folder = tmp_path_factory.mktemp("teacher")
    save_teacher(folder / "model.safetensors", 10, 64)
    (folder / "labels.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    for shard in range(2):
        write_tar(folder / "images", shard, FILES[:3])
    return [
        f"images={folder}/images",
        f"checkpoint={folder}/model.safetensors",
        f"label_space={folder}/labels.txt",
        f"model={MODEL}",
        "activation=sigmoid",
        "preprocess=automl_64",
        "precision=float32",
        "device=cpu",
    ]


def rows(folder: Path) -> int:
    manifest = read_manifest(str(folder))
    assert manifest is not None
    return manifest.rows.rows_out


def python(environment: Environment, code: str, **variables: str) -> str:
    done = environment.run("python", "-c", code, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_defaults_the_jobs_and_the_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("conf", "jobs"):
        files = [path for path in (ROOT / "coyo_labeler" / folder).iterdir() if path.suffix]
        assert {f"coyo_labeler/{folder}/{path.name}" for path in files} <= names
    assert "coyo_labeler/py.typed" in names
    assert not [name for name in names if not name.startswith("coyo_labeler")]


def test_without_extras_every_command_says_which_one_it_needs(
    install: Install, votes: Path, tmp_path: Path
) -> None:
    base, output = install(), tmp_path / "out"
    version = base.run("coyo-labeler", "--version").stdout
    assert version == base.run("python", "-m", "coyo_labeler", "--version").stdout
    assert (
        version == f"coyo-labeler {python(base, 'import coyo_labeler as c; print(c.__version__)')}"
    )
    assert str(base.folder) in base.run("coyo-labeler", "label", "--help").stdout
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars", 0, FILES[:1])
    inputs = {
        "ingest": (f"source={votes}", "spark"),
        "fetch": (f"catalog={votes}", "spark"),
        "label": (f"images={tmp_path}/tars", "teacher"),
        "merge": (f"votes={votes}", "em"),
        "report": (f"labels={votes}", "spark"),
        "export": (f"labels={votes}", "spark"),
        "pretrain_vit": (f"labels={votes}", "train"),
    }
    for stage, (word, extra) in inputs.items():
        more = [f"images={tmp_path}/tars"] if stage == "pretrain_vit" else []
        more += [f"label_space={tmp_path}/classes.txt"] if stage == "merge" else []
        more += (
            ["user_agent=example-bot/1.0 (+https://example.org/bot)"] if stage == "fetch" else []
        )
        says = base.refuse(stage, word, *more, f"output={output}")
        assert says.startswith(f"error: {stage}: "), says
        assert f"not installed: pip install 'coyo-labeler[{extra}]'" in says.replace(
            "it is not installed;", "not installed:"
        ), says
        assert not output.exists(), stage
    assert "coyo-labeler[demo]" in base.refuse("demo", f"output={output}")
    assert "coyo-labeler[s3]" in base.refuse("merge", "votes=s3://bucket/votes", f"output={output}")
    assert not output.exists()


def test_without_extras_the_package_imports_and_the_estimator_says_what_it_needs(
    install: Install,
) -> None:
    base = install()
    says = python(
        base,
        "import coyo_labeler\n"
        "from coyo_labeler import *\n"
        "assert hasattr(coyo_labeler, 'DawidSkene') and DawidSkene is coyo_labeler.DawidSkene\n"
        "try:\n    DawidSkene()\n"
        "except coyo_labeler.errors.InputError as error:\n    print(error)\n"
        "try:\n    import coyo_labeler.data\n"
        "except ImportError as error:\n    print(error)\n",
    )
    assert "pandas and scipy are not installed: pip install 'coyo-labeler[em]'" in says
    assert "coyo_labeler.data: torch is not installed: pip install 'coyo-labeler[train]'" in says


def test_em_has_the_estimator_and_merge_without_java(
    install: Install, votes: Path, tmp_path: Path
) -> None:
    em, output = install("em"), tmp_path / "merged"
    fitted = python(
        em,
        "import pandas as pd, coyo_labeler\n"
        f"votes = pd.read_csv({str(votes)!r})\n"
        "print(coyo_labeler.DawidSkene().fit_predict(votes).to_dict())",
    )
    assert fitted.strip() == str({image: image % 3 for image in range(9)})
    words = [f"votes={votes}", f"output={output}", f"label_space={tmp_path}/classes.txt"]
    done = em.run("coyo-labeler", "merge", *words)
    assert done.returncode == 0, done.stderr
    assert rows(output) == 9
    on_spark = em.refuse("merge", *words[::2], f"output={tmp_path}/spark", "engine=spark")
    assert "merge: pyspark is not installed: pip install 'coyo-labeler[spark]'" in on_spark


def test_teacher_labels_without_java(
    install: Install, teacher: list[str], votes: Path, tmp_path: Path
) -> None:
    environment = install("teacher")
    done = environment.run("coyo-labeler", "label", *teacher, f"output={tmp_path}/beliefs")
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "beliefs") == 6
    merge = environment.refuse(
        "merge", f"votes={votes}", f"output={tmp_path}/m", f"label_space={tmp_path}/classes.txt"
    )
    assert "merge: " in merge
    assert "pip install 'coyo-labeler[em]'" in merge
    spark = environment.refuse("label", *teacher, f"output={tmp_path}/s", "engine=spark")
    assert "label: pyspark is not installed: pip install 'coyo-labeler[spark]'" in spark
    assert {path.name for path in tmp_path.iterdir()} == {"beliefs", "votes.csv", "classes.txt"}


@pytest.mark.parametrize("how", ["module", "script", "job"])
def test_train_joins_the_group_however_torchrun_starts_it(
    install: Install, tmp_path: Path, how: str
) -> None:
    environment, output = install("train"), tmp_path / "vit"
    for shard in range(2):
        ids = range(shard * 30, shard * 30 + 30)
        write_tinted(tmp_path / f"images/{shard:05d}.tar", ids)
        labels = {each: ([each % 3, 3], [0.9, 0.01]) for each in ids}
        write_labels(tmp_path / f"beliefs/{shard:05d}.parquet", labels)
    jobs = python(environment, "import coyo_labeler; print(coyo_labeler.__path__[0])").strip()
    entry = {
        "module": ["-m", "coyo_labeler", "pretrain_vit"],
        "script": [environment.folder / "bin/coyo-labeler", "pretrain_vit"],
        "job": [f"{jobs}/jobs/pretrain_vit.py"],
    }[how]
    done = environment.run(
        "torchrun",
        "--standalone",
        "--nproc-per-node=2",
        *entry,
        f"labels={tmp_path}/beliefs",
        f"images={tmp_path}/images",
        f"output={output}",
        "--config=pretrain_vit_tiny",
        "model_args={patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2}",
        "workers=0",
        "batch_size=12",
        "steps=2",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pretrain_vit: ") == 1
    assert rows(output) == 2 * 12
    processes = sorted(path.name for path in (output / "checkpoints/00000002").glob("process-*"))
    assert processes == ["process-00000.pt", "process-00001.pt"]


def test_spark_drives_a_cluster_whose_workers_have_the_teacher(
    install: Install, teacher: list[str], tmp_path: Path
) -> None:
    """And says what is missing where the teacher would have to run in the driver's environment."""
    environment = install("spark")
    here = environment.refuse("label", *teacher, f"output={tmp_path}/here", java=True)
    assert "label: " in here
    assert "pip install 'coyo-labeler[teacher]'" in here
    assert not (tmp_path / "here").exists()
    with start_cluster(tmp_path / "cluster", workers=1) as cluster:
        words = [*teacher, "engine=spark", f"spark.master={cluster.url}"]
        # The environment of these tests has all extras.
        done = environment.run(
            "coyo-labeler",
            "label",
            *words,
            f"output={tmp_path}/beliefs",
            java=True,
            PYSPARK_PYTHON=sys.executable,
            PYSPARK_DRIVER_PYTHON=str(environment.python),
        )
        assert done.returncode == 0, done.stderr
        assert rows(tmp_path / "beliefs") == 6
        lacking = environment.refuse(
            "label",
            *words,
            f"output={tmp_path}/lacking",
            java=True,
            PYSPARK_PYTHON=str(environment.python),
        )
    assert "no module t" in lacking  # torch or timm
    assert "coyo-labeler[teacher]" in lacking


def test_spark_submit_takes_the_jobs_of_the_wheel(
    install: Install, votes: Path, tmp_path: Path
) -> None:
    environment = install("spark")
    jobs = python(environment, "import coyo_labeler; print(coyo_labeler.__path__[0])").strip()
    with start_cluster(tmp_path / "cluster", workers=1) as cluster:
        words = [f"votes={votes}", f"output={tmp_path}/m", f"label_space={tmp_path}/classes.txt"]
        python_of = {"PYSPARK_PYTHON": str(environment.python)}
        kept = {k: v for k, v in cluster.environment.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            cluster.spark_submit(f"{jobs}/jobs/merge.py", [*words, "engine=spark"]),
            env={**kept, **python_of, "PYSPARK_DRIVER_PYTHON": str(environment.python)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "m") == 9

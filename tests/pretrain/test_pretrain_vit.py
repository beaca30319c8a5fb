import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.distributed import TCPStore

from coyo_labeler import cli
from coyo_labeler.config.pretrain_vit import PretrainVitSettings
from coyo_labeler.config.read import read_settings
from coyo_labeler.manifest import read_manifest
from coyo_labeler.pretrain import checkpoint, loop
from coyo_labeler.pretrain.journal import read_journal
from tests.data.shards import write_labels
from tests.pretrain.pictures import write_tinted

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs" / "pretrain_vit.py"
IMAGES = 90


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 pictures of three classes in three tars, with beliefs that are right, and gold."""
    folder = tmp_path_factory.mktemp("pretrain")
    for shard in range(3):
        ids = range(shard * 30, shard * 30 + 30)
        write_tinted(folder / f"images/{shard:05d}.tar", ids)
        rows = {each: ([each % 3, 3], [0.9, 0.01]) for each in ids if each % 10}
        write_labels(folder / f"beliefs/{shard:05d}.parquet", rows)
    gold = {"image_id": list(range(IMAGES)), "label": [each % 3 for each in range(IMAGES)]}
    pq.write_table(pa.table(gold), folder / "gold.parquet")
    return folder


def words(data: Path, output: Path, *more: str) -> list[str]:
    return [
        f"labels={data}/beliefs",
        f"images={data}/images",
        f"output={output}",
        "model=vit_tiny_patch16_224",
        "model_args={patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2, proj_drop_rate: 0.1}",
        "image_size=24",
        "num_classes=4",
        "batch_size=12",
        "epochs=2",
        "precision=float32",
        "workers=0",
        "threads=1",
        "shuffle_buffer=16",
        "optimiser.warmup_steps=3",
        "optimiser.learning_rate=3e-3",
        "log_every=4",
        "checkpoint_every=5",
        "tensorboard=false",
        "device=cpu",
        *more,
    ]


def run(*arguments: str) -> int:
    return cli.main(["pretrain_vit", *arguments])


def weights(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_it_learns_and_accounts_for_every_picture(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "vit"
    gold = [f"gold={data}/gold.parquet", "probe.method=linear_probe", "epochs=25"]
    more = ["augment.flip=false", "augment.min_area=0.8", "head_bias=-1.5", "tensorboard=true"]
    assert run(*words(data, output, *gold, *more)) == cli.DONE
    manifest = read_manifest(str(output))
    assert manifest is not None
    assert manifest.details["held_out"]["top1"] > 0.9
    assert manifest.details["linear_probe"]["top1"] > 0.9
    held_out = manifest.details["held_out"]["images"]
    assert 9 <= held_out <= 27
    # Of 90 pictures every tenth has no labels; the held-out ones are seen and passed over.
    assert manifest.details["images"] == pytest.approx(81 - held_out * 0.9, abs=4)
    assert manifest.rows.rows_out == manifest.details["steps"] * 12
    assert set(manifest.rows.rejected) == {"held_out", "unlabelled", "not_reached"}
    lines = read_journal(str(output))
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] / 2
    assert all(0 <= line["batch_mAP"] <= 1 for line in lines if "batch_mAP" in line)
    assert lines[-1]["held_out_mAP"] > 0.9
    assert list((output / "tensorboard").glob("events.*"))
    card = json.loads((output / "model.json").read_text())
    assert card["model_args"]["img_size"] == 24
    assert weights(output)["head.weight"].shape == (4, 24)


def test_fine_tuning_learns_and_leaves_the_pretrained_weights(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "vit"
    more = ["probe.method=fine_tune", "probe.steps=60", "probe.batch_size=24", "epochs=1"]
    more += [f"gold={data}/gold.parquet", "augment.flip=false", "augment.min_area=0.8"]
    assert run(*words(data, output, *more)) == cli.DONE
    manifest = read_manifest(str(output))
    assert manifest is not None
    assert manifest.details["fine_tune"]["top1"] > 0.9
    assert manifest.details["fine_tune"]["train_images_seen"] == 60 * 24
    steps = manifest.details["steps"]
    checkpoint = load_file(output / f"checkpoints/{steps:08d}/model.safetensors")
    assert same(weights(output), checkpoint)


KILLED = -signal.SIGKILL


def killed_at_step(step: int) -> None:
    """In a process that is to be killed: let that happen after so many steps of its own."""
    take_step, taken = loop.take_step, count(1)

    def take_step_and_die(*arguments: Any) -> torch.Tensor:
        norm = take_step(*arguments)
        if next(taken) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return norm

    loop.take_step = take_step_and_die


def killed_in_checkpoint(step: int) -> None:
    """In a process that is to be killed: let that happen when its checkpoint is half written."""
    write = checkpoint.write_safetensors

    def write_and_die(url: str, *arguments: Any) -> None:
        write(url, *arguments)
        if f"{step:08d}" in url:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.write_safetensors = write_and_die


def run_forked(arguments: list[str], first: Callable[[], None], processes: int = 1) -> list[int]:
    """Run the job in processes of its own, as torchrun does if there are several; exit statuses.

    first: called in each of them before. Forked, they need not import PyTorch again.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port, "WORLD_SIZE": processes}

    def work(rank: int) -> None:
        mine = {**group, "RANK": rank, "LOCAL_RANK": rank, "TORCHELASTIC_USE_AGENT_STORE": True}
        os.environ.update({name: str(value) for name, value in mine.items()})
        sys.argv[1:] = arguments
        torch.set_num_threads(1)
        first()
        cli.job("pretrain_vit")

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=work, args=(rank,)) for rank in range(processes)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return [child.exitcode or 0 for child in children]


def nothing_else() -> None:
    """Nobody dies."""


def logged(output: Path) -> list[dict[str, float]]:
    """The journal without what depends on the clock."""
    clock = {"images_per_second", "waiting_for_data"}
    return [
        {name: value for name, value in line.items() if name not in clock}
        for line in read_journal(str(output))
    ]


def same_run(left: Path, right: Path) -> None:
    assert same(weights(left), weights(right))
    assert logged(left) == logged(right)
    manifests = [read_manifest(str(output)) for output in (left, right)]
    assert manifests[0] is not None
    assert manifests[1] is not None
    assert manifests[0].rows == manifests[1].rows
    assert manifests[0].details == manifests[1].details


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("how", "when"), [(killed_at_step, (13, 4)), (killed_in_checkpoint, (5, 20))]
)
def test_killed_and_resumed_gives_the_weights_of_an_undisturbed_run(
    data: Path, tmp_path: Path, workers: int, how: Callable[[int], None], when: tuple[int, int]
) -> None:
    more = [f"workers={workers}", "steps=22", f"gold={data}/gold.parquet", "evaluate_every=9"]
    assert run(*words(data, tmp_path / "whole", *more)) == cli.DONE
    killed = tmp_path / "killed"
    arguments = words(data, killed, *more)
    for step in when:
        assert run_forked(arguments, lambda step=step: how(step)) == [KILLED]
        assert not (killed / "_manifest.json").exists()
    assert run(*arguments) == cli.DONE
    same_run(tmp_path / "whole", killed)


def test_two_processes_train_like_one_that_computes_both_shares(data: Path, tmp_path: Path) -> None:
    # Readers 0 and 1 of two are those of two processes, or the two workers of one process that
    # takes the micro-batches of both in turn. Without dropout the gradients are the same sums.
    more = ["model_args={patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2}", "steps=8"]
    alone = words(data, tmp_path / "one", *more, "workers=2", "micro_batch_size=6")
    assert run(*alone) == cli.DONE
    assert run_forked(words(data, tmp_path / "two", *more), nothing_else, 2) == [0, 0]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    losses = [[line["loss"] for line in logged(tmp_path / name)] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_two_processes_killed_and_resumed_give_the_weights_of_undisturbed_ones(
    data: Path, tmp_path: Path
) -> None:
    whole, killed = (words(data, tmp_path / name, "steps=9") for name in ("whole", "killed"))
    assert run_forked(whole, nothing_else, 2) == [0, 0]
    assert run_forked(killed, lambda: killed_at_step(7), 2) == [KILLED, KILLED]
    assert run_forked(killed, nothing_else, 2) == [0, 0]
    same_run(tmp_path / "whole", tmp_path / "killed")


def test_another_seed_gives_other_weights(data: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        assert run(*words(data, tmp_path / f"{seed}", f"seed={seed}", "steps=3")) == cli.DONE
    assert not same(weights(tmp_path / "0"), weights(tmp_path / "1"))


def test_a_finished_run_has_nothing_to_do(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = words(data, tmp_path / "vit", "steps=2")
    assert run(*arguments) == cli.DONE
    assert run(*arguments) == cli.DONE
    assert "nothing to do" in capsys.readouterr().out


def test_only_the_latest_checkpoints_are_kept(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "vit"
    more = ["checkpoint_every=2", "keep_checkpoints=2", "steps=9"]
    assert run(*words(data, output, *more)) == cli.DONE
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == [
        "00000008",
        "00000009",
    ]


def test_accumulated_micro_batches_train_like_the_whole_batch(data: Path, tmp_path: Path) -> None:
    # Without dropout, and in one order, a step does not depend on how its batch is cut.
    tiny = "model_args={patch_size: 8, depth: 1, embed_dim: 24, num_heads: 2}"
    for micro in (12, 4):
        more = [tiny, f"micro_batch_size={micro}", "steps=6"]
        assert run(*words(data, tmp_path / f"{micro}", *more)) == cli.DONE
    whole, cut = weights(tmp_path / "12"), weights(tmp_path / "4")
    assert all(torch.allclose(whole[name], cut[name], atol=1e-5) for name in whole)


def test_torchrun_runs_the_job(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "vit"
    arguments = words(data, output, "steps=2", f"gold={data}/gold.parquet")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", str(JOB), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pretrain_vit: ") == 1
    manifest = read_manifest(str(output))
    assert manifest is not None
    assert manifest.rows.rows_out == 2 * 12
    checkpoint = output / "checkpoints/00000002"
    assert {path.name for path in checkpoint.iterdir()} == {
        "done.json",
        "model.safetensors",
        "optimiser.pt",
        "process-00000.pt",
        "process-00001.pt",
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lables=x", "pretrain_vit: lables: no such key; did you mean labels?"),
        ("epochs=many", "epochs: 'many' is wrong"),
        ("threshold=2", "threshold: 2 is wrong; it must be less than or equal to 1"),
        ("labels=/nowhere", "labels: nothing at /nowhere"),
        ("gold=/nowhere.parquet", "gold: nothing at /nowhere.parquet"),
        ("model=vit_huge_patch15", "timm has no 'vit_huge_patch15'"),
        ("model_args={deep: 3}", "model_args: vit_tiny_patch16_224 cannot be made"),
        ("model_args={depth:1}", "model_args: 'depth:1' is no name of an argument"),
        ("num_classes=2", "label 3 is outside 0..1"),
        ("micro_batch_size=5", "micro_batch_size: 5 does not divide the 12 images"),
        ("device=tpu9", "device: there is no 'tpu9'"),
        ("probe.method=linear_probe", "probe.method: linear_probe trains on gold"),
        ("initial_weights=/nowhere", "no weights at /nowhere"),
        ("threshold=0.95", "got no sample in epoch 0"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line_and_status_2(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, message: str
) -> None:
    assert run(*words(data, tmp_path / "vit", word)) == cli.WRONG_INPUT
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_the_configuration_shows_every_key_with_its_default() -> None:
    shown = yaml.safe_load((ROOT / "conf/pretrain_vit.yaml").read_text())
    settings = PretrainVitSettings(labels="l", images="i", output="o")
    defaults = settings.model_dump(exclude={"labels", "images", "output"})
    assert shown == defaults


@pytest.mark.parametrize("name", ["pretrain_vit_b16", "pretrain_vit_l16"])
def test_the_published_configurations_are_valid(name: str) -> None:
    path = ROOT / f"conf/{name}.yaml"
    paths = ["labels=l", "images=i", "output=o"]
    settings = read_settings(PretrainVitSettings, "pretrain_vit", str(path), paths)
    assert settings.batch_size == 4096
    assert settings.epochs == 7
    assert settings.head_bias == -10


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimiser.pt", "process-00000.pt", "done.json"]
)
def test_a_checkpoint_that_is_not_as_it_was_written_is_passed_over(
    data: Path, tmp_path: Path, name: str
) -> None:
    """The run goes on from the one before, to the same weights."""
    output = tmp_path / "vit"
    arguments = words(data, output, "checkpoint_every=2", "steps=5")
    assert run(*arguments) == cli.DONE
    whole = weights(output)
    (output / "_manifest.json").unlink()
    path = output / "checkpoints/00000005" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    assert run(*arguments) == cli.DONE
    assert same(weights(output), whole)

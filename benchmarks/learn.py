"""What learn costs: training and scoring at 10, 1,000 and 21,841 classes.

    python -m benchmarks.learn
    python -m benchmarks.learn --classes 10 --images 20000      # smaller
    python -m benchmarks.learn --train-only --device cuda       # on a GPU; see learn_training

Training is timed with half a million images in memory (`learn_training`). Scoring is timed pair by
pair (`learn_scoring`).
"""

import argparse

from benchmarks import learn_training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 1000, 21_841])
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--images", type=int, default=500_000, help="training images")
    parser.add_argument("--steps", type=int, help="minibatches that are timed, on cores 12 to 200")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of training")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of timings of scoring")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--train-only", action="store_true")
    only.add_argument("--score-only", action="store_true")
    arguments = parser.parse_args()
    if not arguments.score_only:
        learn_training.measure_all(arguments)
    if not arguments.train_only:
        from benchmarks import learn_scoring  # noqa: PLC0415 (training needs less installed)

        learn_scoring.measure_all(arguments)


if __name__ == "__main__":
    main()

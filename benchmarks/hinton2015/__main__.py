"""Hinton, Vinyals, Dean 2015 on MNIST: section 3, and what sections 4 and 6 showed with speech.

    python -m benchmarks.hinton2015 --data FOLDER [--out data/hinton2015] [--jobs 2] [--only hard]

FOLDER holds MNIST as train.parquet and test.parquet. Each step is a command of softlabels or a
measurement; a step that is done is not done again, so that a run that was stopped goes on. At the
end, or of what is there already, benchmarks/hinton2015.md is written. No test row chooses anything,
but where the paper does so, too, and there it is said.
"""

import argparse
from pathlib import Path

from benchmarks.hinton2015.experiments import Experiments
from benchmarks.hinton2015.page import Page
from benchmarks.steps import Steps

PAGE = Path("benchmarks/hinton2015.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("data/hinton2015"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", action="append", help="steps that begin so, and what they need")
    given = parser.parse_args()
    experiments = Experiments(given.data, given.out)
    steps = Steps(experiments.steps(), given.out)
    try:
        steps.run(given.jobs, given.only)
    finally:
        Page(experiments, steps).write(PAGE)


if __name__ == "__main__":
    main()

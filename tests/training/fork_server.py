"""A process that has imported everything and forks a child for each job, so that a child starts in no time.

Run as a script. It reads a job a line from its input, as JSON, and answers with a line: the process number of the
child, or how a child ended. It computes nothing itself: autograd does not survive a fork.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace

import torch
import torch._dynamo
import torchmetrics.classification

import glassnet as gn
from glassnet.data.examples import Dataset
from glassnet.experiments import resume as resume_run
from glassnet.experiments import train as train_run
from glassnet.training import epoch

LONGEST_S = 60
"""After which a child that hangs is ended."""
DIGITS = gn.load_data("digits")


def data(num_train: int | None) -> Dataset:
    """Return the digits, or those with so many training examples, which can no more be loaded by name."""
    return DIGITS if num_train is None else replace(DIGITS, train=DIGITS.train[:num_train], source=None)


def train(
    out: str,
    config: Mapping[str, object],
    model: Mapping[str, object],
    num_train: int | None = None,
    is_deaf: bool = False,
    **options: bool,
) -> None:
    """Train a small convolutional network on digits; one `is_deaf` to what it is asked but for the second time."""
    if is_deaf:
        epoch.EpochLoop._is_stopping = lambda loop, is_asked_to_stop: time.sleep(0.05)
    network = gn.build_model("cnn2d", input_shape=(1, 8, 8), **model)
    train_run(network, data(num_train), gn.TrainConfig(**config), out=out, **{"progress": False, **options})


def resume(out: str, num_train: int | None = None, **options: bool) -> None:
    """Go on with a run, from what its folder holds."""
    given = None if num_train is None else data(num_train)
    resume_run(out, data=given, **{"progress": False, **options})


JOBS = {"train": train, "resume": resume}


def run_child(job: str, log: str, environment: Mapping[str, str], arguments: Mapping[str, object]) -> int:
    """Do a job; return the exit code that the command line would."""
    signal.alarm(LONGEST_S)
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    epoch.STATE_SHARE = 1.0  # else saving is so rare that most kills would find the same state
    try:
        JOBS[job](**arguments)
    except (gn.UsageError, gn.WorkError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 98
    except BaseException:
        traceback.print_exc()
        return 99
    return 0


PRELOADED = (torch._dynamo, torchmetrics.classification)
"""What a training would import when it needs it; here it is imported once, for every child."""


def main() -> None:
    torch.set_num_threads(1)
    print(os.getpid(), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                code = run_child(**request)
                sys.stderr.flush()
                os._exit(code)
        print(answer, flush=True)
    os._exit(0)  # what took long to import takes long to end


if __name__ == "__main__":
    main()

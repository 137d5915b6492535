"""Train: ``python train.py experiment=… [section.setting=value …]``. Compose, check, build, fit; the exit code is the truth."""

import os
import sys
from datetime import datetime
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from utils import slurm, sweep
from utils.config import plain
from utils.errors import ConfigError, WaveError
from utils.overrides import explicit_settings, lenient, unknown_choices
from utils.supervision import end_with_parent, keep_signals


def train(config: dict[str, Any], overrides: list[str]) -> sweep.Best | None:
    """Run a composed config; returns the best value of its validation metric, None where there is none.

    Args:
        config: plain builtins.
        overrides: the command line's own words, to tell stated settings from defaults.

    Raises:
        WaveError: whatever is wrong with config, data or checkpoint; before training where it can be known.
    """
    # imported here: Hydra's own refusals and --help do not wait for Lightning
    import pytorch_lightning as pl

    from sizing.table import show
    from tasks.build import adopt_architecture, build, check, check_resume
    from tasks.pictures import Pictures
    from utils import runlog
    from utils.averaging import average
    from utils.loggers import METRICS
    from utils.preemption import Stopped
    from utils.start_table import KeepStarts

    check(config)
    config = runlog.going_on(config)
    stated = explicit_settings(overrides, config["experiment_name"])
    config = adopt_architecture(config, stated)
    if config.get("plan", {}).get("enabled"):
        return show(config)
    resume = runlog.resumable(config["train"]["ckpt_path"])
    if resume:
        check_resume(config, resume)
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    run = build(config, resumes=bool(resume))
    callbacks = [run.freezing, KeepStarts(run.starts, runlog.folder(config))]
    trainer = runlog.trainer(config, run.module, [*callbacks, *([Pictures(config)] if config["pictures"]["enabled"] else [])])
    runlog.compile_step(config, run.module, run.data.windows, trainer)
    runlog.greet(config, run.module, run.data, trainer, run.starts)
    try:
        trainer.fit(run.module, run.data, ckpt_path=resume, weights_only=True)
    except Stopped as stopped:
        runlog.stop(config, run.module, trainer, stopped)
    except SystemExit as end:
        if not runlog.interrupted(end):
            raise
        runlog.farewell(config, run.module, trainer)
        sys.exit(130)
    averages = config["checkpoint"]["average"] and not config["trainer"]["fast_dev_run"]
    runlog.farewell(config, run.module, trainer, average(trainer, run.module, run.data) if averages else None)
    return sweep.best(runlog.folder(config) / METRICS, run.module.task.monitor)


@hydra.main(version_base="1.3", config_path="configs", config_name="config")
def main(composed: DictConfig) -> sweep.Best | None:
    """Compose, then train; a mistake is told in one screen, without a traceback. Runs of a sweep return what its table shows."""
    job = HydraConfig.get()
    sweeps = job.mode == RunMode.MULTIRUN
    try:
        config = plain(composed)
        if sweeps:
            config["run_id"] = sweep.run_id(config["run_id"], job.job.num)
        return train(config, list(job.overrides.task))
    except OmegaConfBaseException as error:
        text = str(ConfigError([str(error).splitlines()[0]]))
    except WaveError as error:
        # an error in a worker process arrives with that process's traceback in front of its text
        text = str(error).rpartition("Error: ")[2] if "Traceback" in str(error) else str(error)
    if sweeps:
        raise HydraException(text)  # the other runs go on, and the table says which one failed
    sys.exit(f"\n{text}")


if __name__ == "__main__":
    keep_signals()
    end_with_parent()
    # set once in the parent's environment, so that the processes DDP starts write into the same run folder
    os.environ.setdefault("WAVEXLSTM_RUN_ID", slurm.run_id(datetime.now()))
    # waiting OpenMP threads sleep early: spinning, they stall a run twentyfold where another program shares the cores
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    mistyped = unknown_choices(sys.argv[1:])
    if mistyped:
        sys.exit(f"\n{ConfigError(mistyped)}")
    sweeps = bool({"-m", "--multirun"} & set(sys.argv)) and "LOCAL_RANK" not in os.environ
    sys.argv[1:] = lenient(sys.argv[1:])
    try:
        main()
    finally:
        if sweeps:
            sweep.tell(os.environ["WAVEXLSTM_RUN_ID"])

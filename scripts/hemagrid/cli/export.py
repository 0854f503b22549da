"""Write a run, or all runs, in formats that other programs read."""

import argparse
import os
from pathlib import Path

from hemagrid import io, names
from hemagrid.cli import options
from hemagrid.errors import InputError
from hemagrid.export import networks, tracking
from hemagrid.reporting.text import counted

TEXT = """
Write the network of a run as ONNX, TFLite or TensorFlow SavedModel, if its probabilities on the
study's test images then differ from those of Keras by at most 1e-5; or all finished runs as an
MLflow file store, or as CSV.
"""
STORE, TABLES = "mlflow", "csv"


def main(words):
    """Export and say where it lies."""
    parser = argparse.ArgumentParser(prog="hemagrid export", description=TEXT)
    help = "name of the run, such as convnext_cfg1; mlflow and csv take all runs"
    parser.add_argument("run", metavar="RUN", nargs="?", help=help)
    parser.add_argument("--format", choices=[*networks.SUFFIXES, STORE, TABLES], required=True)
    help = f"path to write; default: in the study's folder {names.EXPORTED.format(name='')}"
    parser.add_argument("--out", metavar="PATH", type=Path, help=help)
    help = "folder of the study; default: here"
    parser.add_argument("--directory", metavar="DIR", type=Path, default=Path("."), help=help)
    arguments = parser.parse_args(words)
    run, format, folder = arguments.run, arguments.format, arguments.directory
    if not folder.is_dir():
        raise InputError(f"{folder}: found no such folder, expected that of a study")
    if (run is None) == (format in networks.SUFFIXES):
        raise InputError(
            f"RUN: found {run or 'nothing'}, expected "
            + ("the name of a run" if run is None else f"nothing, as {format} has all runs")
            + "; see hemagrid export --help"
        )
    name = {STORE: "mlruns", TABLES: TABLES}.get(format)
    name = name or f"{run}{networks.SUFFIXES[format]}"
    out = arguments.out or folder / names.EXPORTED.format(name=name)
    if run:
        _export_network(folder, run, format, out)
    else:
        _export_study(folder, format, out)


def _export_network(folder, run, format, out):
    networks.check_packages(format)
    from hemagrid.evaluation import inference
    from hemagrid.training import jobs

    found = inference.find_run(run, folder)
    model = found / Path(names.MODEL).name
    if not model.exists():
        raise InputError(
            f"{found}: found a run that is made of others, expected one with a network; export "
            f"{', '.join(io.read_json(found / Path(names.COST).name)['members'])} instead"
        )
    images = io.open_images(folder / names.SUBSET_IMAGES.format(subset=names.TEST))
    # Keras writes its settings there: into the study, from whatever folder this is called.
    os.environ.setdefault("KERAS_HOME", str(Path(folder, names.KERAS_HOME).absolute()))
    jobs.prepare(os.cpu_count())
    network = inference.load_network(model)
    difference = networks.export_network(network, format, images, out)
    print(
        f"Wrote {out}; largest difference to Keras on {len(images)} test images: "
        f"{difference:.1e}"
    )


def _export_study(folder, format, out):
    arguments = argparse.Namespace(directory=folder, configfile=None, config=None)
    _, config, _ = options.study(arguments)
    out = out.absolute()
    study = folder.absolute().name
    os.chdir(folder)
    records, missing = tracking.finished_runs(config)
    if not records:
        raise InputError(
            f"{Path.cwd()}: found no finished run, expected some with a metrics.json; start "
            "the study with snakemake, or name its folder with --directory"
        )
    if format == STORE:
        tracking.write_store(records, study, out)
    else:
        tracking.write_tables(records, out)
    print(f"Wrote {counted(len(records), 'run')} to {out}")
    if missing:
        print(f"Not finished and so not in it: {', '.join(missing)}")

import csv

import pandas as pd
import pytest

from hemagrid.io import write_json, write_text
from hemagrid.reporting.resources import (
    read_usage,
    shown,
    summary,
    totals,
    usage_table,
    write_usage,
)

PLAIN = "s h:m:s max_rss max_vms max_uss max_pss io_in io_out mean_load cpu_time".split()
EXTENDED = "jobid rule_name wildcards params threads cpu_usage resources input_size_mb".split()


def benchmark(path, seconds, rss, cpu, resources=None, threads=1):
    """Write a benchmark file as Snakemake does, extended where resources are given."""
    record = dict.fromkeys(PLAIN, "0.00") | {"s": seconds, "max_rss": rss, "cpu_time": cpu}
    if resources is not None:
        record |= dict.fromkeys(EXTENDED, "{}")
        # A quote in a parameter is a letter, not the start of a field.
        record |= {"threads": threads, "resources": resources, "params": "{'text': \"it's\"}"}
    lines = ["\t".join(record), "\t".join(map(str, record.values()))]
    write_text(path, "\n".join(lines) + "\n")


def cost(path, seconds, cpu, memory):
    used = {"seconds": seconds, "cpu_seconds": cpu, "peak_memory_mib": memory}
    write_json(path, used | {"key": "0" * 16})


@pytest.fixture
def benchmarks(tmp_path):
    """Benchmark files, whose samples fall short of what the jobs say themselves."""
    folder, results = tmp_path / "benchmarks", tmp_path / "results"
    gpu = {"tmpdir": "/tmp", "mem_mb": 6000, "mem": "6 GB", "runtime": 120, "gpu": 1}
    benchmark(folder / "train" / "vgg16_cfg1.tsv", 900, 500, 60, gpu, threads=4)
    cost(results / "vgg16_cfg1" / "cost.json", 1800, 600, 1000)
    more = gpu | {"mem_mb": 12000, "runtime": 240}
    benchmark(folder / "train" / "convnext_cfg1.tsv", 5400, 700, 300, more, threads=4)
    cost(results / "convnext_cfg1" / "cost.json", 5400, 1200, 1500)
    benchmark(folder / "split.tsv", 1.5, "NA", "NA", {"mem_mb": 1000, "runtime": 10})
    benchmark(folder / "evaluate" / "vgg16_cfg1.tsv", 40, 200, 4)
    line = "2026-01-01 10:00:00 used 30.00 s, 15.00 CPU seconds, at most 400.00 MiB of memory"
    write_text(tmp_path / "logs" / "evaluate" / "vgg16_cfg1.log", f"something\n{line}\n")
    benchmark(folder / "search" / "vgg16_tuned.tsv", 60, 300, 20)
    write_json(results / "tuning" / "vgg16_tuned.json", {"seconds": 50})  # a former release's
    return folder


def test_requested_stands_beside_used(benchmarks):
    table = usage_table(benchmarks).set_index(["rule", "job"])
    assert list(table.index) == [
        ("evaluate", "vgg16_cfg1"),
        ("search", "vgg16_tuned"),
        ("split", ""),
        ("train", "convnext_cfg1"),
        ("train", "vgg16_cfg1"),
    ]
    row = table.loc[("train", "vgg16_cfg1")]
    assert (row.threads, row.gpus, row.requested_mem_mb, row.requested_minutes) == (
        *(4, 1),
        *(6000, 120),
    )


def test_what_a_job_says_itself_goes_before_samples(benchmarks):
    table = usage_table(benchmarks).set_index(["rule", "job"])
    row = table.loc[("train", "vgg16_cfg1")]  # in two processes, of which one was sampled
    # Jobs measure in MiB and ask in MB.
    assert row.used_mem_mb == pytest.approx(1000 * 1.048576)
    assert (row.used_minutes, row.cpu_minutes, row.measured) == (30, 10, "all processes")
    row = table.loc[("evaluate", "vgg16_cfg1")]
    assert row.used_mem_mb == pytest.approx(400 * 1.048576)
    assert (row.used_minutes, row.cpu_minutes, row.measured) == (0.5, 0.25, "last process")
    row = table.loc[("search", "vgg16_tuned")]
    assert row.used_mem_mb == pytest.approx(300 * 1.048576) and row.measured == "samples"
    assert row.used_minutes == 1 and pd.isna(row.cpu_minutes)


def test_what_is_unknown_is_missing(benchmarks):
    table = usage_table(benchmarks).set_index("rule")
    plain = table.loc["evaluate"]
    assert plain[["threads", "gpus", "requested_mem_mb", "requested_minutes"]].isna().all()
    # A job too short to be sampled.
    assert pd.isna(table.loc["split"].used_mem_mb) and table.loc["split"].gpus == 0


def test_a_gpu_by_gres_is_a_gpu(tmp_path):
    benchmark(tmp_path / "embed" / "vgg16.tsv", 3600, 10, 10, {"gres": "gpu:1", "mem_mb": 1})
    table = usage_table(tmp_path)
    assert table["gpus"].tolist() == [1] and summary(table)["GPU time"][0] == "1 h 00 min"


def test_a_rule_shows_its_largest_job(benchmarks):
    rules = summary(usage_table(benchmarks)).set_index("rule")
    train = rules.loc["train"]
    assert train["jobs"] == "2"
    assert train["memory"] == "1,573 MB of 12,000 MB (13 %)"
    assert train["time"] == "1 h 30 min of 4 h 00 min (38 %)"
    assert (train["CPU time"], train["GPU time"]) == ("30 min 00 s", "2 h 00 min")
    assert train["time in all"] == "2 h 00 min"
    assert rules.loc["evaluate", "time in all"] == "30 s"
    assert rules.loc["evaluate", "memory"] == "419 MB"
    assert rules.loc["search", "memory"] == "at least 315 MB"
    assert rules.loc["search", "CPU time"] == "\N{EN DASH}"
    assert rules.loc["split", "memory"] == "\N{EN DASH}"
    assert rules.loc["split", "GPU time"] == "\N{EN DASH}"


def test_the_totals_are_those_of_all_jobs(benchmarks, tmp_path):
    expected = {
        "jobs": 5,
        "wall_hours": pytest.approx((1800 + 5400 + 1.5 + 30 + 60) / 3600),
        "cpu_hours": pytest.approx((600 + 1200 + 15) / 3600),
        "gpu_hours": pytest.approx(2),  # of train alone; evaluate does not say
        "sampled": 2,
    }
    assert totals(usage_table(benchmarks)) == expected
    write_usage(benchmarks, tmp_path / "resources.csv")
    assert totals(read_usage(tmp_path / "resources.csv")) == expected


def test_the_table_survives_its_file(benchmarks, tmp_path):
    out = tmp_path / "resources.csv"
    write_usage(benchmarks, out)
    table = read_usage(out)
    pd.testing.assert_frame_equal(
        summary(table), summary(usage_table(benchmarks)), check_dtype=False
    )
    jobs = shown(table)
    assert jobs["job"].tolist()[2:4] == ["split", "train convnext_cfg1"]
    used = ["419 MB", "at least 315 MB", "\N{EN DASH}", "1,573 MB", "1,049 MB"]
    assert jobs["memory used"].tolist() == used
    with open(out) as file:
        assert next(csv.reader(file))[:2] == ["rule", "job"]


@pytest.mark.parametrize(
    "content",
    [b"", b"s\th:m:s\n", b"a\tb\n1\t2\n", b"\xff\xfe", b"s\tmax_rss\tcpu_time\nx\t1\t1\n"],
)
def test_foreign_files_are_left_out(benchmarks, content):
    (benchmarks / "train" / "foreign.tsv").write_bytes(content)
    assert "foreign" not in set(usage_table(benchmarks)["job"])
    assert len(usage_table(benchmarks)) == 5


def test_no_benchmarks_are_an_empty_table(tmp_path):
    write_usage(tmp_path / "nowhere", tmp_path / "resources.csv")
    table = read_usage(tmp_path / "resources.csv")
    assert len(table) == 0 and len(summary(table)) == 0 and len(shown(table)) == 0
    nothing = {"jobs": 0, "wall_hours": 0, "cpu_hours": 0, "gpu_hours": 0, "sampled": 0}
    assert totals(table) == totals(usage_table(tmp_path / "nowhere")) == nothing

"""The parts of tests/gpu/run that say whether the GPU computes what it should.

A part is a function of (machine, clock, result): what it has put into its Result is told, however it ends.
clock.left() tells how many seconds it may still take.
"""

import re
import subprocess
from dataclasses import dataclass, field

PASSED, FAILED, CUT_OFF, SKIPPED = "passed", "FAILED", "cut off", "skipped"

# Tests name the device that they run on.
ON_GPU = "*cuda*:*Cuda*:*CUDA*:*gpu*:*Gpu*"
# With one rank, so that one GPU is enough.
COLLECTIVES_ON_GPU = "*OnGpus*_on_1_*:*/Nccl.behaves/all_*_on_1:NcclCommunicator.calls_that_fit_no_ranks_are_refused"


@dataclass
class Result:
    status: str = PASSED
    notes: list = field(default_factory=list)  # lines of the report
    figures: dict = field(default_factory=dict)
    tables: list = field(default_factory=list)  # (title, header, rows)

    def worsen(self, status, note):
        """Failures outweigh what was cut off or skipped."""
        order = (PASSED, SKIPPED, CUT_OFF, FAILED)
        self.status = max(self.status, status, key=order.index)
        self.notes.append(note)

    def expect(self, holds, note):
        if not holds:
            self.worsen(FAILED, note)
        return holds


def tests_told(out):
    """What a test program has said so far."""
    return {"passed": len(re.findall(r"^\[       OK \]", out, re.MULTILINE)),
            "failed": sorted(set(re.findall(r"^\[  FAILED  \] (\S+\.[^\s,]+)", out, re.MULTILINE))),
            "skipped": len(set(re.findall(r"^\[  SKIPPED \] (\S+)", out, re.MULTILINE)))}


def run_tests(machine, result, name, program, filters, seconds, *options, prefix=(), **extra):
    finished = machine.run([*prefix, machine.program(program), f"--gtest_filter={filters}", *options], seconds, **extra)
    told = tests_told(finished.out)
    result.figures[name] = {**told, "seconds": round(finished.seconds, 1)}
    line = f"{name}: {told['passed']} passed, {len(told['failed'])} failed, {told['skipped']} skipped"
    if told["failed"] or (finished.code != 0 and not finished.cut_off):
        result.worsen(FAILED, f"{line}: {', '.join(told['failed'][:8]) or finished.trouble()}")
    elif finished.cut_off:
        result.worsen(CUT_OFF, f"{line}; cut off after {finished.seconds:.0f} s, without a failure until then")
    elif told["passed"] == 0:
        result.worsen(FAILED, f"{line}: nothing of the GPU was tested")
    elif told["skipped"]:
        result.worsen(SKIPPED, line)
    else:
        result.notes.append(line)
    return finished


def op_tables(machine, clock, result):
    """Every op, shape and type against double precision, and the device's streams and collectives."""
    if machine.dry:
        run_tests(machine, result, "model_tests", "model_tests", "*agrees_with_double_precision/Cuda_*norm*", clock.left())
        return
    run_tests(machine, result, "core_tests", "core_tests", ON_GPU, clock.left() / 4)
    run_tests(machine, result, "comm_tests", "comm_tests", COLLECTIVES_ON_GPU, clock.left() / 4)
    run_tests(machine, result, "model_tests", "model_tests", ON_GPU, 0.7 * clock.left())
    # Where cuDNN computes attention, our own kernels have not been seen yet.
    if without := machine.without_cudnn():
        run_tests(machine, result, "attention without cuDNN", "model_tests", "*ttention*Cuda*:*Cuda*ttention*", clock.left(), **without)


def sanitizer(machine, clock, result):
    """compute-sanitizer over the op table, in an order drawn once, so that a part cut off has seen a bit of everything."""
    if machine.sanitizer is None:
        result.worsen(SKIPPED, "no compute-sanitizer on this machine")
        return
    table = "*agrees_with_double_precision/Cuda_*"
    for tool, share in (("memcheck", 0.5), ("racecheck", 1.0)):
        command = [machine.sanitizer, "--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
        # Libraries' kernels are not ours to check, and slow it down.
        if tool == "racecheck" and "--kernel-regex" in machine.run([machine.sanitizer, "--help"], 30).out:
            command += ["--kernel-regex", "kns=muster"]
        finished = run_tests(machine, result, tool, "model_tests", table, clock.left() * share, "--gtest_shuffle",
                             "--gtest_random_seed=1", prefix=command)
        errors = re.findall(r"^========= (.*(?:Invalid|hazard|Race|ERROR SUMMARY).*)$", finished.out, re.MULTILINE)
        result.figures[tool]["told"] = errors[:10]
        worrying = [line for line in errors if not line.startswith("ERROR SUMMARY: 0 ")]
        result.expect(not worrying, f"{tool}: {'; '.join(worrying[:3])}")


# Small models with all that could differ between devices and ranks.
FAMILIES = {
    "gpt": {"model.family": "gpt", "model.heads": 4},
    "llama": {"model.family": "llama", "model.heads": 4, "model.kv_heads": 2, "model.tied": False, "model.qkv_bias": True},
}


def settings(machine, family, **more):
    width, layers, sequence, batch, steps = (64, 2, 16, 8, 5) if machine.dry else (256, 4, 256, 16, 20)
    return {"model.layers": layers, "model.width": width, "model.vocabulary": 257, "model.dropout": 0.1, "train.steps": steps,
            "train.batch": batch, "train.sequence": sequence, "train.shards": 8, "train.micro_batch": 1, "data.documents": True,
            "optimizer.lr": 1e-3, "optimizer.clip": 0.6, "schedule.warmup": 5, "checkpoint.every": 0, "eval.every": 0,
            "data.path": str(machine.room / "small-data"), "run.threads": 1 if machine.dry else 4, **FAMILIES[family],
            **{key.replace("__", "."): value for key, value in more.items()}}


def prepare_text(machine, seconds):
    import muster
    text = machine.room / "small.jsonl"
    muster.write_documents(text, 400 if machine.dry else 4000, longest=200)
    return machine.run([machine.program("muster"), "prepare", text, "--output", machine.room / "small-data", "--validation", "0.1"],
                       seconds)


class Run:
    """A training run that has ended, and what it left."""

    def __init__(self, machine, name, keys, seconds, launcher=(), **extra):
        import muster
        self.folder = machine.room / name
        self.finished = machine.run([*launcher, machine.program("muster"), "train", "configs/tiny.toml",
                                     f"--run.dir={self.folder}", *muster.keys(keys)], seconds, **extra)
        self.metrics = muster.metrics(self.folder)
        self.losses = [record["loss"] for record in self.metrics]
        self.ok = self.finished.ok
        self.values = None
        if self.ok:
            checked = machine.run([machine.program("muster"), "checkpoint", "verify", self.folder, str(len(self.losses))], 60)
            found = re.search(r"values (\S+)", checked.out)
            self.values = found.group(1) if found else None


def training(machine, clock, result):
    """gpt and llama against the stored values of PyTorch, and CPU against CUDA with dropout."""
    prepared = prepare_text(machine, clock.left())
    if not result.expect(prepared.ok, f"muster prepare: {prepared.trouble()}"):
        return
    rows = []
    result.tables.append(("CPU against CUDA: f32, dropout 0.1, documents apart",
                          ["family", "steps", "last loss, CPU", "last loss, CUDA", "worst difference"], rows))
    for family in FAMILIES:
        runs = {device: Run(machine, f"{family}-{device}", settings(machine, family, run__device=device), clock.left() / 2)
                for device in ("cuda", "cpu")}
        for device, run in runs.items():
            if not run.ok:
                result.worsen(CUT_OFF if run.finished.cut_off else FAILED, f"{family} on {device}: {run.finished.trouble()}")
        if all(run.ok for run in runs.values()):
            pairs = list(zip(runs["cpu"].losses, runs["cuda"].losses))
            worst = max(abs(a - b) / a for a, b in pairs)
            rows.append([family, len(pairs), f"{pairs[-1][0]:.7f}", f"{pairs[-1][1]:.7f}", f"{worst:.1e}"])
            result.figures[f"{family}: worst relative difference of a loss"] = worst
            result.expect(worst <= 1e-5, f"{family}: losses of CPU and CUDA differ by {worst:.1e}, more than 1e-5")
    if machine.dry:
        return
    # Last, because their ranks are threads that stage through the host: CUDA may run functions of the host one after the
    # other, also those of several streams, and one that waits for another rank's would then wait for ever.
    filters = ":".join(f"*Values*{device}" for device in ON_GPU.split(":"))
    run_tests(machine, result, "values of PyTorch (trainer_tests)", "trainer_tests", filters, clock.left() / 2)
    run_tests(machine, result, "steps of CPU and CUDA (trainer_tests)", "trainer_tests", "CudaStep.*", clock.left())


# Several processes, one GPU: for NCCL each is a host of its own, joined by sockets.
NCCL_ON_ONE_GPU = {
    "NCCL_NET": "Socket", "NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "lo", "NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1",
    "NCCL_MNNVL_ENABLE": "0", "NCCL_CUMEM_ENABLE": "0", "NCCL_NVLS_ENABLE": "0", "NCCL_MAX_CTAS": "2",
}
NCCL_HOST = ["sh", "-c", 'NCCL_HOSTID="rank$OMPI_COMM_WORLD_RANK" exec "$@"', "sh"]


# Ranks that are joined through the host wait there, inside of functions that block a stream. To load a kernel when it is
# first launched may wait for the device, and so for them.
STAGED = {"CUDA_MODULE_LOADING": "EAGER"}


def nccl_launcher(machine, ranks):
    """mpirun whose ranks take each other for other hosts', so that each takes the GPU as its own: command, environment.

    Where a container may not name hosts, NCCL alone takes them for such.
    """
    if subprocess.run(["unshare", "--uts", "sh", "-c", "echo x > /proc/sys/kernel/hostname"], stderr=subprocess.DEVNULL).returncode != 0:
        return ["mpirun", "-n", ranks, *NCCL_HOST], NCCL_ON_ONE_GPU
    hosts = machine.room / f"hosts-{ranks}"
    hosts.write_text("".join(f"rank{rank} slots=1\n" for rank in range(ranks)))
    command = ["mpirun", "--hostfile", hosts, "-n", ranks, *NCCL_HOST]
    return command, {**NCCL_ON_ONE_GPU, "TMPDIR": str(machine.room), "OMPI_MCA_plm_rsh_agent": str(machine.root / "tests/cluster/enter"),
                     "OMPI_MCA_btl": "tcp,self", "OMPI_MCA_btl_tcp_if_include": "lo", "OMPI_MCA_oob_tcp_if_include": "lo"}


def ranks(machine, clock, result):
    """Several ranks on one GPU, over NCCL and staged through the host: invariant reduction keeps the bits, fast the loss."""
    if not (machine.room / "small-data").exists():
        prepared = prepare_text(machine, clock.left())
        if not result.expect(prepared.ok, f"muster prepare: {prepared.trouble()}"):
            return
    counts = (2,) if machine.dry else (2, 4)
    for count in counts:
        plain = ["mpirun", "-n", count]
        for backend, launcher, variables in (("nccl", [*plain, *NCCL_HOST], NCCL_ON_ONE_GPU), ("staged", plain, STAGED)):
            finished = machine.run([*launcher, machine.program("comm_over_mpi"), "behaviours", backend], clock.left() / 5, **variables)
            holds = finished.ok and "all behaviours hold" in finished.out
            note = f"collectives on {count} ranks, {backend}: {'all behaviours hold' if holds else finished.trouble()}"
            result.worsen(PASSED if holds else CUT_OFF if finished.cut_off else FAILED, note)

    rows = []
    result.tables.append(("Ranks on one GPU", ["family", "reduction", "ranks", "communicator", "last loss", "values", ""], rows))
    for family in ("gpt",) if machine.dry else FAMILIES:
        alone = {}
        for reduction in ("invariant", "fast"):
            keys = settings(machine, family, run__device="cuda", train__reduction=reduction, train__steps=5 if machine.dry else 10)
            for count, way in [(1, "-"), *((count, way) for count in counts for way in ("NCCL", "staged"))]:
                launcher, extra = nccl_launcher(machine, count) if way == "NCCL" else (["mpirun", "-n", count], STAGED)
                # A run that hangs leaves time to the others.
                seconds = min(clock.left(), max(15, clock.left() / 3))
                run = Run(machine, f"{family}-{reduction}-{count}-{way}", keys, seconds, launcher, **extra)
                if count == 1:
                    alone[reduction] = run
                name = f"{family}, {reduction}, {count} ranks, {way}"
                if not run.ok:
                    result.worsen(CUT_OFF if run.finished.cut_off else FAILED, f"{name}: {run.finished.trouble()}")
                    rows.append([family, reduction, count, way, "-", "-", "no end"])
                    continue
                first = abs(run.losses[0] - alone[reduction].losses[0]) / run.losses[0] if alone[reduction].losses else None
                same = run.values == alone[reduction].values
                rows.append([family, reduction, count, way, f"{run.losses[-1]:.7f}", run.values, "same bits" if same else "other bits"])
                if reduction == "invariant":
                    result.expect(same and run.values, f"{name}: not the bits of one rank")
                result.expect(first is None or first <= 1e-6, f"{name}: loss of step 1 differs by {first}")

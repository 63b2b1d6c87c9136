"""The parts of tests/gpu/run that say whether the GPU computes what it should.

A part is a function of (machine, clock, result): what it has put into its Result is told, however it ends.
clock.left() tells how many seconds it may still take.
"""

import re
import time
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


@dataclass
class Tests:
    """What a test program has said: names in the order in which they ran."""
    passed: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    running: str = ""  # begun, and not ended
    broke: str = ""  # after its failure nothing on this device works in the same process

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


BROKEN_DEVICE = re.compile(r"illegal (memory|address|instruction)|misaligned address|launch failure|device-side assert|"
                           r"cudaError(Illegal|Misaligned|Launch|Hardware|Assert)")


def tests_told(out):
    tests, text = Tests(), []
    for line in out.splitlines():
        if begun := re.match(r"\[ RUN      \] (\S+)", line):
            tests.running, text = begun.group(1), []
        elif tests.running and (end := re.match(r"\[\s+(OK|FAILED|SKIPPED)\s+\] (\S+?),?( |$)", line)) and end.group(2) == tests.running:
            {"OK": tests.passed, "FAILED": tests.failed, "SKIPPED": tests.skipped}[end.group(1)].append(tests.running)
            if end.group(1) == "FAILED" and BROKEN_DEVICE.search("\n".join(text)):
                tests.broke = tests.running
                tests.running = ""
                break  # what failed later says nothing
            tests.running = ""
        else:
            text.append(line)
    return tests


def run_tests(machine, result, name, program, filters, seconds, *options, prefix=(), again=True, **extra):
    """A kernel that breaks the device for its process, crashes or hangs takes the tests after it along: unless told
    otherwise these have another start, until time is over."""
    end, took, told, out, hanging = time.monotonic() + seconds, 0, Tests(), "", []
    while True:
        left = end - time.monotonic()
        seen = told.passed + told.failed + told.skipped + hanging
        chosen = filters + ("-" + ":".join(seen) if seen else "")
        finished = machine.run([*prefix, machine.program(program), f"--gtest_filter={chosen}", *options],
                               0.6 * left if again else left, **extra)
        tests = tests_told(finished.out)
        told.add(tests)
        took, out = took + finished.seconds, out + finished.out
        if tests.running:
            (hanging if finished.cut_off else told.failed).append(tests.running)
        if not again or not (tests.broke or tests.running) or end - time.monotonic() < 2:
            break
    counts = {"passed": len(told.passed), "failed": told.failed, "skipped": len(told.skipped), "cut_off": hanging}
    result.figures[name] = {**counts, "seconds": round(took, 1)}
    line = f"{name}: {counts['passed']} passed, {len(told.failed)} failed, {counts['skipped']} skipped"
    if hanging:
        line += f"; cut off in {', '.join(hanging)} ({took:.0f} s)"
    if told.failed or (finished.code != 0 and not finished.cut_off):
        result.worsen(FAILED, f"{line}: {', '.join(told.failed[:8]) or finished.trouble()}")
    elif finished.cut_off or hanging:
        result.worsen(CUT_OFF, f"{line}, without a failure until then")
    elif counts["passed"] == 0:
        result.worsen(FAILED, f"{line}: nothing of the GPU was tested")
    elif counts["skipped"]:
        result.worsen(SKIPPED, line)
    else:
        result.notes.append(line)
    return out


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
        out = run_tests(machine, result, tool, "model_tests", table, clock.left() * share, "--gtest_shuffle",
                        "--gtest_random_seed=1", prefix=command, again=False)
        errors = re.findall(r"^========= (.*(?:Invalid|hazard|Race|ERROR SUMMARY).*)$", out, re.MULTILINE)
        result.figures[tool]["told"] = errors[:10]
        worrying = [line for line in errors if not re.match(r"(ERROR|RACECHECK) SUMMARY: 0 ", line)]
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
    run_tests(machine, result, "values of PyTorch (trainer_tests)", "trainer_tests", filters, clock.left() / 2, **STAGED)
    run_tests(machine, result, "steps of CPU and CUDA (trainer_tests)", "trainer_tests", "CudaStep.*", clock.left(), **STAGED)


# Several processes, one GPU: NCCL_HOSTID makes each a host of its own, joined by sockets.
NCCL_ON_ONE_GPU = {
    "NCCL_NET": "Socket", "NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "lo", "NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1",
    "NCCL_MNNVL_ENABLE": "0", "NCCL_CUMEM_ENABLE": "0", "NCCL_NVLS_ENABLE": "0", "NCCL_MAX_CTAS": "2",
}
NCCL_HOST = ["sh", "-c", 'NCCL_HOSTID="rank$OMPI_COMM_WORLD_RANK" exec "$@"', "sh"]


# Ranks that are joined through the host wait there, inside of functions that block a stream. To load a kernel when it is
# first launched may wait for the device, and so for them.
STAGED = {"CUDA_MODULE_LOADING": "EAGER"}


def ranks(machine, clock, result):
    """Several ranks on one GPU, over NCCL and staged through the host: invariant reduction keeps the bits, fast the loss."""
    if not (machine.room / "small-data").exists():
        prepared = prepare_text(machine, clock.left())
        if not result.expect(prepared.ok, f"muster prepare: {prepared.trouble()}"):
            return
    for count in (2,) if machine.dry else (2, 4):
        plain = ["mpirun", "-n", count]
        for backend, launcher, variables in (("nccl", [*plain, *NCCL_HOST], NCCL_ON_ONE_GPU), ("staged", plain, STAGED)):
            finished = machine.run([*launcher, machine.program("comm_over_mpi"), "behaviours", backend], clock.left() / 5, **variables)
            holds = finished.ok and "all behaviours hold" in finished.out
            note = f"collectives on {count} ranks, {backend}: {'all behaviours hold' if holds else finished.trouble()}"
            result.worsen(PASSED if holds else CUT_OFF if finished.cut_off else FAILED, note)

    rows = []
    result.tables.append(("Ranks on one GPU", ["family", "reduction", "ranks", "communicator", "last loss", "values", ""], rows))
    # The default over NCCL first: each run takes seconds to start, and their time may end before the last.
    for family, reduction, ways in (("gpt", "fast", ("NCCL",)), ("gpt", "invariant", ("NCCL", "staged")),
                                    ("llama", "invariant", ("NCCL",))):
        keys = settings(machine, family, run__device="cuda", train__reduction=reduction, train__steps=5 if machine.dry else 10)
        alone = None
        for count, way in ((1, "-"), *((2, way) for way in ways)):
            launcher, extra = (NCCL_HOST, NCCL_ON_ONE_GPU) if way == "NCCL" else ([], STAGED)
            # A run that hangs leaves time to the others.
            seconds = min(clock.left(), max(15, clock.left() / 3))
            run = Run(machine, f"{family}-{reduction}-{count}-{way}", keys, seconds, ["mpirun", "-n", count, *launcher], **extra)
            alone = alone or run
            name = f"{family}, {reduction}, {count} ranks, {way}"
            if not run.ok:
                result.worsen(CUT_OFF if run.finished.cut_off else FAILED, f"{name}: {run.finished.trouble()}")
                rows.append([family, reduction, count, way, "-", "-", "no end"])
                continue
            first = abs(run.losses[0] - alone.losses[0]) / run.losses[0] if alone.losses else None
            same = run.values == alone.values
            rows.append([family, reduction, count, way, f"{run.losses[-1]:.7f}", run.values, "same bits" if same else "other bits"])
            if reduction == "invariant":
                result.expect(same and run.values, f"{name}: not the bits of one rank")
            result.expect(first is None or first <= 1e-6, f"{name}: loss of step 1 differs by {first}")

"""The parts of tests/gpu/run that measure: training steps against PyTorch, memory against the plan, ops against a copy."""

import array
import importlib.util
import random
import shutil
import signal
import statistics
import subprocess
import time

from checks import CUT_OFF, FAILED, SKIPPED
from machine import DeviceMemory, end_session, printed_json

DENSE_BF16 = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}  # FLOP/s, by the data sheets
MEMORY_TOLERANCE = 0.02


class Model:
    """A benchmark: a configuration, its micro-batch, and how many of them make a step."""

    def __init__(self, name, config, micro_batch, accumulate, goal, vocabulary, sequence=1024):
        self.name, self.config, self.micro_batch, self.accumulate = name, config, micro_batch, accumulate
        self.goal, self.vocabulary, self.sequence = goal, vocabulary, sequence

    @property
    def tokens(self):
        return self.micro_batch * self.accumulate * self.sequence

    def pytorch(self, device, steps, micro_batch=None, until=None):
        batch = micro_batch or self.micro_batch
        return ["tests/bench/pytorch_step.py", "--config", self.config, "--vocabulary", self.vocabulary, "--device", device,
                "--precision", "bf16", "--batch", batch, "--accumulate", self.micro_batch * self.accumulate // batch,
                "--sequence", self.sequence, "--steps", steps, "--warmup", 2, *(["--compile"] if device == "cuda" else []),
                *(["--until", f"{until:.1f}"] if until else [])]


# A vocabulary of 50,304 for GPT-2: PyTorch's products are slow at 50,257. Memory of one H100 (80 GB) is enough.
MODELS = [
    Model("GPT-2 124M", "configs/gpt2-124m.toml", 32, 4, 1.3, 50304),
    Model("Llama 0.5B", "configs/llama-0.5b.toml", 16, 4, 1.2, 151936),
    Model("Llama 1.5B", "configs/llama-1.5b.toml", 8, 4, 1.2, 151936),
]
DRY_MODELS = [Model("tiny", "configs/tiny.toml", 2, 2, None, 257, 32)]


def models_of(machine):
    return (DRY_MODELS if machine.dry else MODELS)[: machine.models]


def has_pytorch(machine):
    probe = "import torch; print(torch.cuda.is_available())"
    done = machine.python(["-c", probe], 120)
    return done.ok and (machine.dry or "True" in done.out.split())


class Warming:
    """torch.compile takes minutes; its results are kept on disk, so it runs beside the checks and not inside a benchmark."""

    def __init__(self, machine):
        self.machine, self.process = machine, None

    def begin(self):
        machine = self.machine
        if machine.dry or importlib.util.find_spec("torch") is None:  # to import it takes half a minute
            return
        lines = [" ".join(["python3", *map(str, model.pytorch("cuda", 1))]) for model in models_of(machine)]
        with open(machine.room / "warming.log", "w") as log:
            self.process = subprocess.Popen(["sh", "-c", "; ".join(lines)], cwd=machine.root, stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, start_new_session=True)

    def end(self, seconds):
        """Waits for it, then ends it: benchmarks want the GPU alone."""
        if self.process is None:
            return
        try:
            self.process.wait(timeout=max(seconds, 0))
        except subprocess.TimeoutExpired:
            end_session(self.process)
        self.process = None
        self.machine.log.write(f"\n$ warming torch.compile\n{(self.machine.room / 'warming.log').read_text(errors='replace')}")


def prepare_tokens(machine, model, seconds):
    """Random ids: enough for some steps, after which they come again."""
    folder = machine.room / f"tokens-{model.vocabulary}"
    if not folder.exists():
        ids = array.array("I", random.Random(1).choices(range(model.vocabulary), k=16 * model.sequence * 64))
        (machine.room / "tokens.bin").write_bytes(ids.tobytes())
        done = machine.run([machine.program("muster"), "prepare", machine.room / "tokens.bin", "--output", folder, "--vocabulary",
                            model.vocabulary, "--token-type", "u32", "--validation", 0], seconds)
        if not done.ok:
            return None
    return folder


def keys_of(model, data=None):
    return {"run.device": "cuda", "run.precision": "bf16", **({"data.path": data} if data else {}), "model.vocabulary": model.vocabulary,
            "model.context": model.sequence, "train.batch": model.micro_batch * model.accumulate, "train.sequence": model.sequence,
            "train.shards": 1, "train.micro_batch": model.micro_batch, "train.reduction": "fast", "train.recompute": "none",
            "eval.every": 0, "checkpoint.every": 0, "schedule.warmup": 0}


def muster_steps(machine, model, keys, steps, seconds):
    """Tokens/s of the steps but the first three, the first loss, the most device memory, and what went wrong.

    The run is ended once it has made its steps: the checkpoint at its end would take longer than all of them."""
    import muster
    folder = machine.room / f"bench-{model.name.replace(' ', '-')}"
    command = [machine.program("muster"), "train", model.config, f"--run.dir={folder}", "--train.steps=100000", *muster.keys(keys)]
    cudart = next((file for name, file in machine.libraries.items() if name.startswith("libcudart.so") and file), None)
    watch = None if machine.dry or not cudart else DeviceMemory(cudart)
    before = watch.used() if watch else None
    if before is None:
        watch = None
    most, end = 0, time.monotonic() + seconds
    with open(machine.room / "bench.log", "w+") as log:
        process = subprocess.Popen([str(part) for part in command], cwd=machine.root, env=machine.environment, stdout=log,
                                   stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and time.monotonic() < end and len(muster.metrics(folder)) < steps + 3:
            most = max(most, (watch.used() or 0) - before) if watch else 0
            time.sleep(0.05)
        trouble = process.returncode
        end_session(process, [signal.SIGKILL])  # asked kindly, it would save
        log.seek(0)
        told = log.read()
    machine.log.write(f"\n$ {' '.join(map(str, command))}\n{told}")
    records = muster.metrics(folder)
    shutil.rmtree(folder, ignore_errors=True)
    if trouble is not None:
        return None, None, most, f"exit code {trouble}: {told.strip().splitlines()[-1][:300] if told.strip() else ''}"
    if len(records) < 5:
        return None, None, most, f"only {len(records)} steps in {seconds:.0f} s"
    return statistics.median(r["tokens_per_s"] for r in records[3:]), records[0]["loss"], most, None


def pytorch_steps(machine, model, steps, seconds):
    """The result of pytorch_step.py, with half the micro-batch where memory does not suffice; or what went wrong."""
    device = "cpu" if machine.dry else "cuda"
    end, batch = time.monotonic() + seconds, model.micro_batch
    while True:
        left = end - time.monotonic()
        done = machine.python(model.pytorch(device, steps, batch, time.time() + left - 3), left)
        if done.ok:
            return printed_json(done.out), None
        if "OutOfMemory" not in done.out or batch == 1:
            return None, done.trouble()
        batch //= 2


def steps_of(machine, clock, result, warming):
    """The training step against PyTorch, and the device memory of a run against its plan."""
    rows, memory = [], []
    result.tables.append(("bf16 training steps, tokens/s, medians",
                          ["model", "batch x T x micro-batches", "Muster", "mfu", "PyTorch", "mfu", "ratio", "goal", "predicted"], rows))
    warming.end(clock.left() / 4)
    pytorch = has_pytorch(machine)
    peak = next((rate for name, rate in DENSE_BF16.items() if name in machine.gpu), None)
    on = next((name.lower() for name in DENSE_BF16 if name in machine.gpu), "h200")
    result.tables.append((f"Device memory in MiB, `muster plan --on {on}` against cudaMemGetInfo",
                          ["model", "planned", "measured", ""], memory))
    models = models_of(machine)
    for number, model in enumerate(models):
        share = clock.left() / (len(models) - number)
        end = time.monotonic() + share
        data = prepare_tokens(machine, model, share)
        if not result.expect(data, f"{model.name}: muster prepare failed"):
            continue
        keys, steps = keys_of(model, data), 3 if machine.dry else 15
        import muster
        told = machine.run([machine.program("muster"), "plan", model.config, "--on", on, "--json", *muster.keys(keys)], 30)
        if not told.ok:
            result.worsen(CUT_OFF if told.cut_off else FAILED, f"{model.name}: muster plan: {told.trouble()}")
            continue
        plan = printed_json(told.out)
        flops = plan["flops_per_step"] / plan["tokens_per_step"]
        mfu = (lambda speed: f"{100 * speed * flops / peak:.1f}%") if peak else (lambda speed: "-")

        ours, loss, most, trouble = muster_steps(machine, model, keys, steps, 0.4 * share)
        if trouble:
            result.worsen(CUT_OFF if trouble.startswith("only") else FAILED, f"{model.name}, muster: {trouble}")
        # PyTorch is given what we left of our share: it traces the model anew, whatever it has compiled before.
        theirs, trouble = pytorch_steps(machine, model, steps, end - time.monotonic()) if pytorch else (None, "no PyTorch here")
        if trouble:
            result.worsen(SKIPPED if not pytorch else CUT_OFF if trouble == "cut off" else FAILED, f"{model.name}, PyTorch: {trouble}")
        predicted = plan.get("prediction", {}).get("tokens_per_s")
        speed = theirs["tokens_per_s"] if theirs else None
        result.figures[model.name] = {"muster_tokens_per_s": ours, "pytorch": theirs, "first_loss": loss, "plan": plan,
                                      "device_bytes": most}
        rows.append([model.name, f"{model.micro_batch} x {model.sequence} x {model.accumulate}", f"{ours:,.0f}" if ours else "-",
                     mfu(ours) if ours else "-", f"{speed:,.0f}" if speed else "-", mfu(speed) if speed else "-",
                     f"{ours / speed:.2f}x" if ours and speed else "-", f"{model.goal}x" if model.goal else "-",
                     f"{predicted:,.0f}" if predicted else "-"])
        if most and ours:
            planned = plan["memory"]["total_bytes"] + plan["memory"]["runtime_bytes"]
            off = most / planned - 1
            memory.append([model.name, f"{planned / 2**20:,.0f}", f"{most / 2**20:,.0f}", f"{100 * off:+.1f}%"])
            result.expect(abs(off) <= MEMORY_TOLERANCE, f"{model.name}: device memory is {100 * off:+.1f}% off its plan")


GOAL_OF_COPY = 0.8


def ops(machine, clock, result):
    """Each op of a training step beside its ceiling (`muster bench ops`), and the step by op (`muster bench step`)."""
    import muster
    models = models_of(machine)
    for number, model in enumerate(models):
        keys = muster.keys({**keys_of(model), **({"run.device": "cpu"} if machine.dry else {})})  # it is long on the stand-in
        timed = result.figures[model.name] = {}
        for bench, to_come in (("ops", 2 * (len(models) - number)), ("step", 2 * (len(models) - number) - 1)):
            seconds = min(clock.left(), 1.5 * clock.left() / to_come)  # some need more, others leave of theirs
            done = machine.run([machine.program("muster"), "bench", bench, model.config, "--json", *keys], seconds)
            if done.ok:
                timed[bench] = printed_json(done.out)
            else:
                result.worsen(CUT_OFF if done.cut_off else FAILED, f"{model.name}, muster bench {bench}: {done.trouble()}")
        if "ops" in timed:
            told = timed["ops"]
            rows = [[op["op"], op["shapes"], op["calls"] or "-", f"{1e3 * op['seconds']:.3f}", f"{1e-12 * op['flops_per_s']:.1f}",
                     f"{1e-9 * op['bytes_per_s']:,.0f}", op["ceiling"], f"{100 * op['share']:.0f}%"] for op in told["ops"]]
            result.tables.append((f"{model.name}: products reach {1e-12 * told['products_flops_per_s']:.0f} TFLOP/s, "
                                  f"a copy {1e-9 * told['copy_bytes_per_s']:,.0f} GB/s",
                                  ["op", "shapes", "calls", "ms", "TFLOP/s", "GB/s", "ceiling", "share"], rows))
            slow = [f"{op['op']} {100 * op['share']:.0f}% ({1e-6 * op['bytes_per_s'] * op['seconds']:,.0f} MB)" for op in told["ops"]
                    if op["ceiling"] in ("copy", "cache") and op["share"] < GOAL_OF_COPY]
            if slow and not machine.dry:
                result.notes.append(f"{model.name}: below {100 * GOAL_OF_COPY:.0f}% of a copy: {', '.join(slow)}")
        if "step" in timed:
            step = timed["step"]
            rows = [[op["op"], op["calls"], f"{1e3 * op['seconds']:.2f}", f"{100 * op['seconds'] / step['timed_step_seconds']:.1f}%"]
                    for op in step["ops"][:12]]
            result.tables.append((f"{model.name}: the step of {1e3 * step['step_seconds']:.1f} ms by op",
                                  ["op", "calls", "ms", "share"], rows))

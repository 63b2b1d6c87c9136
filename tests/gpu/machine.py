"""The machine that tests/gpu/run runs on: its GPU, the libraries it brings, and commands with an end."""

import ctypes
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import time

DRIVER, CUDNN = "libcuda.so.1", "libcudnn.so.9"


class NoGpu(Exception):
    pass


def find_gpu():
    """One line of what nvidia-smi says, by field. Raises NoGpu."""
    fields = ("name", "driver_version", "memory.total", "compute_cap", "pci.bus_id")
    try:
        done = subprocess.run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
                              capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        raise NoGpu("no nvidia-smi here, so no driver")
    if done.returncode != 0 or not done.stdout.strip():
        raise NoGpu((done.stdout + done.stderr).strip().splitlines()[0] if done.stdout + done.stderr else "nvidia-smi lists none")
    gpus = [dict(zip(fields, (part.strip() for part in line.split(",")))) for line in done.stdout.strip().splitlines()]
    return gpus[0] | {"count": len(gpus)}


def cuda_folders():
    """Where CUDA's libraries may lie: Python's wheels, which fit each other, before the toolkit's."""
    folders = []
    spec = importlib.util.find_spec("nvidia")
    for place in spec.submodule_search_locations if spec else ():
        folders += sorted(pathlib.Path(place).glob("*/lib"), reverse=True)
    for toolkit in ("/usr/local/cuda", *sorted(map(str, pathlib.Path("/usr/local").glob("cuda-*")), reverse=True)):
        folders += [pathlib.Path(toolkit, "lib64"), pathlib.Path(toolkit, "targets/x86_64-linux/lib")]
    folders += [pathlib.Path(place) for place in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64")]
    return [folder for folder in folders if folder.is_dir()]


def printed_json(out):
    """The last JSON object that a program printed, whatever its libraries said before and after it."""
    lines = out.splitlines()
    start = max((i for i, line in enumerate(lines) if line.startswith("{")), default=0)
    return json.JSONDecoder().raw_decode("\n".join(lines[start:]))[0]


class Finished:
    def __init__(self, code, out, seconds, cut_off):
        self.code, self.out, self.seconds, self.cut_off = code, out, seconds, cut_off

    @property
    def ok(self):
        return self.code == 0 and not self.cut_off

    def last_line(self):
        """What Muster complains of, where it does: mpirun has the last word, and it is of no use."""
        lines = self.out.strip().splitlines()
        complaints = [line for line in lines if line.startswith("muster: ")]
        return (complaints or lines)[-1][:300] if lines else ""

    def trouble(self):
        return "cut off" if self.cut_off else f"exit code {self.code}: {self.last_line()}"


class Machine:
    """The unpacked pack on this machine. Every command's output goes to the log."""

    def __init__(self, pack, room, log, dry):
        archive = pathlib.Path(pack) / "muster-gpu.tar.xz"
        with tarfile.open(archive) as files:
            files.extractall(room, filter="fully_trusted")
        self.root = room / "muster-gpu"
        self.room, self.log, self.dry = room, log, dry
        self.manifest = json.loads((self.root / "manifest.json").read_text())
        self.libraries = self.find_libraries()
        self.environment = self.make_environment()

    def find_libraries(self):
        """{soname: file} of CUDA's libraries that the pack leaves to this machine; None where there is none."""
        folders = cuda_folders()
        # No binary names cuDNN: it is loaded when a model first asks for it.
        names = [*self.manifest["cuda_libraries"], *([] if self.manifest["cuda"] == "host" else [CUDNN])]
        return {name: next((str(folder / name) for folder in folders if (folder / name).exists()), None)
                for name in dict.fromkeys(names)}

    def scripts_that_differ(self, folder):
        """What the pack was made from is not what runs it."""
        packed = self.root / "tests/gpu"
        return [name for name in sorted({path.name for where in (folder, packed) for path in where.iterdir() if path.is_file()})
                if not all((where / name).is_file() for where in (folder, packed))
                or (folder / name).read_bytes() != (packed / name).read_bytes()]

    def missing_libraries(self):
        # The driver's comes with it, wherever the loader looks; without cuDNN attention takes our own kernels.
        return [name for name, file in self.libraries.items() if file is None and name not in (DRIVER, CUDNN)]

    def make_environment(self):
        root = str(self.root)
        folders = [f"{root}/lib", *dict.fromkeys(str(pathlib.Path(file).parent) for file in self.libraries.values() if file)]
        return {
            **os.environ,
            "PATH": f"{root}/bin:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": ":".join([*folders, os.environ.get("LD_LIBRARY_PATH", "")]).rstrip(":"),
            "MUSTER": f"{root}/bin/muster",
            "PYTHONDONTWRITEBYTECODE": "1",
            # Open MPI where it was not installed, among processes of one host.
            "OPAL_PREFIX": root, "OPAL_BINDIR": f"{root}/bin", "OPAL_LIBDIR": f"{root}/lib",
            "OPAL_PKGLIBDIR": f"{root}/lib/openmpi", "OPAL_DATADIR": f"{root}/share",
            "OPAL_PKGDATADIR": f"{root}/share/openmpi", "OPAL_SYSCONFDIR": f"{root}/etc",
            "PMIX_INSTALL_PREFIX": root, "PMIX_PKGLIBDIR": f"{root}/lib/pmix", "PMIX_PKGDATADIR": f"{root}/share/pmix",
            "PMIX_MCA_mca_base_component_path": f"{root}/lib/pmix",
            "OMPI_MCA_mca_base_component_path": f"{root}/lib/openmpi",
            "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
            "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "vader,tcp,self", "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
            "OMPI_MCA_plm_rsh_agent": "sh", "OMPI_MCA_oob_tcp_if_include": "lo", "OMPI_MCA_btl_tcp_if_include": "lo",
        }

    def without_cudnn(self):
        """The environment in which cuDNN is not found; None where it shares its folder with libraries that are needed."""
        file = self.libraries.get(CUDNN)
        if file is None or any(str(pathlib.Path(file).parent) == str(pathlib.Path(other).parent)
                               for name, other in self.libraries.items() if other and name != CUDNN):
            return None
        folders = self.environment["LD_LIBRARY_PATH"].split(":")
        return {"LD_LIBRARY_PATH": ":".join(folder for folder in folders if folder != str(pathlib.Path(file).parent))}

    def program(self, name):
        return str(self.root / "bin" / name)

    def start(self, command, **extra):
        """In a session of its own, so that all its processes can be ended together."""
        return subprocess.Popen([str(part) for part in command], cwd=self.root, env={**self.environment, **extra},
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                start_new_session=True, text=True, errors="replace")

    def finish(self, process, seconds, name):
        start, cut_off = time.monotonic(), False
        try:
            out, _ = process.communicate(timeout=max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            cut_off = True
            end_session(process)
            self.end_strays()
            try:
                out, _ = process.communicate(timeout=10)
            except subprocess.TimeoutExpired as error:  # something outside of the session holds the pipe
                out = error.output or b""
                out = out if isinstance(out, str) else out.decode(errors="replace")
        took = time.monotonic() - start
        self.log.write(f"\n$ {name}\n{out}[{'cut off' if cut_off else process.returncode} after {took:.1f} s]\n")
        self.log.flush()
        return Finished(process.returncode, out, took, cut_off)

    def end_strays(self):
        """Ranks are in groups of their own: where mpirun was ended before it ended them, they would keep the GPU."""
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "exe").startswith(f"{self.root}/bin/"):
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:  # gone, or not ours to look at
                pass

    def run(self, command, seconds, **extra):
        if seconds < 0.5:
            return Finished(None, "", 0, True)
        return self.finish(self.start(command, **extra), seconds, " ".join(map(str, command)))

    def python(self, command, seconds, **extra):
        """A script under this machine's own Python, without the pack's libraries in its way."""
        plain = {key: os.environ.get(key, "") for key in ("LD_LIBRARY_PATH", "PATH")}
        return self.run([shutil.which("python3"), *command], seconds, **plain, **extra)

    def mpirun(self, ranks, command, seconds, **extra):
        return self.run(["mpirun", "-n", ranks, *command], seconds, **extra)


def end_session(process, signals=(signal.SIGTERM, signal.SIGKILL)):
    for kill in signals:
        try:
            os.killpg(process.pid, kill)
            process.wait(timeout=3)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass


class DeviceMemory:
    """What is taken of the GPU, by all processes: cudaMemGetInfo."""

    def __init__(self, cudart):
        self.library = ctypes.CDLL(cudart)

    def used(self):
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        if self.library.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) != 0:
            return None
        return total.value - free.value

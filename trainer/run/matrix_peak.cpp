#include "trainer/run/matrix_peak.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <memory>
#include <system_error>
#include <vector>

#include "comm/agree.hpp"
#include "core/error.hpp"
#include "core/file.hpp"
#include "core/host.hpp"
#include "core/memory.hpp"
#include "core/parallel.hpp"
#include "model/ops/kernel.hpp"
#include "model/ops/linear.hpp"
#include "trainer/config/config.hpp"

namespace muster {
namespace {

// A product as large as those of a Transformer's layers, on data that is not all zeros: zeros run faster.
class Product {
 public:
  Product(Precision precision, std::int64_t size, Machine& machine)
      : machine_(machine),
        size_(size),
        type_{{size_, size_}, precision == Precision::bf16 ? DType::bf16 : DType::f32},
        kernel_(machine.backend().kernels.at(op_.name())),
        x_(account_, MemoryKind::activations, type_.bytes(), machine.device().memory()),
        w_(account_, MemoryKind::activations, type_.bytes(), machine.device().memory()),
        y_(account_, MemoryKind::activations, type_.bytes(), machine.device().memory()) {
    std::vector<std::byte> values(type_.bytes());
    for (std::int64_t i = 0; i < type_.elements(); ++i) {
      const float value = static_cast<float>((i * 2654435761u >> 8) & 0xffff) * 0x1p-16f - 0.5f;
      if (precision == Precision::bf16)
        reinterpret_cast<bf16*>(values.data())[i] = bf16(value);
      else
        reinterpret_cast<float*>(values.data())[i] = value;
    }
    machine.stream().copy(x_.data(), values.data(), values.size());
    machine.stream().copy(w_.data(), values.data(), values.size());
    machine.stream().synchronize();
    const std::vector<TensorType> inputs = {type_, type_, {}}, outputs = {type_};
    if (kernel_.workspace)
      workspace_ = Buffer(account_, MemoryKind::activations,
                          kernel_.workspace(op_, inputs, outputs, thread_count()), machine.device().memory());
  }

  // FLOP/s of one run.
  double run() {
    const auto begin = machine_.stream().timestamp();
    machine_.stream().enqueue([this](NativeStream native) {
      const std::vector<TensorView> inputs = {{x_.data(), &type_}, {w_.data(), &type_}, {}},
                                    outputs = {{y_.data(), &type_}};
      KernelArgs args;
      args.inputs = inputs;
      args.outputs = outputs;
      args.workspace = workspace_.data();
      args.stream = native;
      args.context = machine_.backend().context.get();
      kernel_.run(op_, args);
    });
    const auto end = machine_.stream().timestamp();
    machine_.stream().synchronize();
    return flops() / (end() - begin());
  }
  double flops() const { return 2.0 * std::pow(static_cast<double>(size_), 3); }

 private:
  Machine& machine_;
  MemoryAccount account_;  // of its own: gone before a run takes its memory
  std::int64_t size_;
  Linear op_{Activation::none, false};
  TensorType type_;
  Kernel kernel_;
  Buffer x_, w_, y_, workspace_;
};

// What this host has reached before with as many ranks and threads, in a file of its user's cache; a busy
// moment now must not make later steps look faster than light. A cache that cannot be read or written is no
// cache.
std::filesystem::path cache_file(Precision precision, const Communicator& comm, const Device& device) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value != nullptr ? value : "");
  };
  const std::filesystem::path cache = variable("XDG_CACHE_HOME"), home = variable("HOME");
  if (cache.empty() && home.empty()) return {};
  const std::filesystem::path folder = cache.empty() ? home / ".cache" : cache;
  return folder / "muster" /
         fmt::format("matrix-peak-{}-{}-{}-{}x{}", host_name(),
                     device.kind() == DeviceKind::cpu ? "cpu" : "cuda", spelling(precision),
                     comm.local_size(), thread_count());
}

double read_peak(const std::filesystem::path& file) {
  double peak = 0;
  std::ifstream(file) >> peak;
  return peak;
}

void keep_peak(const std::filesystem::path& file, double peak) {
  if (file.empty()) return;
  std::error_code ignored;
  std::filesystem::create_directories(file.parent_path(), ignored);
  try {
    write_text_atomically(file, fmt::format("{}\n", peak));
  } catch (const UserError&) {
  }
}

// Large products are faster, up to a size that depends on the device.
std::unique_ptr<Product> long_enough(Precision precision, Machine& machine) {
  constexpr std::int64_t smallest = 512, largest = 8192;
  for (std::int64_t size = smallest;; size *= 2) {
    auto product = std::make_unique<Product>(precision, size, machine);
    double flops = 0;
    for (int run = 0; run < 3; ++run) flops = std::max(flops, product->run());
    if (size == largest || product->flops() / flops > 5e-3) return product;
  }
}

}  // namespace

double measure_matrix_peak(Precision precision, Communicator& comm, Machine& machine) {
  using Clock = std::chrono::steady_clock;
  const std::unique_ptr<Product> product = long_enough(precision, machine);
  const std::filesystem::path file = cache_file(precision, comm, machine.device());
  double before = comm.rank() == 0 ? read_peak(file) : 0;
  comm.broadcast(std::as_writable_bytes(std::span(&before, 1)), 0, "matrix peak of other runs").wait();
  comm.barrier("measuring the matrix peak").wait();
  double best = 0;
  const auto end = Clock::now() + std::chrono::milliseconds(before > 0 ? 50 : 300);
  do best = std::max(best, product->run());
  while (Clock::now() < end);
  const double now = least_of_ranks(comm, best, "matrix peak");
  if (comm.rank() == 0 && now > before) keep_peak(file, now);
  return std::max(now, before);
}

}  // namespace muster

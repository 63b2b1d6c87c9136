#include "trainer/run/matrix_peak.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <system_error>
#include <vector>

#include "core/error.hpp"
#include "core/file.hpp"
#include "core/host.hpp"
#include "core/parallel.hpp"
#include "model/ops/kernel.hpp"
#include "model/ops/linear.hpp"
#include "trainer/config/config.hpp"

namespace muster {
namespace {

// A product as large as those of a Transformer's layer, on data that is not all zeros: zeros run faster.
class Product {
 public:
  explicit Product(Precision precision)
      : type_{{size, size}, precision == Precision::bf16 ? DType::bf16 : DType::f32},
        x_(type_.bytes()),
        w_(type_.bytes()),
        y_(type_.bytes()) {
    for (std::int64_t i = 0; i < type_.elements(); ++i) {
      const float value = static_cast<float>((i * 2654435761u >> 8) & 0xffff) * 0x1p-16f - 0.5f;
      if (precision == Precision::bf16) {
        reinterpret_cast<bf16*>(x_.data())[i] = reinterpret_cast<bf16*>(w_.data())[i] = bf16(value);
      } else {
        reinterpret_cast<float*>(x_.data())[i] = reinterpret_cast<float*>(w_.data())[i] = value;
      }
    }
    const Kernel kernel = cpu_kernels().at(op_.name());
    run_ = kernel.run;
    const std::vector<TensorType> inputs = {type_, type_}, outputs = {type_};
    if (kernel.workspace) workspace_.resize(kernel.workspace(op_, inputs, outputs, thread_count()));
  }

  static constexpr double flops = 2.0 * 1024 * 1024 * 1024;

  void run() {
    const std::vector<TensorView> inputs = {{x_.data(), &type_}, {w_.data(), &type_}},
                                  outputs = {{y_.data(), &type_}};
    KernelArgs args;
    args.inputs = inputs;
    args.outputs = outputs;
    args.workspace = workspace_.data();
    run_(op_, args);
  }

 private:
  static constexpr std::int64_t size = 1024;
  Linear op_{Activation::none, false};
  TensorType type_;
  std::vector<std::byte> x_, w_, y_, workspace_;
  KernelRun run_ = nullptr;
};

// What this host has reached before with as many ranks and threads, in a file of its user's cache; a busy
// moment now must not make later steps look faster than light. A cache that cannot be read or written is no
// cache.
std::filesystem::path cache_file(Precision precision, const Communicator& comm) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache == nullptr && home == nullptr) return {};
  const std::filesystem::path folder =
      cache != nullptr ? std::filesystem::path(cache) : std::filesystem::path(home) / ".cache";
  return folder / "muster" /
         fmt::format("matrix-peak-{}-{}-{}x{}", host_name(), spelling(precision), comm.local_size(),
                     thread_count());
}

double best_so_far(const std::filesystem::path& file, double measured) {
  if (file.empty()) return measured;
  double before = 0;
  std::ifstream(file) >> before;
  if (before >= measured) return before;
  std::error_code ignored;
  std::filesystem::create_directories(file.parent_path(), ignored);
  try {
    write_text_atomically(file, fmt::format("{}\n", measured));
  } catch (const UserError&) {
  }
  return measured;
}

}  // namespace

double measure_matrix_peak(Precision precision, Communicator& comm) {
  using Clock = std::chrono::steady_clock;
  Product product(precision);
  product.run();
  comm.barrier("measuring the matrix peak").wait();
  double best = 0;
  const auto end = Clock::now() + std::chrono::milliseconds(300);
  do {
    const auto start = Clock::now();
    product.run();
    best = std::max(best, Product::flops / std::chrono::duration<double>(Clock::now() - start).count());
  } while (Clock::now() < end);
  // The least of all ranks, then the best that it ever was.
  double negated = -best;
  comm.all_reduce(std::as_writable_bytes(std::span(&negated, 1)), ReduceType::f64, ReduceOp::max,
                  "matrix peak")
      .wait();
  double peak = comm.rank() == 0 ? best_so_far(cache_file(precision, comm), -negated) : 0;
  comm.broadcast(std::as_writable_bytes(std::span(&peak, 1)), 0, "matrix peak").wait();
  return peak;
}

}  // namespace muster

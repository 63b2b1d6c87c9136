// Speed of the memory-bound kernels: bytes that the formula must move, by Op::cost, over the time, beside the
// bandwidth of a copy. Run by hand on an idle machine: build/release/tests/ops_bench [threads]
#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/memory.hpp"
#include "core/parallel.hpp"
#include "model/ops/activation.hpp"
#include "model/ops/addition.hpp"
#include "model/ops/dropout.hpp"
#include "model/ops/embedding.hpp"
#include "model/ops/flat.hpp"
#include "model/ops/kernel.hpp"
#include "model/ops/norm.hpp"
#include "model/ops/rope.hpp"

namespace muster {
namespace {

// The best of many runs: other processes only ever add time.
double seconds(const std::function<void()>& run) {
  run();
  double best = 1e9;
  for (int i = 0; i < 25; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

class Bench {
 public:
  Bench() {
    const std::size_t bytes = std::size_t{256} << 20;
    Buffer from = buffer(bytes), to = buffer(bytes);
    copy_ =
        2 * static_cast<double>(bytes) / seconds([&] {
          parallel_ranges(
              static_cast<std::int64_t>(bytes), 1 << 20, [&](std::int64_t begin, std::int64_t end) {
                std::memcpy(to.data() + begin, from.data() + begin, static_cast<std::size_t>(end - begin));
              });
        });
    report("copy", 2 * static_cast<double>(bytes), 2 * static_cast<double>(bytes) / copy_);
  }

  void report(std::string_view what, double bytes, double time) const {
    fmt::print("{:44} {:9.3f} ms {:7.1f} GB/s {:6.0f} % of a copy\n", what, 1e3 * time, 1e-9 * bytes / time,
               100 * bytes / time / copy_);
  }

  Buffer buffer(std::uint64_t bytes) { return {account_, MemoryKind::activations, bytes}; }

  void op(const Op& op, const std::vector<TensorType>& inputs, std::string_view what) {
    const std::vector<TensorType> outputs = op.infer(inputs);
    const Kernel& kernel = cpu_kernels().at(op.name());
    std::vector<Buffer> memory;
    std::vector<TensorView> in, out;
    for (const TensorType& type : inputs) in.push_back(view(type, memory));
    for (const TensorType& type : outputs) out.push_back(view(type, memory));
    Buffer workspace =
        buffer(kernel.workspace ? kernel.workspace(op, inputs, outputs, thread_count()) : std::uint64_t{0});
    const StepScalars scalars;
    report(fmt::format("{} {}", op.name(), what), op.cost(inputs, outputs).bytes, seconds([&] {
             kernel.run(op, {in, out, workspace.data(), &scalars, 1, false});
           }));
  }

 private:
  // Numbers around one; ids count upwards.
  TensorView view(const TensorType& type, std::vector<Buffer>& memory) {
    if (type.shape.empty()) return {nullptr, &type};
    memory.push_back(buffer(type.bytes()));
    for (std::int64_t i = 0; i < type.elements(); ++i) {
      const float value = static_cast<float>(i * 7919 % 1000) / 500 - 1;
      const auto at = static_cast<std::size_t>(i);
      if (type.dtype == DType::f32) memory.back().as<float>()[at] = value;
      if (type.dtype == DType::bf16) memory.back().as<bf16>()[at] = bf16(value);
      if (type.dtype == DType::i32)
        memory.back().as<std::int32_t>()[at] = static_cast<std::int32_t>(i * 7919 % 1024);
    }
    return {memory.back().data(), &type};
  }

  MemoryAccount account_;
  double copy_ = 0;
};

void ops(Bench& bench, DType type) {
  // GPT-2 small at 4 x 1024 tokens.
  const std::int64_t n = 4096, c = 768, f = 3072;
  const TensorType stream{{n, c}, DType::f32}, x{{n, c}, type}, wide{{n, f}, type}, gate_up{{n, 2 * f}, type};
  const TensorType vector{{c}, DType::f32}, statistics{{n, 2}, DType::f32}, ids{{n}, DType::i32};
  const std::string_view name = name_of(type);
  const bool copy = type != DType::f32;
  bench.op(ResidualNorm(NormKind::layer, 1e-5f, type), {stream, x, vector, vector}, name);
  bench.op(ResidualNorm(NormKind::rms, 1e-5f, type), {stream, x, vector, {}}, fmt::format("rms {}", name));
  bench.op(NormGradient(NormKind::layer, true, copy), {x, stream, stream, statistics, vector}, name);
  bench.op(NormGradient(NormKind::rms, false, copy), {x, stream, stream, statistics, vector},
           fmt::format("rms {}", name));
  bench.op(Gelu(), {wide}, name);
  bench.op(GeluGradient(), {wide, wide}, name);
  bench.op(SwiGlu(), {gate_up}, name);
  bench.op(SwiGluGradient(), {wide, gate_up}, name);
  bench.op(Dropout(0.1f, 1024), {x}, name);
  bench.op(Rope(18, 64, 10000, false), {{{n, 3 * c}, type}, ids}, name);
  bench.op(Embedding(DType::f32), {ids, {{50304, c}, type}, ids, {{1024, c}, type}}, name);
  bench.op(EmbeddingGradient(50304), {ids, stream}, "f32");
  bench.op(Addition(), {x, x}, name);
}

void flat(Bench& bench) {
  const std::size_t count = std::size_t{32} << 20;
  const double elements = static_cast<double>(count);
  std::vector<Buffer> spaces;
  for (int i = 0; i < 5; ++i) spaces.push_back(bench.buffer(count * sizeof(float)));
  const auto w = spaces[0].as<float>(), m = spaces[1].as<float>(), v = spaces[2].as<float>();
  const auto gradient = spaces[3].as<float>();
  const auto half = spaces[4].as<bf16>().first(count);
  const FlatKernels& kernels = cpu_flat_kernels();
  const AdamW rule{.lr = 1e-3f, .decay = 0.1f};
  bench.report("fill_normal", 4 * elements, seconds([&] { fill_normal(gradient, 0, 1, 2, 3); }));
  bench.report("adamw", 28 * elements, seconds([&] { kernels.adamw(rule, w, m, v, gradient); }));
  std::vector<double> sums(count / flat_block);
  bench.report("block_squares", 4 * elements, seconds([&] { kernels.block_squares(gradient, sums); }));
  bench.report("add", 12 * elements, seconds([&] { kernels.add(w, gradient); }));
  bench.report("to_bf16", 6 * elements, seconds([&] { kernels.to_bf16(gradient, half); }));
}

}  // namespace
}  // namespace muster

int main(int count, char** arguments) {
  if (count > 1) {
    const std::string_view text = arguments[1];
    int threads = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), threads);
    if (error != std::errc() || end != text.data() + text.size() || threads < 1) {
      fmt::print(stderr, "usage: ops_bench [threads]\n");
      return 2;
    }
    muster::set_thread_count(threads);
  }
  muster::Bench bench;
  muster::flat(bench);
  for (const muster::DType type : {muster::DType::f32, muster::DType::bf16}) muster::ops(bench, type);
}

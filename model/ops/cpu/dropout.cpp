// Dropout. A sample's elements are numbered through its rows, so its part of x is one run of elements.
#include "model/ops/dropout.hpp"

#include "model/ops/cpu/elementwise.hpp"
#include "model/ops/cpu/kernels.hpp"
#include "model/ops/cpu/philox_vector.hpp"

MUSTER_BEGIN_ISA
namespace muster::cpu::MUSTER_ISA {

void dropout(const Op& op, const KernelArgs& args) {
  const auto& attributes = static_cast<const Dropout&>(op);
  const std::uint32_t threshold = dropped_below(attributes.probability());
  const float scale = static_cast<float>(1.0 / (1.0 - static_cast<double>(attributes.probability())));
  const std::int64_t length = attributes.rows_per_sample() * args.inputs[0].columns();
  const std::int64_t samples = length == 0 ? 0 : args.inputs[0].elements() / length;
  constexpr std::int64_t task_elements = 8192;
  const std::int64_t tasks_of_sample = (length + task_elements - 1) / task_elements;
  with_type(args.outputs[0].dtype(), [&](auto like) {
    using T = decltype(like);
    const T* x = args.inputs[0].as<T>();
    T* y = args.outputs[0].as<T>();
    parallel_tasks(samples * tasks_of_sample, [&](std::int64_t task, int) {
      const std::int64_t sample = task / tasks_of_sample;
      const std::int64_t begin = task % tasks_of_sample * task_elements;
      const std::int64_t end = std::min(length, begin + task_elements);
      const RandomStream stream{args.scalars->first_slot + static_cast<std::uint32_t>(sample),
                                args.scalars->step, args.random_key, args.scalars->seed};
      alignas(64) std::uint32_t words[64];
      for (std::int64_t e = begin; e < end; e += 64) {
        philox_64(static_cast<std::uint32_t>(e / 4), stream, words);
        for_lanes(e, std::min(end, e + 64), [&](std::int64_t i, auto part) {
          Words drawn;
          std::memcpy(&drawn, words + (i - e), sizeof drawn);
          const Floats scaled = load(x + sample * length + i, part) * scale;
          store(y + sample * length + i, select(drawn >= threshold, scaled, Floats{}), part);
        });
      }
    });
  });
}

}  // namespace muster::cpu::MUSTER_ISA
MUSTER_END_ISA

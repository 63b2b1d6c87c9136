#include "trainer/checkpoint/model_tensors.hpp"

#include <cstddef>
#include <cstdint>
#include <fmt/format.h>
#include <string>
#include <string_view>
#include <utility>

namespace muster {

std::uint64_t checkpoint_bytes(const RunPlan& plan) {
  return (1 + plan.optimizer->slots().size()) *
         static_cast<std::uint64_t>(plan.parameters().logical_elements()) * sizeof(float);
}

std::vector<Slice> slices(const RunPlan& plan, ModelState& state, const Buffer& copy) {
  std::vector<Slice> all;
  for (std::size_t b = 0; b < plan.buckets.size(); ++b) {
    const Range piece = plan.own_piece(b);
    for (const Segment& segment : segments(plan.parameters(), piece)) {
      const Parameter& parameter = plan.parameters()[segment.parameter];
      const auto add = [&](std::string_view kind, std::span<float> values) {
        all.push_back({fmt::format("{}/{}", kind, parameter.name), parameter.logical_shape(), segment.begin,
                       segment.end, values});
      };
      add("master", state.master.as<float>().subspan(static_cast<std::size_t>(segment.flat),
                                                     static_cast<std::size_t>(segment.end - segment.begin)));
      for (std::size_t slot = 0; slot < state.slots.size(); ++slot)
        add(plan.optimizer->slots()[slot], state.state(plan, slot, b, segment));
    }
  }
  if (!state.machine.is_cpu()) {
    std::span<float> free = copy.as<float>();
    for (Slice& slice : all) {
      const std::span<float> to = free.first(slice.values.size());
      free = free.subspan(to.size());
      state.machine.stream().copy(to.data(), slice.values.data(), to.size_bytes());
      slice.values = to;
    }
  }
  state.machine.stream().synchronize();
  return all;
}

void load_parameters(const Checkpoint& checkpoint, const ParameterSpace& parameters, std::span<float> master,
                     Transfer& transfer) {
  for (const Segment& segment : segments(parameters, {0, parameters.elements()})) {
    const Parameter& parameter = parameters[segment.parameter];
    const std::string name = "master/" + parameter.name;
    checkpoint.require(name, parameter.logical_shape());
    transfer.upload(master.subspan(static_cast<std::size_t>(segment.flat),
                                   static_cast<std::size_t>(segment.end - segment.begin)),
                    [&](std::int64_t begin, std::span<float> piece) {
                      checkpoint.read(name, segment.begin + begin, segment.begin + begin + std::ssize(piece),
                                      piece);
                    });
  }
}

void load(const Checkpoint& checkpoint, const RunPlan& plan, ModelState& state) {
  Transfer transfer(state.machine);
  load_parameters(checkpoint, plan.parameters(), state.master.as<float>(), transfer);
  for (std::size_t b = 0; b < plan.buckets.size(); ++b)
    for (const Segment& segment : segments(plan.parameters(), plan.updated[b])) {
      const Parameter& parameter = plan.parameters()[segment.parameter];
      for (std::size_t slot = 0; slot < state.slots.size(); ++slot) {
        const std::string name = fmt::format("{}/{}", plan.optimizer->slots()[slot], parameter.name);
        checkpoint.require(name, parameter.logical_shape());
        transfer.upload(state.state(plan, slot, b, segment), [&](std::int64_t begin, std::span<float> piece) {
          checkpoint.read(name, segment.begin + begin, segment.begin + begin + std::ssize(piece), piece);
        });
      }
    }
}

}  // namespace muster

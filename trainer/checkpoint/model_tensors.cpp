#include "trainer/checkpoint/model_tensors.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

namespace muster {

std::vector<Slice> slices(const RunPlan& plan, ModelState& state, const Buffer& copy) {
  std::vector<Slice> all;
  for (std::size_t b = 0; b < plan.buckets.size(); ++b) {
    const Range piece = plan.own_piece(b);
    for (const Segment& segment : segments(plan.parameters(), piece)) {
      const Parameter& parameter = plan.parameters()[segment.parameter];
      const auto size = static_cast<std::size_t>(segment.end - segment.begin);
      const auto moments =
          static_cast<std::size_t>(state.moments_begin[b] + segment.flat - plan.updated[b].begin);
      const auto add = [&](const char* kind, const Buffer& space, std::size_t offset) {
        all.push_back({kind + parameter.name, parameter.logical_shape(), segment.begin, segment.end,
                       space.as<float>().subspan(offset, size)});
      };
      add("master/", state.master, static_cast<std::size_t>(segment.flat));
      add("adam.m/", state.m, moments);
      add("adam.v/", state.v, moments);
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
      const auto offset =
          static_cast<std::size_t>(state.moments_begin[b] + segment.flat - plan.updated[b].begin);
      const auto size = static_cast<std::size_t>(segment.end - segment.begin);
      for (const auto& [kind, space] :
           {std::pair<const char*, const Buffer&>{"adam.m/", state.m}, {"adam.v/", state.v}}) {
        checkpoint.require(kind + parameter.name, parameter.logical_shape());
        transfer.upload(space.as<float>().subspan(offset, size),
                        [&, &prefix = kind](std::int64_t begin, std::span<float> piece) {
                          checkpoint.read(prefix + parameter.name, segment.begin + begin,
                                          segment.begin + begin + std::ssize(piece), piece);
                        });
      }
    }
}

}  // namespace muster

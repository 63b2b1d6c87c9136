// Moves numbers between a device's memory and whoever writes or reads them on the host, piece after piece through
// pinned memory; on CPUs, where they are in reach, they stay where they are. It blocks: not for use inside a step.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "core/memory.hpp"
#include "trainer/step/machine.hpp"

namespace muster {

class Transfer {
 public:
  explicit Transfer(Machine& machine);

  // Fills `to`, in the device's memory, from a function that writes its elements from `begin` on into the host's.
  using Fill = std::function<void(std::int64_t begin, std::span<float> piece)>;
  void upload(std::span<float> to, const Fill& fill);
  // Hands the elements of `from`, in the device's memory, to `use`.
  using Use = std::function<void(std::int64_t begin, std::span<const float> piece)>;
  void download(std::span<const float> from, const Use& use);

 private:
  Machine& machine_;
  Buffer pinned_;
};

}  // namespace muster

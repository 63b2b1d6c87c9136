// Runs a plan on a stream. Spaces are bound by whoever owns them, so that several plans (training,
// evaluation, prefill, decode) share one set of parameters and one arena.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "core/stream.hpp"
#include "model/graph/plan.hpp"

namespace muster {

struct Bindings {
  std::byte* arena = nullptr;
  std::byte* master = nullptr;
  std::byte* compute = nullptr;   // null when the plan computes in f32
  std::byte* gradient = nullptr;  // null when the plan has no backward
  std::byte* state = nullptr;
};

class Executor {
 public:
  explicit Executor(const Plan& plan);

  // An input to fill, or a result to read, in this arena.
  TensorView view(std::string_view name, const Bindings& bindings) const;

  // Appends the plan to the stream. `gradients_final`, if given, is called on the host as soon as the step
  // after which these parameters' gradients are final has been appended.
  using GradientsFinal = std::function<void(std::span<const std::int32_t> parameters)>;
  void run(Stream& stream, const Bindings& bindings, const StepScalars& scalars,
           const GradientsFinal& gradients_final = {}) const;

 private:
  const Plan& plan_;
};

}  // namespace muster

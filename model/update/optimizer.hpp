// What makes new parameters of summed gradients. An optimizer is a page, adamw.hpp or sgd.hpp: what it keeps of each
// element, what an update moves, and its formula; its kernels are cpu/NAME.cpp and cuda/NAME.cu, which flat_kernels.hpp
// lists.
//
// What becomes of an element depends on what belongs to that element alone, so a rank may own, update and save any range
// of the flat space, and bits do not depend on which.
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "core/stream.hpp"
#include "model/update/outcome.hpp"

namespace muster {

struct FlatKernels;

inline constexpr std::size_t most_slots = 2;

// A range of one parameter and what belongs to it, all in the device's memory and of one length.
struct UpdateRange {
  std::span<float> weights;
  std::array<std::span<float>, most_slots> state;  // by slot; those that the optimizer lacks are empty
  std::span<const float> gradient;                 // of the sum over all targets
  bool decays = true;                              // weight decay applies to this parameter
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  virtual std::string_view name() const = 0;
  // What is kept of each element from update to update, in f32 and zero at first, by the names that checkpoints have for
  // it; at most most_slots.
  virtual std::span<const std::string_view> slots() const = 0;
  // Read and written by the update of an element.
  virtual double bytes_per_element() const = 0;
  // Decay of each running average that starts from zero; a step's outcome holds their corrections.
  virtual std::array<double, 2> averages() const { return {0, 0}; }
  // Puts the update of a range on the stream: weights and state, from gradient x outcome->gradient_scale. It changes
  // nothing when outcome->skipped.
  virtual void update(NativeStream stream, const FlatKernels& kernels, double lr, const StepOutcome* outcome,
                      const UpdateRange& range) const = 0;
};

}  // namespace muster

// Steps that changed no parameter: they are counted, and a run in which all end so is not left to go on for ever.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/step/training_step.hpp"

namespace muster {

class SkippedSteps {
 public:
  static constexpr std::int64_t most_in_a_row = 100;

  void count(const StepResult& result);

  // Whether the last step had a loss or gradient that was not finite.
  bool diverging() const { return diverged_ > 0; }
  // Whether as many were skipped in a row as are waited for.
  bool wasted() const { return diverged_ >= most_in_a_row || empty_in_a_row_ >= most_in_a_row; }
  // Throws UserError that says why, `step` being the last, if so.
  void refuse_to_waste(std::int64_t step) const;

  // Lines for the end of a run; none if none were skipped.
  std::vector<std::string> summary() const;

 private:
  std::int64_t skipped_ = 0;
  std::int64_t empty_ = 0, empty_in_a_row_ = 0;  // of the skipped: without any target
  std::int64_t diverged_ = 0;                    // steps in a row
};

}  // namespace muster

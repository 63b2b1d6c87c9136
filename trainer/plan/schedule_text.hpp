// A step's schedule told to people: a line for what is done alike one after another.
#pragma once

#include <string>
#include <vector>

#include "trainer/plan/run_plan.hpp"

namespace muster {

// Kernels are counted as in the training plan, and named by the part of the model that they belong to.
std::vector<std::string> describe_steps(const RunPlan& plan);

}  // namespace muster

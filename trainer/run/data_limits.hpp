// What a run makes of its data that is less than, or other than, was given: lines for its start.
#pragma once

#include <string>
#include <vector>

#include "data/loader.hpp"
#include "trainer/config/config.hpp"

namespace muster {

// Both read where all documents end, if they are kept apart.
std::vector<std::string> limits_of_training(const Loader& loader, const Config& config);
std::vector<std::string> limits_of_evaluation(const Loader& loader, const Config& config);

}  // namespace muster

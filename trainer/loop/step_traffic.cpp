#include "trainer/loop/step_traffic.hpp"

#include "core/error.hpp"

namespace muster {

void StepTraffic::pause(std::int64_t steps) {
  sent_ += comm_.bytes_sent() - before_;
  const std::uint64_t planned = plan_.bytes_sent_per_step * static_cast<std::uint64_t>(steps);
  if (sent_ != planned)
    throw Defect(fmt::format("rank {} sent {} bytes in {} steps, the plan says {}", comm_.rank(), sent_,
                             steps, planned));
}

}  // namespace muster

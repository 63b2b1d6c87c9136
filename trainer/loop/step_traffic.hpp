// The bytes that steps send, apart from those between them: the plan knew of each.
#pragma once

#include <cstdint>

#include "comm/communicator.hpp"
#include "trainer/plan/run_plan.hpp"

namespace muster {

class StepTraffic {
 public:
  // `comm` joins the devices.
  StepTraffic(const Communicator& comm, const RunPlan& plan) : comm_(comm), plan_(plan) {}

  // From here on steps send, until pause(): what is sent then is no step's.
  void resume() { before_ = comm_.bytes_sent(); }
  // When nothing is under way and `steps` were taken in all. Throws Defect unless they sent what was planned.
  void pause(std::int64_t steps);

  std::uint64_t sent() const { return sent_; }

 private:
  const Communicator& comm_;
  const RunPlan& plan_;
  std::uint64_t sent_ = 0, before_ = 0;
};

}  // namespace muster

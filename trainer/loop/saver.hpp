// Saves the checkpoints of a run, and removes those that are more than it keeps.
#pragma once

#include "comm/communicator.hpp"
#include "core/memory.hpp"
#include "trainer/checkpoint/run_state.hpp"
#include "trainer/config/config.hpp"
#include "trainer/metrics/log.hpp"
#include "trainer/metrics/metrics_file.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/run_folder.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/position.hpp"

namespace muster {

class Saver {
 public:
  struct Place {
    Communicator& comm;
    const RunFolder& folder;
    const Attempt& attempt;
    const Log& log;
    MetricsFile* metrics;  // of rank 0; of the others none
  };
  // All outlive it. `about` is what each checkpoint tells of its run, its position apart; `copy` is what slices() wants.
  Saver(const Place& place, const Config& config, const RunPlan& plan, ModelState& state, const Buffer& copy,
        RunState about);

  // Collective, while nothing is under way. Unless `older_may_go`, no checkpoint is removed.
  void save(const Position& position, bool older_may_go);

 private:
  void remove_old_checkpoints() const;

  Place place_;
  const Config& config_;
  const RunPlan& plan_;
  ModelState& state_;
  const Buffer& copy_;
  RunState about_;
};

}  // namespace muster

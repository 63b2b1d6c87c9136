// The update of the parameters: the optimizer's on what this rank owns, then everyone gets the new values, while the
// next forward already computes with those that have come.
//
// train.sharding = 1: each rank holds the optimizer's state of its pieces and updates these; the new values are
// gathered. train.sharding = 0: the summed gradients are gathered first, and every rank updates everything.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "comm/communicator.hpp"
#include "core/stream.hpp"
#include "model/update/optimizer.hpp"
#include "trainer/plan/run_plan.hpp"
#include "trainer/step/model_state.hpp"
#include "trainer/step/wait_clock.hpp"

namespace muster {

class Update {
 public:
  Update(const RunPlan& plan, ModelState& state, Communicator& comm, WaitClock& waits);
  // Blocks until nothing more is gathered: the parameters' memory may be given back then.
  ~Update();
  Update(const Update&) = delete;
  Update& operator=(const Update&) = delete;

  // Appends the exchange of a bucket's summed gradient, of which `sum` is this rank's piece, and the wait for it; returns
  // where all of the bucket will lie.
  std::span<float> share(const entry::ShareGradients& entry, std::span<float> sum);
  // Appends the update of a bucket. `gradient` begins where what this rank updates of the bucket does.
  void apply(const entry::Update& entry, double lr, const StepOutcome* outcome,
             std::span<const float> gradient);
  // Begins to gather the new values of a bucket.
  void gather(const entry::Gather& entry);

  // Appends the wait for the new values of a bucket and their copies in the type of the computation; nothing
  // when that has been done since the last update.
  void receive(std::size_t bucket);
  void receive_all();

 private:
  const RunPlan& plan_;
  ModelState& state_;
  Communicator& comm_;
  WaitClock& waits_;
  std::vector<std::vector<Segment>> segments_;  // by bucket, of what this rank updates
  std::vector<std::optional<Event>> gathered_;  // by bucket: new values that are not received yet
};

}  // namespace muster

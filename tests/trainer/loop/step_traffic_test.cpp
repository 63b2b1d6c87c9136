// The bytes that steps send are those of the plan, whatever is sent between them.

#include "trainer/loop/step_traffic.hpp"

#include <gtest/gtest.h>
#include <vector>

#include "comm/threads/ranks.hpp"
#include "core/error.hpp"

namespace muster {
namespace {

TEST(StepTraffic, leaves_out_what_is_sent_between_steps_and_refuses_what_was_not_planned) {
  run_ranks(2, [](Communicator& comm) {
    const auto send = [&] {
      std::vector<double> value(8);
      comm.all_reduce(std::as_writable_bytes(std::span(value)), ReduceType::f64, ReduceOp::sum, "a step")
          .wait();
    };
    const std::uint64_t before = comm.bytes_sent();
    send();
    RunPlan plan;
    plan.bytes_sent_per_step = comm.bytes_sent() - before;
    ASSERT_GT(plan.bytes_sent_per_step, 0u);

    StepTraffic traffic(comm, plan);
    for (const std::int64_t steps : {1, 2}) {
      traffic.resume();
      send();
      traffic.pause(steps);
      send();
    }
    EXPECT_EQ(traffic.sent(), 2 * plan.bytes_sent_per_step);
    traffic.resume();
    send();
    send();
    EXPECT_THROW(traffic.pause(3), Defect);
    comm.barrier("end").wait();
  });
}

}  // namespace
}  // namespace muster
